"""Where the time of a job goes: samples of owner and executor while 32 jobs are open, by room of the house.

    python -m benchmarks.profile [--seconds 8]

Uses py-spy (in the dev extra) on the two node processes; only samples that hold Python's lock count, so waiting is left
out. A sample belongs to the innermost frame's package; `inside` counts a room wherever it is on the stack.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.jobs import MODEL, two_nodes
from dimnode.client import tensor_rows
from dimnode.demo.assets_index import read_model_card
from dimnode.demo.setting import card_map
from dimnode.demo.split import read_patients

_FRAME = re.compile(r"\((?P<file>[^():]+)(?::\d+)?\)$")


def main() -> None:
    """Run jobs, sample, print two tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=8)
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory(prefix="dim-profile-") as folder, two_nodes(Path(folder)) as (owner, executor):
        card = read_model_card(MODEL)
        executor.client.add_model(card_map(card), card.path)
        while not owner.client.models():
            pass
        spies = []
        for member in (owner, executor):
            assert member.process is not None
            raw = Path(folder) / f"{member.name}.raw"
            command = [str(Path(sys.executable).parent / "py-spy"), "record", "--gil", "-f", "raw", "-r", "400"]
            command += ["-d", str(seconds), "-p", str(member.process.pid), "-o", str(raw)]
            spy = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            spies.append((member.name, raw, spy))
        over = threading.Event()
        for ended in owner.client.run_many(stream(over), 32):
            assert ended.status == "ok", ended
            if all(spy.poll() is not None for _, _, spy in spies):
                over.set()
        for name, raw, _ in spies:
            show(name, raw.read_text(encoding="utf-8"))


def stream(over: threading.Event) -> Iterator[tuple[dict[str, Any], list[bytes]]]:
    """Jobs until told that it is over."""
    inputs = [tensor_rows([list(patient.features)]) for patient in read_patients()]
    index = 0
    while not over.is_set():
        yield {"tasks": [{"model": MODEL}]}, [inputs[index % len(inputs)]]
        index += 1


def show(name: str, raw: str) -> None:
    """Shares of samples by innermost package, and by room anywhere on the stack."""
    innermost: Counter[str] = Counter()
    inside: Counter[str] = Counter()
    for line in raw.splitlines():
        stack, _, count = line.rpartition(" ")
        rooms = [room_of(frame) for frame in stack.split(";")]
        innermost[rooms[-1]] += int(count)
        for room in set(rooms):
            inside[room] += int(count)
    total = sum(innermost.values())
    print(f"\n{name}: {total} samples\n{'':<24} innermost   inside")
    for room, count in innermost.most_common(16):
        print(f"{room:<24} {100 * count / total:7.1f} %  {100 * inside[room] / total:6.1f} %")


def room_of(frame: str) -> str:
    """dimnode/records, trio, nacl, …"""
    found = _FRAME.search(frame)
    parts = Path(found["file"]).parts if found else ()
    if "dimnode" in parts:
        start = len(parts) - 1 - parts[::-1].index("dimnode")
        return "/".join(parts[start : start + 2])
    return parts[0] if len(parts) > 1 else "python"


if __name__ == "__main__":
    main()
