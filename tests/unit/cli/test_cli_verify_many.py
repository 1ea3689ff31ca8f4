"""`dim verify` on a folder: all of it, on all cores, with a line for each receipt that does not verify."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from fake_node import GOLDEN

from dimnode.audit.redact import redact
from dimnode.cli import verify_many
from dimnode.limits import LIMITS

PLAIN = (GOLDEN / "plain.dimr").read_bytes()
MANY = 60
PASSED_IN_A_MOMENT = 4000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Sixty receipts in three folders, of which one is damaged and one redacted, beside what is no receipt."""
    top = tmp_path / "receipts"
    for number in range(MANY):
        place = top / f"day{number % 3}" / f"{number:03d}.dimr"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(PLAIN)
    (top / "day1" / "007.dimr").write_bytes(PLAIN[:-1])
    (top / "day2" / "008.dimr").write_bytes(redact(PLAIN))
    (top / "notes.txt").write_text("no receipt")
    return top


def test_a_folder_is_verified_whole_and_the_worst_counts(dim, folder):
    said = dim("verify", folder)
    assert said.code == 1
    lines = said.out.splitlines()
    assert lines[0].startswith(f"refused     {folder}/day1/007.dimr  R-CHECKSUM file: receipt: checksum")
    assert lines[1].startswith(f"incomplete  {folder}/day2/008.dimr  R-OPENING file:")
    assert lines[2].startswith("60 receipts in ")
    assert lines[2].endswith(": 58 verified, 1 incomplete, 1 refused")
    assert dim("verify", folder / "day2").code == 3
    assert dim("verify", folder / "day0").code == 0


def test_the_json_of_a_folder_is_a_summary_and_what_did_not_pass(dim, folder):
    found = json.loads(dim("verify", folder, "--json").out)
    assert found["status"] == 1
    summary = found["summary"]
    assert (summary["verified"], summary["incomplete"], summary["unreadable"], summary["refused"]) == (58, 1, 0, 1)
    assert [Path(row["file"]).name for row in found["receipts"]] == ["007.dimr", "008.dimr"]
    assert {check["code"] for check in found["receipts"][1]["checks"]} == {"R-OPENING", "R-BLOB"}


@pytest.mark.slow
def test_processes_find_what_one_finds_alone_and_in_the_same_order(folder, monkeypatch):
    files = [*verify_many.receipts_in([folder])]
    alone = [*verify_many.verdicts(files, None, 1)]
    bounds = replace(LIMITS.verify, alone_bytes=0, piece_receipts=7, pieces_waiting_per_core=1)
    monkeypatch.setattr(verify_many, "_BOUNDS", bounds)
    assert [*verify_many.verdicts(files, None, 2)] == alone
    assert [found.file for found in alone] == [str(path) for path in files]


def test_very_many_files_are_told_like_a_folder(dim, folder):
    named = sorted((folder / "day0").iterdir())
    assert len(named) > LIMITS.verify.reported_max
    assert dim("verify", *named).out.startswith("20 receipts in ")


def test_what_cannot_be_read_is_told_and_the_rest_is_verified(dim, folder):
    os.mkfifo(folder / "day0" / "pipe.dimr")
    (folder / "day0" / "gone.dimr").symlink_to("nowhere")
    said = dim("verify", folder / "day0")
    assert said.code == 2
    assert said.out.endswith(": 20 verified, 2 unreadable\n")


def test_what_the_system_will_not_even_look_at_is_told_and_the_rest_is_verified(dim, folder):
    (folder / "day0" / "far.dimr").symlink_to("far" * 100)  # as of a folder that may not be entered, stat says no
    said = dim("verify", folder / "day0")
    assert (said.code, said.out.splitlines()[0].split()) == (
        2,
        f"unreadable {folder}/day0/far.dimr File name too long".split(),
    )
    assert said.out.endswith(": 20 verified, 1 unreadable\n")
    assert "E-verify-01" in dim("verify", folder / "day0" / "far.dimr").err


def test_a_blob_that_cannot_be_read_is_named(dim, folder, tmp_path):
    from dimnode.records.ids import cid_text
    from dimnode.records.receipt import pack_receipt, parse_receipt

    receipt = parse_receipt(PLAIN)
    light = folder / "day0" / "light.dimr"
    light.write_bytes(pack_receipt(receipt.root, receipt.records.values(), receipt.openings.values(), ()))
    name = cid_text(next(iter(receipt.blobs)))
    (tmp_path / name).symlink_to("far" * 100)
    said = dim("verify", folder / "day0", "--blobs", tmp_path)
    assert (said.code, f"{name}: File name too long" in said.out) == (2, True)
    alone = dim("verify", light, "--blobs", tmp_path)
    assert (alone.code, "E-verify-01" in alone.err) == (2, True)


def test_blobs_beside_a_folder_complete_its_receipts(dim, folder, tmp_path):
    from dimnode.records.ids import cid_text
    from dimnode.records.receipt import pack_receipt, parse_receipt

    receipt = parse_receipt(PLAIN)
    light = pack_receipt(receipt.root, receipt.records.values(), receipt.openings.values(), ())
    (folder / "day0" / "light.dimr").write_bytes(light)
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    for cid, blob in receipt.blobs.items():
        (blobs / cid_text(cid)).write_bytes(blob)
    assert dim("verify", folder / "day0").code == 3
    assert dim("verify", folder / "day0", "--blobs", blobs).code == 0


def test_only_so_many_are_told_one_by_one(dim, folder, monkeypatch):
    for path in (folder / "day0").iterdir():
        path.write_bytes(b"junk")
    monkeypatch.setattr(verify_many, "_BOUNDS", replace(LIMITS.verify, told_max=5))
    lines = dim("verify", folder / "day0").out.splitlines()
    assert len(lines) == 7
    assert lines[5] == "and 15 more"


def test_a_folder_without_receipts_and_one_with_too_many_are_refused(dim, folder, tmp_path, monkeypatch):
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "E-verify-03" in dim("verify", empty).err
    monkeypatch.setattr(verify_many, "_BOUNDS", replace(LIMITS.verify, receipts_max=59))
    said = dim("verify", folder)
    assert (said.code, "E-verify-04" in said.err) == (2, True)


def test_pieces_are_bounded_in_number_and_in_bytes(tmp_path, monkeypatch):
    files = []
    for number, size in enumerate([10, 10, 10, 100, 10, 500]):
        files.append(tmp_path / str(number))
        files[-1].write_bytes(bytes(size))
    monkeypatch.setattr(verify_many, "_BOUNDS", replace(LIMITS.verify, piece_receipts=2, piece_bytes=100))
    assert [len(piece) for piece in verify_many._pieces(files)] == [2, 2, 2]
    monkeypatch.setattr(verify_many, "_BOUNDS", replace(LIMITS.verify, piece_receipts=9, piece_bytes=100))
    assert [len(piece) for piece in verify_many._pieces(files)] == [4, 2]


@pytest.mark.slow
def test_ctrl_c_ends_all_processes_without_a_word_of_python(tmp_path):
    """The first receipt is damaged, so its line says that processes are at work."""
    (tmp_path / "00000.dimr").write_bytes(b"junk")
    for number in range(1, PASSED_IN_A_MOMENT):
        shutil.copyfile(GOLDEN / "plain.dimr", tmp_path / f"{number:05d}.dimr")
    command = [sys.executable, "-m", "dimnode.cli.main", "verify", tmp_path]
    running = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert running.stdout is not None
    assert running.stdout.readline().startswith("refused")
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does: to all of them
    out, err = running.communicate(timeout=120)  # to the end of the pipes, which every process of it holds
    assert (running.returncode, out, err) == (130, "", "")


def test_ctrl_c_while_a_process_begins_comes_afterwards():
    begun = []

    def begin():
        with verify_many._deaf_to_ctrl_c():
            signal.raise_signal(signal.SIGINT)  # to this thread: those that other tests left would take it
            begun.append("a process")

    with pytest.raises(KeyboardInterrupt):
        begin()
    assert begun
