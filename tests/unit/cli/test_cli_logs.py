"""Log lines: one per record, ids in fields, and never the words of an exception."""

import json
import logging
import sys

from dimnode.cli.logs import JsonLines, TextLines


def record(**extra: object) -> logging.LogRecord:
    """A record of ours, about an exception that quotes what somebody sent."""
    try:
        try:
            raise KeyError("canary")
        except KeyError as cause:
            raise ValueError("row\ncanary") from cause
    except ValueError:
        exception = sys.exc_info()
    found = logging.LogRecord("dimnode.x", logging.ERROR, "x.py", 1, "a %s\nfailed", ("request",), exception)
    found.__dict__.update(extra)
    return found


def test_json_lines_have_ids_in_fields_and_the_place_of_an_error_but_not_its_words() -> None:
    line = JsonLines().format(record(request="r-1", status=500, ms=1.5, job="", other="never"))
    said = json.loads(line)
    assert "\n" not in line
    assert said["time"].endswith("Z")
    assert {key: said[key] for key in ("level", "logger", "message", "request", "status", "ms")} == {
        "level": "error",
        "logger": "dimnode.x",
        "message": "a request\nfailed",
        "request": "r-1",
        "status": 500,
        "ms": 1.5,
    }
    assert said.keys() & {"job", "other"} == set()
    assert said["error"].startswith("ValueError at test_cli_logs.py:")
    assert " because of KeyError at " in said["error"]
    assert "canary" not in line


def test_text_lines_are_one_line_each_with_the_same_fields() -> None:
    line = TextLines().format(record(request="r-1", peer="12D3"))
    assert "\n" not in line
    assert "ERROR dimnode.x: a request | failed peer=12D3 request=r-1 | ValueError at test_cli_logs.py:" in line
    assert "canary" not in line


def test_a_record_without_fields_is_as_plain_as_it_was() -> None:
    plain = logging.LogRecord("dimnode.x", logging.INFO, "x.py", 1, "ready", (), None)
    assert TextLines().format(plain).endswith(" INFO dimnode.x: ready")
    assert json.loads(JsonLines().format(plain)).keys() == {"time", "level", "logger", "message"}
