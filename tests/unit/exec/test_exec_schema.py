"""The process that looks into a model may have become the model's: what it says is bounded, typed, and in time."""

from dataclasses import replace
from pathlib import Path

import pytest

from dimnode.errors import RunFailed
from dimnode.exec import schema
from dimnode.limits import LIMITS

FOR_EVER = "import os\nwhile True: os.write(1, b'x' * 65536)"
ROWS = '{"inputs": [["x", "float32", [-1, 3]]], "outputs": [["y", "float32", [-1]]]}'


def looked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str) -> object:
    """What is made of a model in whose process this program runs."""
    (tmp_path / "m.onnx").write_bytes(b"model")
    monkeypatch.setattr(schema, "_PROGRAM", ("-S", "-c", program))
    return schema.schema_of("onnx", [("m.onnx", "model", tmp_path / "m.onnx")])


def test_rows_are_taken_as_they_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = looked(tmp_path, monkeypatch, f"print({ROWS!r})")
    assert found == ([["x", "float32", [-1, 3]]], [["y", "float32", [-1]]])


@pytest.mark.parametrize(
    ("program", "cause"),
    [
        (FOR_EVER, f"more than {LIMITS.exec.schema_bytes_max} bytes"),
        (f"print({ROWS!r}, flush=True); raise SystemExit(3)", "died (3)"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "died (-9)"),
        ("pass", "no inputs and outputs"),
        ("print('[' * 100_000)", "no inputs and outputs"),
        ("print('{\"later\":' + '[' * 100_000)", "no inputs and outputs"),
        ('import os; os.write(1, b\'{"error": ["\\xff", ""]}\')', "no inputs and outputs"),
        ('print(\'{"inputs": [["x", 1, {}]], "outputs": []}\')', "no inputs and outputs"),
        ("print('{\"error\": 7}')", "no inputs and outputs"),
    ],
)
def test_a_process_that_raves_or_dies_is_no_schema(tmp_path, monkeypatch, program, cause) -> None:
    with pytest.raises(RunFailed) as caught:
        looked(tmp_path, monkeypatch, program)
    said = caught.value.complaint
    assert (said.code, cause in said.cause) == ("E-cli-32", True), said


def test_a_process_that_says_nothing_is_not_waited_for_for_ever(tmp_path, monkeypatch) -> None:
    limits = replace(LIMITS, exec=replace(LIMITS.exec, schema_seconds_max=0.2))
    monkeypatch.setattr(schema, "LIMITS", limits)
    with pytest.raises(RunFailed, match="in time"):
        looked(tmp_path, monkeypatch, "import time; time.sleep(600)")


def test_a_runtime_that_is_not_there_is_to_be_installed_or_the_card_says_it(tmp_path, monkeypatch) -> None:
    said = '{"error": ["E-exec-25", "onnxruntime is not installed"]}'
    with pytest.raises(RunFailed) as caught:
        looked(tmp_path, monkeypatch, f"print({said!r})")
    hint = caught.value.complaint.hint
    assert hint.startswith("pip install 'dimnode[onnx]', or write a card beside it")
