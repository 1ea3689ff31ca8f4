"""Whatever is wrong with an order ends that order, with a code, in every runtime; the pool stays whole."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trio
from exec_tools import LIMITS, Rig, blob, hf_sample, open_rig, rig_of

from dimnode.exec import orders
from dimnode.exec.launch import Zygote
from dimnode.exec.orders import Facts, ModelOrder, Order
from dimnode.exec.runtimes.base import Content, Files
from dimnode.records.tensors import ITEM_BYTES, Tensor, encode_tensors

from exec_formats import FORMATS, X_OF_3, layers, mil_package, mlp  # isort: skip - its folder is on the path by now
from exec_models import custom_operator  # isort: skip

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="the walls are Linux's")]
X = np.random.default_rng(2).normal(size=(4, 3)).astype(np.float32)
LAYERS = Facts("layers", inputs=X_OF_3)
RUNTIMES = (*FORMATS, "hf")
PIXELS = "pixel_values"


def sample(form: str) -> tuple[Files, Facts, bytes]:
    """A small model of this runtime and an input for it: rows of three numbers, or for transformers pictures."""
    if form == "hf":
        return hf_sample("ViTModel", np.ones((4, 3, 4, 4), np.float32), PIXELS)
    return *mlp(form), blob(X)


def without(files: Files, role: str) -> Files:
    return {path: file for path, file in files.items() if file.role != role}


def bad_cases() -> list[tuple[str, str, Files, Facts, bytes, str]]:
    """What is wrong, format, files, facts, input, code: the same mistakes in every format that can make them."""
    cases: list[tuple[str, str, Files, Facts, bytes, str]] = []
    for form in RUNTIMES:
        files, facts, fine = sample(form)
        name, one = (PIXELS, (1, 3, 4, 4)) if form == "hf" else ("x", (1, 3))
        for what, content, code in (
            ("shape", blob(np.ones((*one[:-1], 5)), name=name), orders.BAD_SHAPE),
            ("rank", blob(np.ones(3), name=name), orders.BAD_SHAPE),
            ("dtype", blob(np.full(one, 1e300), "float64", name), orders.BAD_DTYPE),
            ("NaN", blob(np.full(one, np.nan), name=name), orders.NOT_FINITE),
            ("infinity", blob(np.full(one, np.inf), name=name), orders.NOT_FINITE),
            ("no tensor", b"", orders.NO_TENSOR),
            ("another name", blob([[1]], name="z") + b"junk", orders.BAD_INPUT),
        ):
            cases.append((what, form, files, facts, content, code))
        cases.append(("no files of weights", form, without(files, "weights"), facts, fine, _missing(form)))
        kept = "weights" if form in (*DECLARED, "hf") else "model"
        model = next(path for path, file in files.items() if file.role == kept)
        torn = Content(files[model].role, files[model].raw[:-7])
        junk = Content(files[model].role, os.urandom(1000))
        cases.append(("torn", form, {**files, model: torn}, facts, fine, _damaged(form)))
        cases.append(("junk", form, {**files, model: junk}, facts, fine, _damaged(form)))
        cases.append(("nothing at all", form, {}, facts, fine, _nothing(form)))
    cases.append(("empty", "torch", layers(), LAYERS, blob(np.ones((0, 3))), orders.BAD_SHAPE))
    cases.append(("empty", "mlx", layers(), LAYERS, blob(np.ones((0, 3))), orders.BAD_SHAPE))
    cases.append(
        (
            "unknown operator",
            "onnx",
            {"m": Content("model", custom_operator())},
            Facts(),
            blob(X),
            orders.CUSTOM_OPERATOR,
        )
    )
    for form in DECLARED:
        unknown = layers(chain=[{"op": "attention_of_doom", "as": "y"}])
        cases.append(("unknown operator", form, unknown, LAYERS, blob(X), orders.NO_OPERATOR))
        pickled = {**layers(), "m.safetensors": Content("weights", b"\x80\x02csystem\n.")}
        cases.append(("pickle", form, pickled, LAYERS, blob(X), orders.REFUSED_FORMAT))
        cases.append(("dtype", form, layers(), Facts("layers", "float8", inputs=X_OF_3), blob(X), orders.NO_DTYPE))
        coded = layers(extra={"model_file": "m.py"})
        cases.append(("code", form, coded, LAYERS, blob(X), orders.CODE_IN_CONFIG))
    unknown = mil_package([("operator_of_doom", {"x": "x"}, "y", [-1, 3])], [])
    cases.append(("unknown operator", "coreml", unknown, Facts(), blob(X), orders.NO_OPERATOR))
    late = mil_package([("relu", {"x": "later"}, "y", [-1, 3])], [])
    cases.append(("a result used before it is there", "coreml", late, Facts(), blob(X), orders.RUN_FAILED))
    return cases


DECLARED = ("torch", "mlx")


def _missing(form: str) -> str:
    return {"onnx": "", "coreml": orders.BAD_PACKAGE}.get(form, orders.BAD_WEIGHTS)


def _damaged(form: str) -> str:
    return {"onnx": orders.NOT_ONNX, "coreml": orders.BAD_PACKAGE}.get(form, orders.BAD_WEIGHTS)


def _nothing(form: str) -> str:
    return {"onnx": orders.NOT_ONNX, "coreml": orders.BAD_PACKAGE}.get(form, orders.BAD_CONFIG)


def test_whatever_is_wrong_ends_its_own_order_with_a_code_and_leaves_the_pool_whole(
    zygotes: list[Zygote], tmp_path: Path
) -> None:
    cases = [case for case in bad_cases() if case[5]]
    seen: list[str] = []

    async def main() -> None:
        async with rig_of(zygotes, tmp_path, workers=2) as rig:
            for what, form, files, facts, content, code in cases:
                (done,) = await rig.run(rig.asks(rig.model(form, files, facts), content))
                if (done.status, done.code) != ("failed", code):
                    seen.append(f"{form}, {what}: {done.status} {done.code} {done.message}, not {code}")
            good = [(form, *sample(form)) for form in RUNTIMES]
            asked = [rig.asks(rig.model(form, files, facts), content) for form, files, facts, content in good]
            assert [done.status for done in await rig.run(*asked)] == ["ok"] * 5

    trio.run(main)
    assert seen == []
    assert len(cases) > 50


SHAPES = ((), (0,), (3,), (0, 3), (3, 0), (1, 3), (2, 3), (3, 2), (1, 1, 3), (1, 3, 1), (4096, 3), (1,) * 8)


PICTURES = ((0, 3, 4, 4), (1, 3, 4, 4), (2, 3, 4, 4), (64, 3, 4, 4), (1, 4, 4, 3), (1, 3, 4, 0), (1, 3, 4, 5))


def every_form(rig: Rig, model: ModelOrder) -> list[Order]:
    """Each dtype in each of many shapes, all zeros."""
    name, shapes = (PIXELS, (*SHAPES, *PICTURES)) if model.runtime == "hf" else ("x", SHAPES)
    blobs = [
        encode_tensors([Tensor(name, dtype, shape, bytes(int(np.prod(shape)) * size))])
        for dtype, size in ITEM_BYTES.items()
        for shape in shapes
    ]
    return [rig.asks(model, content) for content in blobs]


@pytest.mark.parametrize("form", RUNTIMES)
def test_every_dtype_in_every_shape_is_answered_or_refused_with_a_code(
    zygotes: list[Zygote], tmp_path: Path, form: str
) -> None:
    async def main() -> None:
        async with rig_of(zygotes, tmp_path) as rig:
            files, facts, _ = sample(form)
            model = rig.model(form, files, facts)
            asked = every_form(rig, model)
            for order, done in zip(asked, await rig.run(*asked), strict=True):
                assert done.status in ("ok", "failed"), done
                assert bool(done.code) == (done.status == "failed")
                assert done.status == "failed" or done.output, order
            answered = sum(done.status == "ok" for done in rig.outcomes.values())
            assert len(ITEM_BYTES) * 3 <= answered < len(asked) // 2, "what fits is computed, the rest is not"
            assert rig.pool.stats().workers == 1, "one worker did all of it"

    trio.run(main)


@pytest.mark.parametrize("form", RUNTIMES)
def test_files_that_are_gone_or_altered_and_inputs_beyond_the_limit_end_their_order(
    zygotes: list[Zygote], tmp_path: Path, form: str
) -> None:
    def spoilt(rig: Rig, what: str) -> Order:
        files, facts, content = sample(form)
        named = {path: replace(file, raw=file.raw) for path, file in files.items()}
        model = rig.model(form, named, replace(facts, labels=(what,)))  # a model of its own, and so a worker
        for place, file in enumerate(model.files):
            here = rig.folder / f"{what}-{place}"
            here.write_bytes(Path(file.place).read_bytes())
            model = replace(model, files=tuple(replace(f, place=str(here)) if f is file else f for f in model.files))
        last = Path(model.files[-1].place)
        if what == "gone":
            last.unlink()
        elif what == "altered":
            last.write_bytes(last.read_bytes()[:-1] + b"?")
        elif what == "a folder":
            last.unlink()
            last.mkdir()
        return rig.asks(model, content)

    async def main() -> None:
        async with open_rig(zygotes[0], tmp_path, warm=zygotes[1:], limits=LIMITS) as rig:
            wanted = {"gone": orders.NO_MODEL, "a folder": orders.NO_MODEL, "altered": orders.WRONG_HASH}
            for what, code in wanted.items():
                (done,) = await rig.run(spoilt(rig, what))
                assert (done.status, done.code) == ("failed", code), what
            half = blob(np.zeros((3_000_000, 3), np.float32))
            files, facts, content = sample(form)
            model = rig.model(form, files, facts)
            (done,) = await rig.run(replace(rig.asks(model, half), inputs=(half, half)))
            assert (done.status, done.code) == ("failed", orders.INPUT_TOO_LARGE)
            (fine,) = await rig.run(rig.asks(model, content))
            assert fine.status == "ok"

    trio.run(main)
