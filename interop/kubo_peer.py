"""js-ipfs as an independent daemon with Kubo's RPC, and dimnode's adapter to it.

Usage: python interop/kubo_peer.py NODE FOLDER. Prints a JSON line for each thing tried.
Rule: every wait is bounded; the daemon lives in FOLDER, listens on 127.0.0.1 alone, knows no peer, and is ended here.
"""

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import trio

from dimnode.audit.verifier import verify
from dimnode.errors import Refused
from dimnode.limits import LIMITS, KuboLimits
from dimnode.records.ids import TREE_PREFIX, Cid, blob_cid, cid_text
from dimnode.records.kinds import open_record
from dimnode.records.manifest import Manifest
from dimnode.records.receipt import parse_receipt
from dimnode.records.unixfs import LEAF_BYTES, Tree, TreeReader, tree_of
from dimnode.store.kubo import Kubo, open_kubo
from tests.e2e.harness import patient, real_nodes, triage

HERE = Path(__file__).resolve().parent
SECONDS = 120.0
SIZES = (0, 1, 1000, LEAF_BYTES, LEAF_BYTES + 1, 10 * LEAF_BYTES + 7)
WIDE = 176 * LEAF_BYTES + 3
"""More leaves than js-ipfs puts into one node."""


def free_port() -> int:
    """One that nobody listens at now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Daemon:
    """A js-ipfs with a repository of its own."""

    def __init__(self, node: str, folder: Path) -> None:
        self._command = [node, str(HERE / "kubo" / "node_modules" / "ipfs" / "src" / "cli.js")]
        self._folder, self.port = folder, free_port()
        self._environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "IPFS_PATH": str(folder / "repo")}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def api(self) -> str:
        """Its address."""
        return f"/ip4/127.0.0.1/tcp/{self.port}"

    def prepare(self) -> None:
        """A repository without peers, gateways or listeners but the RPC."""
        subprocess.run(
            [*self._command, "init", "--empty-repo"],
            env=self._environment,
            check=True,
            timeout=SECONDS,
            capture_output=True,
        )
        path = self._folder / "repo" / "config"
        config = json.loads(path.read_text(encoding="utf-8"))
        config["Addresses"] = {"Swarm": [], "API": self.api, "Gateway": ""}
        config["Bootstrap"] = []
        config["Discovery"] = {"MDNS": {"Enabled": False}, "webRTCStar": {"Enabled": False}}
        path.write_text(json.dumps(config), encoding="utf-8")

    def start(self) -> None:
        """Until it answers."""
        log = (self._folder / "daemon.log").open("ab")
        with log:
            self._process = subprocess.Popen(
                [*self._command, "daemon", "--offline"], env=self._environment, stdout=log, stderr=log
            )
        end = time.monotonic() + SECONDS
        while time.monotonic() < end and self._process.poll() is None:
            try:
                httpx.post(f"http://127.0.0.1:{self.port}/api/v0/version", timeout=2)
                return
            except httpx.HTTPError:
                time.sleep(0.1)
        raise TimeoutError((self._folder / "daemon.log").read_text(encoding="utf-8")[-300:])

    def kill(self) -> None:
        """At once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        # What a killed one leaves behind: the next one would wait for it.
        shutil.rmtree(self._folder / "repo" / "repo.lock", ignore_errors=True)
        (self._folder / "repo" / "api").unlink(missing_ok=True)


@contextmanager
def running(node: str, folder: Path) -> Iterator[Daemon]:
    """A daemon, ended afterwards."""
    daemon = Daemon(node, folder)
    daemon.prepare()
    try:
        daemon.start()
        yield daemon
    finally:
        daemon.kill()


def made(folder: Path, size: int) -> tuple[Tree, Path]:
    """A file of this size that no other size begins with, and its tree."""
    path = folder / f"file-{size}"
    with path.open("wb") as file:
        for start in range(0, size, LEAF_BYTES):
            seed = hashlib.sha256(f"{size} {start}".encode()).digest()
            file.write((seed * (LEAF_BYTES // 32))[: min(LEAF_BYTES, size - start)])
    with path.open("rb") as file:
        return tree_of(file.read), path


async def attempt(what: str, trial: Callable[[], Awaitable[str]]) -> None:
    """Try one thing, and print a row of it."""
    began = time.monotonic()
    try:
        with trio.fail_after(SECONDS):
            ok, note = True, await trial()
    except Refused as no:
        ok, note = False, " ".join(no.complaint.lines())
    except (AssertionError, OSError, trio.TooSlowError, ValueError) as error:
        ok, note = False, repr(error)
    print(json.dumps({"row": what, "ok": ok, "ms": round((time.monotonic() - began) * 1000), "note": note}), flush=True)


async def refusal(code: str, trial: Awaitable[object]) -> str:
    """The words of a refusal that has to come, with one of these codes."""
    try:
        await trial
    except Refused as no:
        said = no.complaint
    else:
        raise AssertionError(f"{code} did not come")
    if said.code not in code.split():
        raise AssertionError(said)
    return f"{said.code}: {said.cause}"


async def fetched(kubo: Kubo, root: Cid, size: int) -> "hashlib._Hash":
    """SHA-256 of a blob whose tree and leaves come from the daemon, block by block."""
    digest = hashlib.sha256()
    if not root.startswith(TREE_PREFIX):
        digest.update(await kubo.block(root))
        return digest
    reader = TreeReader(root)
    reader.take_root(await kubo.block(root))
    while reader.wanted:
        (level, index), link = next(iter(reader.wanted.items()))
        reader.take(level, index, await kubo.block(link.cid))
    assert reader.tree is not None and reader.tree.file_bytes == size
    for number in range(reader.tree.layout.leaves):
        digest.update(await kubo.block(Cid(blob_cid(b"")[:4] + reader.tree.digest(number))))
    return digest


def sha256_of(path: Path) -> bytes:
    """Of a whole file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


async def content(kubo: Kubo, daemon: Daemon, folder: Path) -> None:
    """Blobs in and out."""

    async def add(size: int) -> str:
        tree, path = made(folder, size)
        await kubo.add(tree, path)
        assert await kubo.pinned(tree.root), "it is not pinned"
        found = await fetched(kubo, tree.root, size)
        assert found.digest() == sha256_of(path), "other bytes came back"
        return cid_text(tree.root)

    for size in SIZES:
        await attempt(f"add: {size} bytes have our root, and come back", lambda size=size: add(size))

    tree, path = made(folder, WIDE)

    async def other_tree() -> str:
        async with open_kubo(daemon.api, replace(LIMITS.kubo, add_leaves_max=10_000)) as careless:
            return (await refusal("E-kubo-06", careless.add(tree, path)))[:80]

    async def as_blocks() -> str:
        began = time.monotonic()
        await kubo.add(tree, path)
        assert await kubo.pinned(tree.root), "it is not pinned"
        return f"{WIDE / 1e6 / (time.monotonic() - began):.0f} MB/s, {cid_text(tree.root)[:20]}…"

    async def back() -> str:
        began = time.monotonic()
        found = await fetched(kubo, tree.root, WIDE)
        assert found.digest() == sha256_of(path), "other bytes came back"
        return f"{WIDE / 1e6 / (time.monotonic() - began):.0f} MB/s, every block checked"

    async def read_by_the_daemon() -> str:
        digest = hashlib.sha256()
        url = f"http://127.0.0.1:{daemon.port}/api/v0/cat"
        async with (
            httpx.AsyncClient(timeout=SECONDS) as client,
            client.stream("POST", url, params={"arg": cid_text(tree.root)}) as response,
        ):
            async for piece in response.aiter_bytes():
                digest.update(piece)
        assert digest.digest() == sha256_of(path), "it reads our tree otherwise"
        return "the same bytes"

    await attempt("add of 176 MiB: it draws another tree, and is refused", other_tree)
    await attempt("the same block by block: our root, pinned", as_blocks)
    await attempt("the same back, block by block", back)
    await attempt("the same as js-ipfs itself reads our tree", read_by_the_daemon)


async def small(kubo: Kubo) -> None:
    """Blocks, pins, names."""

    async def blocks() -> str:
        root = await kubo.add_bytes(b"raw")
        assert await kubo.block(root) == b"raw"
        assert await kubo.pinned(root)
        return "raw, pinned"

    async def bytes_there_and_back() -> str:
        root = await kubo.add_bytes(b"an index")
        assert await kubo.cat(root, 8) == b"an index"
        return cid_text(root)

    async def pins() -> str:
        root = await kubo.add_bytes(b"an index")
        assert await kubo.unpin(root) and not await kubo.pinned(root) and not await kubo.unpin(root)
        await kubo.pin(root)
        assert await kubo.pinned(root)
        return ""

    async def absent() -> str:
        root = blob_cid(b"nobody has this")
        assert not await kubo.has(root)
        return await refusal("E-kubo-09", kubo.block(root))

    async def name() -> str:
        key = await kubo.key("dim-interop")
        assert await kubo.key("dim-interop") == key
        for word in (b"first", b"second"):
            assert await kubo.publish("dim-interop", await kubo.add_bytes(word), 3600) == key
        return f"/ipns/{key}"

    await attempt("block put and get, both codecs", blocks)
    await attempt("add and cat of a few bytes", bytes_there_and_back)
    await attempt("pin, unpin, and what is pinned", pins)
    await attempt("what it does not have", absent)
    await attempt("a key, and its name moved on", name)


async def death(daemon: Daemon, limits: KuboLimits, folder: Path) -> None:
    """It is killed while a file is being sent, and comes back."""
    tree, path = made(folder, 60 * LEAF_BYTES)

    async def killed() -> str:
        async with open_kubo(daemon.api, limits) as kubo:

            def progress(sent: int) -> None:
                if sent >= 20 * LEAF_BYTES:
                    daemon.kill()

            return await refusal("E-kubo-03 E-kubo-05", kubo.add(tree, path, progress))

    async def again() -> str:
        await trio.to_thread.run_sync(daemon.start)
        async with open_kubo(daemon.api, limits) as kubo:
            assert not await kubo.pinned(tree.root)
            await kubo.add(tree, path)
            assert await kubo.pinned(tree.root)
        return ""

    await attempt("killed in the middle of an add", killed)
    await attempt("started again: not half there, and added whole", again)


async def node_beside(daemon: Daemon, folder: Path) -> None:
    """A real node that has this daemon in its settings."""
    home = folder / "home"
    (home / "alba").mkdir(mode=0o700, parents=True)
    (home / "alba" / "config.toml").write_text(f'[kubo]\napi = "{daemon.api}"\n', encoding="utf-8")
    with real_nodes(home, {"alba": True}) as nodes:
        nodes.offer("alba")
        alba = nodes["alba"]

        async def asked(what: str, name: str) -> bytes:
            async with httpx.AsyncClient(timeout=SECONDS) as client:
                answer = await client.post(f"http://127.0.0.1:{daemon.port}/api/v0/{what}", params={"arg": name})
                return answer.raise_for_status().content

        async def cat(root: str) -> bytes:
            return await asked("cat", root)

        async def pushed() -> str:
            said = alba.client.ask("kubo.push", job=None)
            assert not said["refused"] and said["name"] and said["pinned"], said
            path = json.loads(await asked("name/resolve", said["name"].removeprefix("/ipns/")))["Path"]
            assert path == f"/ipfs/{said['index']}", path
            index = json.loads(await cat(said["index"]))
            [entry] = index["models"]
            manifest = Manifest.of(open_record(await cat(entry["envelope"])))
            for file in manifest.files:
                assert len(await cat(cid_text(file.root))) == file.size_bytes
            return f"{manifest.title}, {said['name']}"

        async def receipt() -> str:
            ended = alba.client.run(triage(), [patient(1)])
            root = alba.client.ask("kubo.push", job=ended.job)["root"]
            raw = await cat(root)
            async with open_kubo(daemon.api, LIMITS.kubo) as kubo:
                assert await kubo.pinned(blob_cid(raw))
            report, found = verify(raw), parse_receipt(raw)
            assert report.status == 3 and found.root == ended.verdict and not found.blobs, report.status
            return f"{len(raw)} bytes, authentic, without inputs and outputs"

        async def found() -> str:
            tree, path = made(folder, 21 * LEAF_BYTES + 5)
            async with open_kubo(daemon.api, LIMITS.kubo) as kubo:
                await kubo.add(tree, path)
            said = alba.client.ask("blobs.get", blob=cid_text(tree.root), peers=[], pin=False, share=False)
            assert sha256_of(Path(said["path"])) == sha256_of(path)
            return said["blob"]

        await attempt("dim kubo push: js-ipfs reads name, index, manifest, model", pushed)
        await attempt("dim kubo push JOB: js-ipfs has the receipt", receipt)
        await attempt("dim blobs get finds what only js-ipfs has", found)


async def main(node: str, folder: Path) -> None:
    """Everything."""
    with running(node, folder) as daemon:
        async with open_kubo(daemon.api, LIMITS.kubo) as kubo:

            async def who() -> str:
                found = await kubo.daemon()
                assert found.kind == "js-ipfs"
                return f"{found.kind} {found.version}"

            await attempt("it says who it is", who)
            await small(kubo)
            await content(kubo, daemon, folder)
        await death(daemon, LIMITS.kubo, folder)
        await node_beside(daemon, folder)


if __name__ == "__main__":
    trio.run(main, sys.argv[1], Path(sys.argv[2]))
