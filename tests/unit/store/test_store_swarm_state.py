"""The swarm's file: whole, private, durable; and what leaving does with a home."""

import sqlite3
from pathlib import Path

import pytest

from dimnode.errors import ConfigError
from dimnode.store.journal import Journal
from dimnode.store.swarm_state import SwarmState, has_records, load_state, save_state, set_aside, state_path

STATE = SwarmState(b"swarm", [b"a", b"b"], [b"c"], ["/ip4/127.0.0.1/tcp/1"], [(bytes(32), 0), (bytes(31) + b"1", 9)])


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    assert load_state(tmp_path) is None
    save_state(tmp_path, STATE)
    assert load_state(tmp_path) == STATE
    assert state_path(tmp_path).stat().st_mode & 0o777 == 0o600
    assert bytes(32).hex() not in repr(STATE)


def test_a_file_that_a_crash_left_half_written_does_no_harm(tmp_path: Path) -> None:
    save_state(tmp_path, STATE)
    state_path(tmp_path).with_suffix(".new").write_bytes(b"half")
    assert load_state(tmp_path) == STATE
    save_state(tmp_path, SwarmState(b"other"))
    assert load_state(tmp_path) == SwarmState(b"other")


@pytest.mark.parametrize(
    "raw", [b"", b"\x01", b"\x96\x02", b"\x91\xc0", b"\xc1", b"\x96\x01\xc4\x00\x90\x90\x90\x91\xc0"]
)
def test_a_damaged_file_is_told_as_such(tmp_path: Path, raw: bytes) -> None:
    save_state(tmp_path, STATE)
    state_path(tmp_path).write_bytes(raw)
    with pytest.raises(ConfigError, match="E-swarm-28"):
        load_state(tmp_path)


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    save_state(tmp_path, STATE)
    state_path(tmp_path).chmod(0o644)
    with pytest.raises(ConfigError, match="E-store-07"):
        load_state(tmp_path)


def note_a_record(home: Path) -> None:
    with sqlite3.connect(home / "journal.db") as database:
        database.execute("INSERT INTO records(kind,id,job,task,epoch,envelope) VALUES('k',x'00',x'',0,0,x'')")
    database.close()


@pytest.mark.parametrize("moved", [0, 1])
def test_who_dies_while_leaving_never_takes_the_journal_of_the_swarm_into_the_open_one(
    tmp_path: Path, moved: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    Journal(tmp_path / "journal.db").__enter__().__exit__(None, None, None)
    note_a_record(tmp_path)
    save_state(tmp_path, STATE)
    rename, left = Path.rename, moved

    def rename_until_killed(part: Path, target: Path) -> Path:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return rename(part, target)

    monkeypatch.setattr(Path, "rename", rename_until_killed)
    with pytest.raises(KeyboardInterrupt):
        set_aside(tmp_path, "clinic")
    monkeypatch.undo()
    assert load_state(tmp_path) == STATE
    assert set_aside(tmp_path, "clinic") is not None
    assert load_state(tmp_path) is None
    assert not has_records(tmp_path)


def test_leaving_keeps_everything_beside(tmp_path: Path) -> None:
    assert set_aside(tmp_path, "clinic") is None
    Journal(tmp_path / "journal.db").__enter__().__exit__(None, None, None)
    assert not has_records(tmp_path)
    save_state(tmp_path, STATE)
    folder = set_aside(tmp_path, "clinic")
    assert folder == tmp_path / "left" / "clinic-1"
    assert (folder / "swarm-state").exists()
    assert (tmp_path / "journal.db").exists(), "an empty journal names no swarm"
    note_a_record(tmp_path)
    assert has_records(tmp_path)
    save_state(tmp_path, STATE)
    assert set_aside(tmp_path, "clinic", journal_only=True) == tmp_path / "left" / "clinic-2"
    assert load_state(tmp_path) == STATE
    assert not (tmp_path / "journal.db").exists()
