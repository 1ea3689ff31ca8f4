"""Who asks for the same bits gets them: in every runtime, in every worker, whatever else is running."""

import sys
from pathlib import Path

import numpy as np
import pytest
import trio
from exec_tools import Rig, arrays, blob, rig_of, run_all

from dimnode.consensus.agreement import support
from dimnode.exec.launch import Zygote
from dimnode.exec.orders import Facts, Finished, ModelOrder
from dimnode.exec.runtimes import onnx, torch
from dimnode.exec.runtimes.base import Files, one_file
from dimnode.records.manifest import TRANSFORMERS

from exec_formats import FORMATS, direct, mlp, of_width, onnx_mlp  # isort: skip - its folder is on the path by now

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="the walls are Linux's")]
RNG = np.random.default_rng(2)
X = RNG.normal(size=(4, 3)).astype(np.float32)
WIDE = of_width(512)
CLASSES = {
    "onnx": "single-thread, optimised fully",
    "torch": "single-thread, eager, deterministic algorithms",
    "mlx": "single-thread, not compiled",
    "coreml": "single-thread, operator by operator",
    "hf": "single-thread, eager, deterministic algorithms",
}
PICTURES = RNG.normal(size=(4, 3, 4, 4)).astype(np.float32)


def sample(form: str) -> tuple[Files, Facts, bytes, bytes]:
    """A model in whose bits the order of its sums would be seen, an input of four items, and one of a single item."""
    if form != "hf":
        return *mlp(form, WIDE), blob(X), blob(X[:1])
    from dimnode.exec.runtimes.pretrained_samples import sample_files  # imports all of transformers

    files = sample_files("ViTModel", lambda shape: RNG.normal(size=shape) * 0.3, hidden_size=64, intermediate_size=512)
    several, one = (blob(pictures, name="pixel_values") for pictures in (PICTURES, PICTURES[:1]))
    return files, Facts(TRANSFORMERS), several, one


async def under_load(rig: Rig, model: ModelOrder, several: bytes, one: bytes) -> tuple[list[Finished], list[Finished]]:
    """Orders that want the same bits, and between them others for the same workers: those that wait share runs."""
    noise = [rig.asks(model, one, deterministic=False) for _ in range(90)]
    same = [rig.asks(model, several) for _ in range(10)]
    mixed = [order for place, order in enumerate(same) for order in (*noise[place * 9 : place * 9 + 9], order)]
    ended = dict(zip([order.key for order in mixed], await rig.run(*mixed), strict=True))
    return [ended[order.key] for order in same], [ended[order.key] for order in noise]


@pytest.mark.parametrize("form", CLASSES)
def test_what_asks_for_the_same_bits_gets_them_in_every_worker_under_any_load(
    zygotes: list[Zygote], tmp_path: Path, form: str
) -> None:
    outputs: set[bytes] = set()
    files, facts, several, one = sample(form)

    async def life(workers: int) -> None:
        async with rig_of(zygotes, tmp_path, workers) as rig:
            model = rig.model(form, files, facts)
            (alone,) = await rig.run(rig.asks(model, several))
            await rig.run(*[rig.asks(model, one, deterministic=False) for _ in range(8)])
            same, noise = await under_load(rig, model, several, one)
            for done in (alone, *same):
                assert done.status == "ok", done
                outputs.add(done.output)
                assert (done.runtime["determinism"], done.runtime["batch"]) == (f"{CLASSES[form]}, alone", len(X))
            assert {done.runtime["determinism"] for done in noise} == {CLASSES[form]}
            assert max(int(done.runtime["batch"]) for done in noise) > 1, "there was something to be kept apart from"

    for workers in (1, 2):
        trio.run(life, workers)
    assert len(outputs) == 1
    if form != "hf":  # what transformers itself gives is compared in `test_exec_transformers`
        assert np.abs(arrays(outputs.pop())["y"] - direct(X, WIDE)).max() < 1e-5


def test_what_four_runtimes_answer_is_a_quorum_under_each_measured_tolerance(
    zygotes: list[Zygote], tmp_path: Path
) -> None:
    """The tolerances are the measured ones (docs/formats.md): 1e-4 of the largest value, cosine 0.999999."""
    answers = run_all(zygotes, tmp_path, *((form, *mlp(form, WIDE), blob(X)) for form in FORMATS))
    off = arrays(answers[0].output)["y"].copy()
    off[0] += [3e-4, -3e-4]
    replicas = [(bytes([place]), bytes([place]), done.output) for place, done in enumerate(answers)]
    liar = (b"liar", b"liar", blob(off, name="y"))
    for comparator in (
        {"kind": "argmax_atol", "tensor": "y", "atol_micro": 100},
        {"kind": "rtol", "rtol_micro": 100},
        {"kind": "cosine", "min_ppm": 999_999},
    ):
        found = support([*replicas, liar], comparator, 4)
        assert len(found.supporters) >= 4, comparator
        assert (b"liar" in found.supporters) == (comparator["kind"] == "cosine"), "cosine is blind to one in a million"
    assert support([*replicas[:1], (b"x", b"x", answers[0].output), liar], {"kind": "exact"}, 2).supporters == (
        b"\0",
        b"x",
    )


def test_threads_order_and_optimisation_are_fixed_whoever_asks() -> None:
    """What each runtime was told; that a worker has one thread is seen from outside in `test_exec_runtimes`."""
    import onnxruntime

    said = onnx.load(one_file(onnx_mlp()), Facts()).session.get_session_options()
    assert (said.intra_op_num_threads, said.inter_op_num_threads, said.use_deterministic_compute) == (1, 1, True)
    assert said.graph_optimization_level == onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    assert said.execution_mode == onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    import torch as library

    torch.warm_up()
    assert (library.get_num_threads(), library.are_deterministic_algorithms_enabled()) == (1, True)
    assert not library.is_grad_enabled()
