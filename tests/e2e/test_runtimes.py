"""A person offers models of other formats than ONNX and runs them with the same words."""

import sys
from pathlib import Path

import numpy as np
import pytest
from harness import RealNode

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "exec"))
from exec_formats import direct, mlp  # isort: skip

from dimnode.exec.runtimes.base import Files
from dimnode.records.tensors import decode_tensors

pytestmark = pytest.mark.slow
CARD = {"inputs": [["x", "float32", [-1, 3]]], "outputs": [["y", "float32", [-1, 2]]], "licence": "MIT"}


def folder_of(files: Files, place: Path) -> Path:
    for path, file in files.items():
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).write_bytes(file.raw)
    return place


def test_models_of_three_formats_are_offered_as_folders_and_answer_like_each_other(tmp_path: Path) -> None:
    node = RealNode("lone", tmp_path / "home")
    node.launch()
    try:
        node.wait_ready()
        expected = direct(np.array([[1.0, 2.0, 3.0]]))
        for form in ("torch", "mlx", "coreml"):
            card = {**CARD, "name": form, "format": form} | ({"architecture": "layers"} if form != "coreml" else {})
            node.client.add_model(card, folder_of(mlp(form)[0], tmp_path / form))
            job = {"tasks": [{"model": form}], "input": {"x": [[1.0, 2.0, 3.0]]}, "deterministic": True}
            ended = node.client.run(job)
            (output,) = ended.outputs
            (tensor,) = decode_tensors(output)
            assert np.abs(np.frombuffer(tensor.raw, np.float32) - expected[0]).max() < 1e-6
        found = {row["check"]: row for row in node.client.doctor()}["runtimes"]
        assert found["ok"], found["detail"]
        for word in ("onnxruntime", "torch", "mlx", "coreml-reference"):
            assert word in found["detail"]
    finally:
        node.close()
