"""The home: who may look into it, whose key it holds, and that one node at a time lives in it."""

import stat
import subprocess
import sys

import pytest

from dimnode.errors import ConfigError
from dimnode.store.home import load_key, load_seed, locked, prepare_home


def mode(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def code_of(call, *arguments) -> str:
    with pytest.raises(ConfigError) as caught:
        call(*arguments)
    return caught.value.complaint.code


def test_a_new_home_is_for_its_owner_alone(tmp_path) -> None:
    prepare_home(tmp_path / "a" / "home")
    assert {mode(path) for path in (tmp_path / "a" / "home", *(tmp_path / "a" / "home").iterdir())} == {0o700}


def test_an_open_home_is_closed(tmp_path) -> None:
    tmp_path.chmod(0o755)
    prepare_home(tmp_path)
    assert mode(tmp_path) == 0o700


def test_a_home_that_is_a_file_is_refused(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    assert code_of(prepare_home, tmp_path / "file") == "E-store-05"


def test_the_key_is_made_once_and_readable_by_its_owner_alone(tmp_path) -> None:
    (tmp_path / "identity.new").write_text("left by a crash")
    (tmp_path / "identity.new").chmod(0o644)
    seed = load_seed(tmp_path)
    assert len(seed) == 32
    assert load_seed(tmp_path) == seed
    assert mode(tmp_path / "identity.key") == 0o600
    assert load_key(tmp_path).peer.endswith(load_key(tmp_path).public)
    assert not (tmp_path / "identity.new").exists()


@pytest.mark.parametrize("text", ["", "00" * 31, "00" * 33, "zz" * 32, "é"])
def test_a_damaged_key_is_never_replaced(tmp_path, text) -> None:
    (tmp_path / "identity.key").write_text(text, encoding="utf-8")
    assert code_of(load_seed, tmp_path) == "E-store-06"
    assert (tmp_path / "identity.key").read_text(encoding="utf-8") == text


def test_a_key_that_others_can_read_is_refused(tmp_path) -> None:
    load_seed(tmp_path)
    (tmp_path / "identity.key").chmod(0o640)
    assert code_of(load_seed, tmp_path) == "E-store-07"


def test_a_key_that_cannot_be_written_is_the_operators_to_mend(tmp_path) -> None:
    assert code_of(load_seed, tmp_path / "absent") == "E-store-05"


HOLDER = """
import sys
from pathlib import Path
from dimnode.store.home import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.slow
def test_a_second_process_is_refused_with_the_first_ones_pid_until_that_dies(tmp_path) -> None:
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], **streams) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(ConfigError) as caught, locked(tmp_path):
            pass
        assert caught.value.complaint.code == "E-store-02"
        assert str(holder.pid) in caught.value.complaint.cause
        holder.kill()
    with locked(tmp_path):
        pass


def test_the_lock_can_be_taken_again(tmp_path) -> None:
    for _ in range(2):
        with locked(tmp_path):
            pass
