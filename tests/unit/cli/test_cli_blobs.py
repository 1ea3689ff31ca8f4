"""Blobs on the command line: what is typed wrongly does nothing, and what is stopped leaves nothing half-written."""

import json
import shutil
import threading
from types import SimpleNamespace

import pytest
from fake_node import FakeNode

CONFIG = {"architectures": ["ViTModel"], "model_type": "vit", "num_hidden_layers": 1, "image_size": 2, "hidden_size": 2}
GONE = {"result": {"removed": [], "bytes": 0}}


@pytest.mark.parametrize("size", ["-1", "inf", "nan", "1e400", "1e30"])
def test_a_size_that_is_none_lets_go_of_nothing(dim, tmp_path, size):
    with FakeNode(tmp_path, blobs__gc=GONE) as node:
        refused = dim("blobs", "gc", "--to-gb", size)
    assert (refused.code, node.requests) == (2, [])
    assert "error E-cli-10: --to-gb " in refused.err and "hint:" in refused.err


@pytest.mark.parametrize(("said", "most"), [((), None), (("--all",), 0), (("--to-gb", "0.5"), 2**29)])
def test_how_much_may_stay_is_asked_in_bytes(dim, tmp_path, said, most):
    with FakeNode(tmp_path, blobs__gc=GONE) as node:
        assert dim("blobs", "gc", *said).code == 0
    assert [asked["bytes"] for asked in node.asked("blobs.gc")] == [most]


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (OSError(28, "No space left on device"), 4)])
def test_a_copy_that_is_stopped_or_finds_no_room_leaves_the_target_as_it_was(dim, tmp_path, monkeypatch, error, code):
    (tmp_path / "blob").write_bytes(b"new")
    (tmp_path / "mine").write_bytes(b"old")

    def half(_source, target):
        target.write_bytes(b"ne")
        raise error

    monkeypatch.setattr(shutil, "copyfile", half)
    found = {"blob": "bafkrei…", "bytes": 3, "path": str(tmp_path / "blob")}
    with FakeNode(tmp_path, blobs__get={"result": found}):
        assert dim("blobs", "get", "bafkrei…", "-o", tmp_path / "mine").code == code
    assert (tmp_path / "mine").read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["blob", "mine"]


@pytest.mark.parametrize(
    ("said", "comes_of_it"),
    [
        (("blobs", "add", "mine"), "begins anew"),
        (("blobs", "get", "bafkrei…"), "goes on where this one was"),
        (("models", "add", "m"), "begins anew"),
        (("models", "update", "m", "--version", "2"), "begins anew"),
        (("models", "pull", "m"), "goes on where this one was"),
        (("models", "verify", "m"), "begins anew"),
        (("blobs", "verify", "bafkrei…"), "begins anew"),
    ],
)
def test_who_stops_it_is_told_what_comes_of_that(dim, tmp_path, monkeypatch, said, comes_of_it):
    class Pressed(threading.Event):
        def wait(self, timeout=None):
            raise KeyboardInterrupt

    monkeypatch.setattr("dimnode.cli.blobs.threading", SimpleNamespace(Event=Pressed, Thread=threading.Thread))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "model.toml").write_text('architecture = "transformers"\n')
    (tmp_path / "m" / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "m" / "m.safetensors").write_bytes(b"weights")
    with FakeNode(tmp_path, models__show={"result": {"model": "bagaq…"}}):
        ended = dim(*said)
    assert ended.code == 130
    assert ended.err.splitlines()[-1].startswith("stopped; ") and ended.err.rstrip().endswith(comes_of_it)
