"""`make bench`: every benchmark, one after the other."""

import subprocess
import sys

for name in (
    "benchmarks.jobs",
    "benchmarks.overlay",
    "benchmarks.blobs",
    "benchmarks.http_door",
    "benchmarks.worker_hop",
    "benchmarks.exec_speed",
):
    print(f"\n== {name}", flush=True)
    subprocess.run([sys.executable, "-m", name, *sys.argv[1:]], check=True)
