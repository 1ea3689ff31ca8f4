"""Verifying a folder of receipts beside raw Ed25519, on one core and on all of them.

    python -m benchmarks.jobs --jobs 10000 --receipts FOLDER
    python -m benchmarks.verify FOLDER

Two pairs, never mixed: `verify()` on one core beside libsodium on one core, and the command `dim verify FOLDER`, its
start included, beside libsodium in as many processes. All rates are signatures per second, over the same receipts.
"""

import argparse
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from benchmarks.jobs import seconds_to_check, verify_figures
from dimnode.cli.verify_many import receipts_in
from dimnode.posix.system import cores
from dimnode.records.envelope import signed_bytes
from dimnode.records.receipt import parse_receipt


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    receipts = [path.read_bytes() for path in receipts_in([folder])]
    signed = [signed_bytes(it.envelope) for raw in receipts for it in parse_receipt(raw).records.values()]
    one = verify_figures(receipts)
    rate = one["verify_signatures_per_second"]
    print(f"{len(receipts)} receipts, {len(signed)} signatures")
    print(f"one core: {rate:,.0f} /s, {one['verify_over_raw']:.2f} of raw Ed25519 there")
    raw_seconds = _on_all_cores(signed)
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "dimnode.cli.main", "verify", folder], check=True, capture_output=True)
    seconds = time.perf_counter() - began
    said = f"{len(signed) / seconds:,.0f} /s in {seconds:.1f} s, {raw_seconds / seconds:.2f} of raw Ed25519 there"
    print(f"dim verify on {cores()} cores: {said}")


def _on_all_cores(signed: list[tuple[bytes, bytes]]) -> float:
    """Seconds that the slowest of as many processes takes for its equal share, without their start."""
    shares = [signed[place :: cores()] for place in range(cores())]
    with ProcessPoolExecutor(cores(), mp_context=get_context("spawn")) as pool:
        return max(pool.map(seconds_to_check, shares))


if __name__ == "__main__":
    main()
