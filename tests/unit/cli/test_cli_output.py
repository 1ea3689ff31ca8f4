"""Words, tables and JSON."""

import io
import json
import struct

import pytest

from dimnode.cli.carrying import plan_lines
from dimnode.cli.models import _example
from dimnode.cli.output import aligned, narrowed, plain, say, say_json, shown, size_text, table, talk
from dimnode.cli.results import in_votes, show_output
from dimnode.records.ids import blob_cid, cid_text, peer_of_key, peer_text, record_id
from dimnode.records.tensors import Tensor, encode_tensors


def test_ids_are_text_and_other_bytes_are_hex():
    peer, record, blob = peer_of_key(bytes(32)), record_id(b"x"), blob_cid(b"x")
    assert plain([peer, record, blob, b"\x01\x02"]) == [peer_text(peer), cid_text(record), cid_text(blob), "0102"]


def test_numbers_that_json_lacks_become_null(capsys):
    say_json({"x": [float("nan"), float("inf"), 1.5]})
    assert json.loads(capsys.readouterr().out) == {"x": [None, None, 1.5]}


def test_what_a_stranger_wrote_cannot_command_the_terminal():
    assert shown("\x1b[31mred\n") == "?[31mred?"


def test_a_tally_of_weights_is_shown_as_the_weights_were_written(capsys):
    tally = [
        Tensor("label", "int64", (1,), struct.pack("<q", 1)),
        Tensor("margin", "int64", (1,), struct.pack("<q", 1500)),
    ]
    blob = encode_tensors([*tally, Tensor("votes", "int64", (1, 2), struct.pack("<2q", 2500, 4000))])
    show_output(blob, ["benign", "malignant"], weighted=True)
    assert capsys.readouterr().out.splitlines()[1].split() == ["1", "malignant", "1.5", "2.5", "4"]
    show_output(blob, ["benign", "malignant"])
    assert capsys.readouterr().out.splitlines()[1].split() == ["1", "malignant", "1500", "2500", "4000"]
    assert in_votes({"label": [1], "votes": [[2500, 4000]], "margin": [1500]})["votes"] == [[2.5, 4.0]]
    strange = {"label": [1], "votes": [["x"]], "margin": [1]}
    assert in_votes(strange) == strange


def test_a_place_that_the_job_named_is_not_called_the_only_one():
    step = {"op": "infer", "model": "m", "cabinet": "", "peers": ["brio"], "pinned": True}
    plan = {"steps": [step], "cost_factor": 1, "tier": "signed", "residual_risk": ""}
    assert "at brio (named by the job)" in plan_lines(plan)[0]
    plan["steps"] = [step | {"pinned": False}]
    assert "at brio (the only one that offers it)" in plan_lines(plan)[0]


def test_a_step_that_nobody_offers_may_still_run_where_a_model_is_fetched_but_not_without_its_cabinet():
    step = {"op": "infer", "model": "m", "cabinet": "", "peers": []}
    plan = {"steps": [step, step | {"cabinet": "ward"}], "cost_factor": 1, "tier": "signed", "residual_risk": ""}
    said = plan_lines(plan)
    assert said[0].endswith("NOBODY offers it now; a peer that may fetch it is looked for")
    assert said[1].endswith("NOBODY offers it now")


@pytest.mark.parametrize(
    ("takes", "inputs", "words"),
    [
        ([], [["x", "float32", [-1, 10]]], "rows.csv"),
        ([], [["a", "float32", [-1, 2]], ["b", "int64", [-1]]], 'rows.json, which holds {"a": [[…]], "b": […]}'),
        ([], [["x", "float32", [-1, 3, 224, 224]]], "rows.npy"),
        ([{"kind": "image"}], [], "picture.png"),
        ([{"kind": "rows"}, {"kind": "text"}], [], "rows.csv"),
        ([], [], "rows.csv"),
    ],
)
def test_the_next_command_after_adding_a_model_fits_what_it_takes(takes, inputs, words):
    assert _example(takes, inputs) == words


def test_nothing_is_a_dash():
    assert [shown(value) for value in (None, "", [], {})] == ["-"] * 4


def test_a_table_without_a_terminal_is_aligned_text(capsys):
    table(("name", "count"), [["alba", 12], ["b", 3]])
    assert capsys.readouterr().out == "name  count\nalba  12\nb     3\n"


def test_an_empty_table_says_so_on_stderr_only(capsys):
    table(("name",), [], "nobody")
    assert capsys.readouterr() == ("", "nobody\n")


def test_columns_begin_at_the_same_place():
    assert aligned([["a", "b"], ["long", "c"]]) == ["a     b", "long  c"]


def test_sizes_have_units():
    assert [size_text(count) for count in (0, 1023, 1024, 5 * 1024**3)] == ["0 B", "1023 B", "1.0 KiB", "5.0 GiB"]


@pytest.mark.parametrize(
    ("widths", "room", "narrow"),
    [
        ([8, 40, 12], 70, [8, 40, 12]),
        ([8, 40, 12], 50, [8, 30, 12]),
        ([8, 40, 30], 40, [8, 16, 16]),
        ([20, 40, 9], 41, [20, 12, 9]),
        ([30, 40, 9], 41, [16, 16, 9]),
        ([8, 40, 30], 6, [2, 2, 2]),
        ([8, 40], -3, [1, 1]),
        ([59, 7, 320, 23], 114, [59, 7, 25, 23]),  # blobs, on a terminal of 120 columns: their CIDs can be copied
    ],
)
def test_a_narrow_terminal_takes_from_the_widest_columns_first(widths, room, narrow):
    assert narrowed(widths, room) == narrow


@pytest.mark.parametrize(("speak", "stream"), [(say, "stdout"), (talk, "stderr")])
def test_a_line_and_its_end_are_one_write(monkeypatch, speak, stream):
    """Another thread's line once came between them, and whoever read the file for a document waited for ever."""
    written = []

    class File(io.RawIOBase):
        def writable(self):
            return True

        def write(self, piece):
            written.append(bytes(piece))
            return len(piece)

    file = io.TextIOWrapper(File(), encoding="utf-8", write_through=True)  # as PYTHONUNBUFFERED has it
    monkeypatch.setattr(f"sys.{stream}", file)
    speak("starting …")
    assert written == ["starting …\n".encode()]
