"""Checkpoints become safetensors behind the walls, and a pickle that would run code creates no file."""

import os
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from dimnode.errors import Refused
from dimnode.exec.runtimes.weights_file import read_weights
from dimnode.exec.state_dict import convert

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="the walls are Linux's")]


class Evil:
    """A pickle of it runs a shell when it is opened by a careless reader."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self._marker}",)


def test_a_state_dict_becomes_safetensors_byte_for_byte(tmp_path: Path) -> None:
    import torch

    weights = {"a.weight": torch.randn(3, 4), "b": torch.arange(5), "c": torch.randn(2).to(torch.bfloat16)}
    torch.save({"state_dict": weights, "epoch": 3}, tmp_path / "m.pt")
    size = convert(tmp_path / "m.pt", tmp_path / "m.safetensors")
    raw = (tmp_path / "m.safetensors").read_bytes()
    found = read_weights(raw)
    assert len(raw) == size
    assert {name: (entry.dtype, entry.shape) for name, entry in found.items()} == {
        "a.weight": ("F32", (3, 4)),
        "b": ("I64", (5,)),
        "c": ("BF16", (2,)),
    }
    assert np.array_equal(np.frombuffer(found["a.weight"].raw, np.float32).reshape(3, 4), weights["a.weight"].numpy())


def test_what_would_run_code_is_refused_and_runs_none(tmp_path: Path) -> None:
    import torch

    marker = tmp_path / "marker"
    torch.save({"w": Evil(marker)}, tmp_path / "evil.pt")
    exported = torch.export.export(torch.nn.Linear(2, 2), (torch.ones(1, 2),))
    torch.export.save(exported, tmp_path / "plain.pt2")
    with zipfile.ZipFile(tmp_path / "plain.pt2") as plain, zipfile.ZipFile(tmp_path / "evil.pt2", "w") as out:
        for entry in plain.infolist():
            content = plain.read(entry)
            if "sample_inputs" in entry.filename:  # the member for which PyTorch falls back to a pickle
                content = (tmp_path / "evil.pt").read_bytes()
            out.writestr(entry.filename, content)
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "script.ts"))
    torch.save(torch.ones(3), tmp_path / "lone.pt")
    (tmp_path / "junk.pt").write_bytes(os.urandom(500))
    np.savez(tmp_path / "a.npz", a=np.ones(2))
    words = {"script.ts": "TorchScript", "a.npz": "save_file", "evil.pt": "would run code", "junk.pt": "no checkpoint"}
    for name in ("evil.pt", "evil.pt2", "script.ts", "lone.pt", "junk.pt", "a.npz"):
        with pytest.raises(Refused) as caught:
            convert(tmp_path / name, tmp_path / "out.safetensors")
        assert caught.value.complaint.code == "E-models-52"
        assert words.get(name, "") in caught.value.complaint.cause
        assert "\x1b" not in caught.value.complaint.cause and "weights_only" not in caught.value.complaint.cause
        assert not (tmp_path / "out.safetensors").exists()
    assert not marker.exists()
    torch.load(tmp_path / "evil.pt", weights_only=False)
    assert marker.exists(), "the sample does run code where nobody stops it"
