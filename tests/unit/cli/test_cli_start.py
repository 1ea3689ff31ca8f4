"""How fast the command line answers, and what it loads to do so.

The bounds that we promise hold on a quiet machine (150 ms for help, 250 ms for verify); a shared one gets twice that
and is compared with what a bare interpreter costs there.
"""

import subprocess
import sys
import time

import pytest
from fake_node import GOLDEN

HEAVY = {"libp2p", "trio", "numpy", "rich", "onnxruntime", "yaml"}
PLAIN = str(GOLDEN / "plain.dimr")


def loaded_by(*typed):
    """Heavy modules that a command loads, whatever its exit code."""
    program = (
        "import sys\n"
        "from dimnode.cli.main import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        f"sys.stderr.write(' '.join(['loaded', *sorted({HEAVY} & set(sys.modules))]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *typed],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        timeout=300,
        check=True,
    )
    words = done.stderr.decode().splitlines()[-1].split()
    assert words[0] == "loaded"
    return set(words[1:])


@pytest.mark.slow
@pytest.mark.parametrize(
    "typed",
    [
        ["--help"],
        ["run", "--help"],
        ["verify", PLAIN],
        ["receipt", "show", PLAIN],
        ["status", "--home", "/nonexistent"],
        ["job", "ls", "--home", "/nonexistent"],
        ["init", "--home", "/proc/nowhere"],
    ],
    ids=" ".join,
)
def test_a_command_loads_nothing_heavy(typed):
    assert loaded_by(*typed) == set()


def seconds_of(*commands, times=7):
    """The best of a few runs of each, in turn: what they cost when nobody else is in the way, or as much for all."""
    taken = [[] for _ in commands]
    for _ in range(times):
        for command, seconds in zip(commands, taken, strict=True):
            began = time.perf_counter()
            subprocess.run(command, capture_output=True, timeout=60, check=True)
            seconds.append(time.perf_counter() - began)
    return [min(seconds) for seconds in taken]


@pytest.mark.slow
@pytest.mark.parametrize(("typed", "promised"), [(["--help"], 0.150), (["verify", PLAIN], 0.250)])
def test_the_command_line_answers_at_once(typed, promised):
    bare, taken = seconds_of(
        [sys.executable, "-c", "pass"], [sys.executable, "-m", "dimnode.cli.main", *map(str, typed)]
    )
    bare_on_a_quiet_machine = 0.015
    slowness = max(1.0, bare / bare_on_a_quiet_machine)
    print(f"{typed[0]}: {taken * 1000:.0f} ms, bare interpreter {bare * 1000:.0f} ms")
    assert taken <= 2 * promised * slowness
