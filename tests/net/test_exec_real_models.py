"""Real models in several formats: the same answer within the tolerance that was measured, behind the walls.

Tolerances (design facts, measured): fp32 within 1e-4 of the largest value + 1e-6 across runtimes; bfloat16, float16 and
few bits by the cosine of embeddings or the largest logit.
"""

import sys
from pathlib import Path

import numpy as np
import pytest
import trio
from exec_tools import arrays, open_rig
from real_models import (
    TOKENS,
    minilm,
    minilm_coreml,
    minilm_in_groups,
    minilm_onnx,
    package,
    silero,
    smollm,
)

from dimnode.consensus.agreement import support
from dimnode.exec.launch import Zygote
from dimnode.exec.orders import Facts, Finished
from dimnode.exec.runtimes.base import Content, Files
from dimnode.records.tensors import Tensor, encode_tensors

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="the walls are Linux's")]
Case = tuple[str, Files, Facts, bytes]


def run_all(zygotes: list[Zygote], folder: Path, *cases: Case) -> list[Finished]:
    found: list[Finished] = []

    async def main() -> None:
        async with open_rig(zygotes[0], folder, warm=zygotes[1:]) as rig:
            for form, files, facts, content in cases:
                found.extend(await rig.run(rig.asks(rig.model(form, files, facts), content, timeout_seconds=60.0)))

    trio.run(main)
    assert [(done.status, done.message) for done in found] == [("ok", "")] * len(cases)
    return found


def named(**values: np.ndarray) -> bytes:
    """A blob of several tensors."""
    return encode_tensors([Tensor(name, str(v.dtype), v.shape, v.tobytes()) for name, v in values.items()])


def within(one: np.ndarray, other: np.ndarray) -> bool:
    """The tolerance of fp32 across runtimes."""
    return bool(np.abs(one - other).max() <= 1e-4 * np.abs(other).max() + 1e-6)


def test_minilm_gives_one_embedding_in_four_formats_and_near_ones_in_fewer_bits(
    zygotes: list[Zygote], tmp_path: Path
) -> None:
    ids = np.random.default_rng(4).integers(1000, 5000, (1, TOKENS))
    mask = np.ones_like(ids)
    mask[0, 40:] = 0
    asked, small = named(input_ids=ids, attention_mask=mask), {"attention_mask": mask.astype(np.int32)}
    files = minilm()
    found = run_all(
        zygotes,
        tmp_path,
        ("onnx", minilm_onnx(tmp_path / "m.onnx"), Facts(), asked),
        ("torch", files, Facts("bert"), asked),
        ("mlx", files, Facts("bert"), asked),
        ("coreml", minilm_coreml(tmp_path / "m.mlpackage"), Facts(), named(input_ids=ids.astype(np.int32), **small)),
        ("torch", files, Facts("bert", "bfloat16"), asked),
        ("mlx", files, Facts("bert", "float16"), asked),
        ("torch", files, Facts("bert", "int8"), asked),
        ("mlx", minilm_in_groups(8), Facts("bert"), asked),
        ("mlx", minilm_in_groups(4), Facts("bert"), asked),
    )
    embeddings = [arrays(done.output)["embedding"] for done in found]
    for other in embeddings[1:4]:
        assert within(other, embeddings[0])
    cosines = [float((other * embeddings[0]).sum()) for other in embeddings[4:]]
    for cosine, least in zip(cosines, (0.999, 0.9999, 0.998, 0.998, 0.9), strict=True):
        assert cosine > least
    classes = [(done.runtime["dtype"], done.runtime["quantisation"]) for done in found[4:]]
    assert classes == [
        ("bfloat16", "none"),
        ("float16", "none"),
        ("int8", "int8-rows"),
        ("float32", "8-bit-groups-64"),
        ("float32", "4-bit-groups-64"),
    ]
    agreed = support(
        [(bytes([place]) * 37, bytes([place]) * 38, done.output) for place, done in enumerate(found[:4])],
        {"kind": "cosine", "min_ppm": 999_999},
        4,
    )
    assert agreed.largest == 4


def test_silero_hears_the_same_in_three_runtimes(zygotes: list[Zygote], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sound = (rng.normal(size=(2, 576)) * 0.1).astype(np.float32)
    state = (rng.normal(size=(2, 2, 128)) * 0.1).astype(np.float32)
    graph, weights = silero()
    declared = {"w.safetensors": Content("weights", weights)}
    asked = named(input=sound, state=state)
    found = run_all(
        zygotes,
        tmp_path,
        ("onnx", {"m.onnx": Content("model", graph)}, Facts(), named(input=sound, state=state, sr=np.array(16_000))),
        ("torch", declared, Facts("silero-vad"), asked),
        ("mlx", declared, Facts("silero-vad"), asked),
    )
    first, *others = [arrays(done.output) for done in found]
    for other in others:
        assert within(other["output"], first["output"])
        assert within(other["stateN"], first["stateN"])


def test_smollm_finishes_a_sentence_under_torch_and_mlx(zygotes: list[Zygote], tmp_path: Path) -> None:
    files, words = smollm()
    ids = np.array([[words.index(word) for word in ("The", "Ġcapital", "Ġof", "ĠFrance", "Ġis")]])
    outputs = (("next_logits", "float32", (-1, len(words))),)
    found = run_all(
        zygotes,
        tmp_path,
        *(
            (form, files, Facts("llama", dtype, outputs=outputs), named(input_ids=ids))
            for form, dtype in (("torch", "float32"), ("mlx", "float32"), ("torch", ""))
        ),
    )
    logits = [arrays(done.output)["next_logits"][0] for done in found]
    assert [words[int(row.argmax())] for row in logits] == ["ĠParis"] * 3
    assert within(logits[1], logits[0])
    assert [done.runtime["dtype"] for done in found] == ["float32", "float32", "bfloat16"]


def test_magika_gives_the_runtimes_own_bits(zygotes: list[Zygote], tmp_path: Path) -> None:
    import onnxruntime

    path = package("magika") / "models" / "standard_v3_3" / "model.onnx"
    content = np.random.default_rng(1).integers(0, 256, (1, 2048)).astype(np.int32)
    (done,) = run_all(
        zygotes, tmp_path, ("onnx", {"m.onnx": Content("model", path.read_bytes())}, Facts(), named(bytes=content))
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    (direct,) = onnxruntime.InferenceSession(str(path), options).run(None, {"bytes": content})
    (ours,) = arrays(done.output).values()
    assert np.array_equal(ours, direct)
