"""Roots and IPNS names of dimnode beside js-ipfs-unixfs-importer and js-ipns.

Usage: python interop/content.py NODE FOLDER. Prints a JSON line for each thing tried.
Rule: what is compared is made on both sides now; golden files are compared with both.
"""

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dimnode.records.envelope import SigningKey
from dimnode.records.ids import cid_text, peer_bytes, peer_text
from dimnode.records.ipns import Name, open_name, seal_name
from dimnode.records.unixfs import LEAF_BYTES, TreeBuilder, tree_of

HERE = Path(__file__).resolve().parent
GOLDEN = HERE.parent / "tests" / "golden" / "unixfs.json"
SECONDS = 120


def attempt(what: str, trial: Callable[[], str]) -> None:
    """Try one thing, and print a row of it."""
    began = time.monotonic()
    try:
        ok, note = True, trial()
    except (AssertionError, OSError, ValueError, subprocess.SubprocessError) as error:
        ok, note = False, repr(error)[:200]
    print(json.dumps({"row": what, "ok": ok, "ms": round((time.monotonic() - began) * 1000), "note": note}), flush=True)


def js(node: str, script: str, *arguments: str) -> dict[str, Any]:
    """What a script prints."""
    command = [node, str(HERE / "content" / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr.strip()[-200:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def patterned(size: int) -> str:
    """Our root of leaves of which the number k is filled with k mod 251."""
    builder = TreeBuilder()
    for number, start in enumerate(range(0, size, LEAF_BYTES)):
        builder.add(bytes([number % 251]) * min(LEAF_BYTES, size - start))
    return cid_text(builder.finish().root)


def golden_roots(node: str) -> str:
    """The golden list, drawn on both sides."""
    whole: dict[str, str] = json.loads(GOLDEN.read_text(encoding="utf-8"))["roots"]
    chosen = [size for size in whole if int(size) <= 10 * LEAF_BYTES] + [str(1024 * LEAF_BYTES + 1)]  # one full node
    golden = {size: whole[size] for size in chosen}
    theirs = js(node, "roots.mjs", *golden)
    assert theirs == golden, "js draws another tree"
    assert {size: patterned(int(size)) for size in golden} == golden, "we draw another tree"
    return f"{len(golden)} sizes up to {max(map(int, golden)) / 2**30:.1f} GiB"


def random_roots(node: str, folder: Path) -> str:
    """Files of random sizes around the edges of leaves and nodes, with random bytes."""
    source = random.Random(time.time_ns())
    paths = []
    for number in range(12):
        size = max(0, source.randrange(0, 30) * LEAF_BYTES + source.choice((-1, 0, 1, source.randrange(LEAF_BYTES))))
        paths.append(folder / f"random-{number}")
        paths[-1].write_bytes(source.randbytes(size))
    theirs = js(node, "roots.mjs", *map(str, paths))
    for path in paths:
        with path.open("rb") as file:
            ours = cid_text(tree_of(file.read).root)
        assert theirs[str(path)] == ours, f"{path.stat().st_size} bytes: {theirs[str(path)]} and {ours}"
    return f"{len(paths)} files of random bytes"


def names(node: str, folder: Path) -> str:
    """IPNS records of Python for js, and one of js for Python."""
    key, now_ms = SigningKey.from_seed(random.randbytes(32)), time.time_ns() // 1_000_000
    value = "/ipfs/bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"
    good = seal_name(key, Name(value, 3, now_ms + 1_800_000, 60_000))
    records = {
        "good": good,
        "changed": good[:-5] + bytes([good[-5] ^ 1]) + good[-4:],
        "over": seal_name(key, Name(value, 3, now_ms - 1000, 60_000)),
        "another's": seal_name(SigningKey.from_seed(bytes(32)), Name(value, 3, now_ms + 1_800_000, 60_000)),
    }
    asked = {"name": peer_text(key.peer), "value": value, "records": {what: raw.hex() for what, raw in records.items()}}
    path = folder / "names.json"
    path.write_text(json.dumps(asked), encoding="utf-8")
    said: dict[str, Any] = js(node, "ipns.mjs", str(path))
    verdicts = said["verdicts"]
    assert verdicts.pop("good") == f"ok 3 {value}", said["verdicts"]
    assert not [verdict for verdict in verdicts.values() if verdict.startswith("ok")], verdicts
    theirs = open_name(bytes.fromhex(said["record"]), peer_bytes(said["name"]), now_ms)
    assert (theirs.value, theirs.sequence) == (value, 7), theirs
    return f"{len(good)} bytes; {len(verdicts)} wrong ones refused; one of js read"


def main(node: str, folder: Path) -> None:
    """Everything."""
    attempt("roots of the golden list are js-ipfs-unixfs-importer's", lambda: golden_roots(node))
    attempt("roots of random files are js-ipfs-unixfs-importer's", lambda: random_roots(node, folder))
    attempt("js-ipns takes our names and we take its", lambda: names(node, folder))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
