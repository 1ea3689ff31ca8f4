"""Real Kubo (0.22, as a Go library) and a real node, block by block over bitswap, both ways.

Usage: python interop/bitswap_peer.py WHEEL_FOLDER FOLDER, inside a network namespace that has loopback alone. Prints a
JSON line for each thing tried.
"""

import base64
import hashlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from dimnode.errors import DimError
from dimnode.records.envelope import SigningKey
from dimnode.records.ids import peer_bytes, peer_text
from dimnode.records.unixfs import LEAF_BYTES
from tests.e2e.harness import RealNode, real_nodes, until

HERE = Path(__file__).resolve().parent
SECONDS = 60.0
SIZES = {"1 block": 1000, "5 MiB and a few bytes": 5 * LEAF_BYTES + 7, "200 MiB": 200 * LEAF_BYTES}
SETTINGS = "[bitswap]\nserve = true\nfetch = true\n"


class Kubo:
    """One Kubo in a process of its own. `seed`: its Ed25519 key; without one it makes an RSA key itself."""

    def __init__(self, wheel: str, repository: Path, seed: bytes | None = None) -> None:
        command = [sys.executable, str(HERE / "kubo_library.py"), wheel, str(repository)]
        if seed is not None:
            key = SigningKey.from_seed(seed)
            secret = base64.b64encode(b"\x08\x01\x12\x40" + seed + key.peer[-32:]).decode()
            command += [peer_text(key.peer), secret]
        # It writes a log into whatever folder it is started in.
        self._process = subprocess.Popen(
            command, cwd=repository.parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        said = self.answer()
        self.address = f"{said['addresses'][0]}/p2p/{said['peer']}"

    def answer(self) -> dict[str, Any]:
        """The next line that it prints."""
        assert self._process.stdout is not None
        found: dict[str, Any] = json.loads(self._process.stdout.readline())
        return found

    def begin(self, *words: str) -> None:
        """Ask; `answer` must follow."""
        assert self._process.stdin is not None
        self._process.stdin.write(" ".join(words) + "\n")
        self._process.stdin.flush()

    def ask(self, *words: str) -> Any:
        """What it answers, and how long it took."""
        self.begin(*words)
        return self.answer()

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._process.pid

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()


@contextmanager
def kubo(wheel: str, repository: Path, seed: bytes | None = None) -> Iterator[Kubo]:
    """A Kubo as long as the block runs; it is ended after two minutes whatever happens."""
    running = Kubo(wheel, repository, seed)
    ender = subprocess.Popen(["sh", "-c", f"sleep 120; kill -9 {running.pid}"])
    try:
        yield running
    finally:
        running.close()
        ender.kill()
        ender.wait()


def attempt(what: str, trial: Callable[[], str]) -> None:
    """Try one thing, and print a row of it."""
    began = time.monotonic()
    try:
        ok, note = True, trial()
    except (AssertionError, OSError, ValueError, DimError) as error:
        ok, note = False, repr(error)[:200]
    print(json.dumps({"row": what, "ok": ok, "ms": round((time.monotonic() - began) * 1000), "note": note}), flush=True)


def made(path: Path, size: int) -> bytes:
    """A file whose leaves all differ; its SHA-256."""
    with path.open("wb") as file:
        for start in range(0, size, LEAF_BYTES):
            seed = hashlib.sha256(f"{size} {start}".encode()).digest()
            file.write((seed * (LEAF_BYTES // 32))[: min(LEAF_BYTES, size - start)])
    return sha256_of(path)


def sha256_of(path: Path) -> bytes:
    """Of a whole file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


class Meter:
    """What a transfer costs on both sides, from when it was made."""

    def __init__(self, alba: RealNode, it: Kubo) -> None:
        self._pids = alba.pid, it.pid
        self._before = list(map(cpu_of, self._pids))

    def rate(self, size: int, seconds: float) -> str:
        """MB/s of what is worth a rate, and CPU seconds of both."""
        node, kubo = (cpu_of(pid) - before for pid, before in zip(self._pids, self._before, strict=True))
        words = f"{size / 1e6 / seconds:.0f} MB/s in {seconds:.1f} s; CPU: the node {node:.1f} s, Kubo {kubo:.1f} s"
        return words if size > LEAF_BYTES else ""


def cpu_of(pid: int) -> float:
    """Seconds so far."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def seed_beside(peer: str, larger: bool) -> bytes:
    """A key whose peer id is on the wanted side of another's."""
    number = 0
    while (SigningKey.from_seed(number.to_bytes(32, "big")).peer > peer_bytes(peer)) != larger:
        number += 1
    return number.to_bytes(32, "big")


def from_us(alba: RealNode, it: Kubo, folder: Path) -> dict[str, tuple[str, bytes, int]]:
    """Kubo fetches what the node shares."""
    shared: dict[str, tuple[str, bytes, int]] = {}
    for name, size in SIZES.items():
        path = folder / f"file-{size}"
        digest = made(path, size)

        def get(path: Path = path, name: str = name, size: int = size, digest: bytes = digest) -> str:
            blob = alba.client.ask("blobs.add", path=str(path), pin=True, share=True)["blob"]
            shared[name] = blob, digest, size
            it.ask("connect", alba.addresses[0])
            target = folder / f"kubo-{size}"
            meter, sent = Meter(alba, it), alba.client.ask("blobs.stat")["bitswap_bytes"]
            said = it.ask("get", blob, str(target))
            note = meter.rate(size, said["seconds"])
            sent = alba.client.ask("blobs.stat")["bitswap_bytes"] - sent
            assert target.exists() and sha256_of(target) == digest, said
            assert sent <= 1.02 * size + 1000, f"{sent} bytes were sent for {size}"
            return note

        attempt(f"Kubo fetches {name} from the node", get)
    return shared


def from_it(alba: RealNode, it: Kubo, shared: dict[str, tuple[str, bytes, int]]) -> None:
    """The node lets go of what Kubo has by now, and fetches it back."""
    for name, (blob, digest, size) in shared.items():

        def get(blob: str = blob, digest: bytes = digest, size: int = size) -> str:
            meter = Meter(alba, it)
            path, seconds = again(alba, it, blob)
            note = meter.rate(size, seconds)
            assert sha256_of(path) == digest, "other bytes came"
            return note

        attempt(f"the node fetches {name} from Kubo", get)


def no_rpc() -> str:
    """The settings name a port for the RPC."""
    with socket.socket() as tried:
        assert tried.connect_ex(("127.0.0.1", 5001)), "it answers: let kubo_peer.py try our adapter with it"
    return "so dim kubo is not tried with it"


def refusals(alba: RealNode, it: Kubo, folder: Path) -> None:
    """What is not for everybody, and what is not ours."""

    def kept() -> str:
        digest = made(folder / "kept", 3000)
        blob = alba.client.ask("blobs.add", path=str(folder / "kept"), pin=True, share=False)["blob"]
        target = folder / "kubo-kept"
        it.begin("get", blob, str(target))
        until(lambda: alba.client.ask("blobs.stat")["bitswap_unmet"], SECONDS, "Kubo asks for what is not shared")
        assert not target.exists()
        alba.client.ask("blobs.pin", blob=blob, reason="shared")
        it.answer()
        assert sha256_of(target) == digest, "other bytes came"
        return "it comes when it is shared"

    def other_tree() -> str:
        made(folder / "other", 600_000)
        root = it.ask("add", str(folder / "other"))["found"]
        try:
            alba.client.ask("blobs.get", blob=root, peers=[it.address], pin=False, share=False)
        except DimError as no:
            if "E-p2p-65" in str(no):
                return str(no)
            raise
        raise AssertionError("it was taken")

    attempt("what Kubo adds by its own defaults (version 0) is refused by name", other_tree)
    attempt("what is not shared is not given to Kubo until it is", kept)


def ids(alba: RealNode, it: Kubo, folder: Path, name: str) -> None:
    """The smaller id opens the link, so a Kubo is found out on one side only."""

    def both_ways() -> str:
        path, target = folder / f"id-{name}", folder / f"kubo-id-{name}"
        path.write_bytes(hashlib.sha256(name.encode()).digest() * 70_000)
        digest = sha256_of(path)
        blob = alba.client.ask("blobs.add", path=str(path), pin=True, share=True)["blob"]
        it.ask("connect", alba.addresses[0])
        it.ask("get", blob, str(target))
        assert sha256_of(target) == digest, "other bytes came"
        again(alba, it, blob)
        return it.address[-20:]

    attempt(f"both ways with a Kubo whose id is the {name}", both_ways)


def again(alba: RealNode, it: Kubo, blob: str) -> tuple[Path, float]:
    """Let go of a blob and fetch it from Kubo; where it is, and the seconds it took."""
    for reason in ("shared", "user"):
        alba.client.ask("blobs.unpin", blob=blob, reason=reason)
    alba.client.ask("blobs.rm", blob=blob)
    began = time.monotonic()
    found = alba.client.ask("blobs.get", blob=blob, peers=[it.address], pin=False, share=False)
    return Path(found["path"]), time.monotonic() - began


def main(wheel: str, folder: Path) -> None:
    """Everything."""
    (folder / "alba").mkdir(mode=0o700, parents=True)
    (folder / "alba" / "config.toml").write_text(SETTINGS, encoding="utf-8")
    with real_nodes(folder, {"alba": False}) as nodes:
        alba = nodes["alba"]
        with kubo(wheel, folder / "rsa") as it:
            shared = from_us(alba, it, folder)
            from_it(alba, it, shared)
            attempt("this Kubo opens no RPC port, whatever its settings say", no_rpc)
            refusals(alba, it, folder)
        for larger in (False, True):
            name = "larger" if larger else "smaller"
            with kubo(wheel, folder / name, seed_beside(alba.peer, larger)) as it:
                ids(alba, it, folder, name)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
