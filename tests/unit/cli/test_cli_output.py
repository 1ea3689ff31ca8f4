"""Words, tables and JSON."""

import json

import pytest

from dimnode.cli.output import aligned, narrowed, plain, say_json, shown, size_text, table
from dimnode.records.ids import blob_cid, cid_text, peer_of_key, peer_text, record_id


def test_ids_are_text_and_other_bytes_are_hex():
    peer, record, blob = peer_of_key(bytes(32)), record_id(b"x"), blob_cid(b"x")
    assert plain([peer, record, blob, b"\x01\x02"]) == [peer_text(peer), cid_text(record), cid_text(blob), "0102"]


def test_numbers_that_json_lacks_become_null(capsys):
    say_json({"x": [float("nan"), float("inf"), 1.5]})
    assert json.loads(capsys.readouterr().out) == {"x": [None, None, 1.5]}


def test_what_a_stranger_wrote_cannot_command_the_terminal():
    assert shown("\x1b[31mred\n") == "?[31mred?"


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
    ],
)
def test_a_narrow_terminal_takes_from_the_widest_columns_first(widths, room, narrow):
    assert narrowed(widths, room) == narrow
