"""A third of a minute of what `python -m tests.fuzz` does for as long as one likes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SECONDS = os.environ.get("DIM_TEST_FUZZ_SECONDS", "20")


@pytest.mark.slow
def test_a_node_survives_hostile_peers_and_goes_on_serving_its_own_client() -> None:
    command = [sys.executable, "-m", "tests.fuzz", "--seconds", SECONDS]
    # A process of its own: the stock libp2p host must not meet the one that dimnode has mended.
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as attack:
        try:
            said, complaints = attack.communicate(timeout=float(SECONDS) + 240)
        except BaseException:
            attack.send_signal(signal.SIGINT)  # not SIGKILL: it has a node to end
            raise
    print(said)
    assert attack.returncode == 0, said + complaints[-4000:]
