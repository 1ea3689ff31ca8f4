"""Model files: what is read, what is refused and why, before any library sees a byte of them."""

import json
import zipfile
from io import BytesIO

import numpy as np
import pytest
from exec_formats import (
    CHAIN,
    FC1,
    FORMATS,
    LIST_AT,
    MODEL_AT,
    WEIGHT_AT,
    X_OF_3,
    direct,
    entry,
    layers,
    mil_package,
    mlp,
    mlp_steps,
    mlp_weights,
    safetensors_with,
)
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

from dimnode.errors import RunFailed
from dimnode.exec import orders
from dimnode.exec.orders import Facts
from dimnode.exec.runtimes.architectures.choice import architecture_of
from dimnode.exec.runtimes.architectures.llama import rope_base
from dimnode.exec.runtimes.base import Content, Files
from dimnode.exec.runtimes.choice import runtime_of
from dimnode.exec.runtimes.refusals import refusal_of
from dimnode.exec.runtimes.weights import weights_of
from dimnode.exec.runtimes.weights_file import read_weights

X = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)
LAYERS = Facts("layers", inputs=X_OF_3)


def opened(files: Files, facts: Facts, form: str) -> None:
    """As far as a load goes without the library itself."""
    if form == "coreml":
        runtime_of(form).load(files, facts)
    else:
        architecture, config = architecture_of(files, facts)
        weights_of(files, architecture, config, facts.dtype)


def refused(files: Files, facts: Facts, form: str = "torch") -> str:
    with pytest.raises(RunFailed) as caught:
        opened(files, facts, form)
    return caught.value.complaint.code


# ---- safetensors


@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=8),
        st.tuples(st.sampled_from(["float32", "float16", "int64", "uint8"]), st.lists(st.integers(0, 3), max_size=3)),
        max_size=6,
    )
)
def test_what_the_library_writes_is_read_byte_for_byte(named: dict[str, tuple[str, list[int]]]) -> None:
    named.pop("__metadata__", None)
    rng = np.random.default_rng(0)
    arrays = {name: rng.integers(0, 100, shape).astype(dtype) for name, (dtype, shape) in named.items()}
    found = read_weights(save(arrays))
    assert {name: (stored.shape, bytes(stored.raw)) for name, stored in found.items()} == {
        name: (values.shape, values.tobytes()) for name, values in arrays.items()
    }


@given(st.data())
def test_a_damaged_file_is_refused_wherever_the_library_refuses_it(data: st.DataObject) -> None:
    whole = mlp_weights()
    cut = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
    for _ in range(data.draw(st.integers(0, 3))):
        if cut:
            cut[data.draw(st.integers(0, len(cut) - 1))] = data.draw(st.integers(0, 255))
    try:
        ours = read_weights(bytes(cut))
    except RunFailed:
        return
    try:
        theirs = dict(deserialize(bytes(cut)))
    except SafetensorError as error:
        pytest.fail(f"the library refuses what we read: {error}")
    assert ours.keys() == theirs.keys()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x10",
        safetensors_with({"a": entry([2])}, bytes(8))[:-1],
        safetensors_with({"a": entry([2])}, bytes(9)),
        safetensors_with({"a": entry([2])}, bytes(8), length=2**62),
        safetensors_with({"a": entry([2]), "b": entry([2], start=4)}, bytes(12)),
        safetensors_with({"a": entry([2]), "b": entry([2], start=16)}, bytes(24)),
        safetensors_with({"a": entry([2**40, 2**40])}, bytes(8)),
        safetensors_with({"a": {**entry([2]), "code": "x"}}, bytes(8)),
        safetensors_with({"a": entry([2], dtype="OBJ")}, bytes(8)),
        safetensors_with({"a": {**entry([2]), "shape": [-2]}}, bytes(8)),
        safetensors_with({"a": {**entry([2]), "shape": [True, 2]}}, bytes(8)),
        safetensors_with({"a": {**entry([2]), "data_offsets": [8, 0]}}, bytes(8)),
        safetensors_with(b'{"a":1,"a":2}'),
        safetensors_with(b"[" * 5000),
        safetensors_with({str(number): entry([0]) for number in range(20_001)}),
    ],
    ids=range(16),
)
def test_a_hostile_header_ends_the_load(raw: bytes) -> None:
    with pytest.raises(RunFailed) as caught:
        read_weights(raw)
    assert caught.value.complaint.code == orders.BAD_WEIGHTS


# ---- formats that can hold code


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("m.pt", "pickle"),
        ("m.pth", "pickle"),
        ("pytorch_model.bin", "pickle"),
        ("m.pkl", "pickle"),
        ("m.joblib", "pickle"),
        ("m.pt2", "pickle"),
        ("m.ts", "TorchScript"),
        ("m.jit", "TorchScript"),
        ("m.h5", "Lambda"),
        ("m.npz", "pickle"),
        ("m.gguf", "GGUF"),
        ("M.PT", "pickle"),
    ],
)
def test_a_file_that_can_hold_code_is_refused_with_the_conversion_to_use(path: str, word: str) -> None:
    reason = refusal_of(path, b"")
    assert word in reason
    assert "convert" in reason or "export" in reason or "ONNX" in reason
    assert refused({**layers(), path: Content("weights", b"x")}, LAYERS) == orders.REFUSED_FORMAT


def test_a_file_that_hides_what_it_is_under_another_name_is_refused_by_its_first_bytes() -> None:
    archive = BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("archive/data.pkl", b"\x80\x02.")
    for raw in (archive.getvalue(), b"\x80\x04\x95", b"\x93NUMPY\x01", b"GGUF\x03", b"\x89HDF\r\n\x1a\n"):
        assert refused(layers(weights=raw), LAYERS) == orders.REFUSED_FORMAT


# ---- configs


@pytest.mark.parametrize("key", ["auto_map", "model_file", "custom_pipelines", "trust_remote_code"])
@pytest.mark.parametrize("deep", [False, True])
def test_a_config_that_names_code_is_refused_wherever_the_name_stands(key: str, deep: bool) -> None:
    bad = {key: {"AutoModel": "m.Model"} if key == "auto_map" else "m.py"}
    files = layers(extra={"inner": [{"deeper": bad}]} if deep else bad)
    assert refused(files, LAYERS) == orders.CODE_IN_CONFIG


@pytest.mark.parametrize(
    ("files", "facts", "code"),
    [
        (layers(), Facts("resnet"), orders.NO_ARCHITECTURE),
        (layers(), Facts(), orders.NO_ARCHITECTURE),
        ({"m.safetensors": Content("weights", mlp_weights())}, LAYERS, orders.BAD_CONFIG),
        ({"config.json": Content("config", b"{")}, LAYERS, orders.BAD_CONFIG),
        ({"config.json": Content("config", b"[" * 100_000)}, LAYERS, orders.BAD_CONFIG),
        ({"config.json": Content("config", b"1" * 300_000)}, LAYERS, orders.BAD_CONFIG),
        (layers(chain=[{"op": "exec", "as": "y"}]), LAYERS, orders.NO_OPERATOR),
        (layers(chain=[{"op": "relu"}]), LAYERS, orders.BAD_CONFIG),
        (layers(chain=[{"op": "linear", "in": 3, "out": 4, "as": "y"}]), LAYERS, orders.BAD_CONFIG),
        (layers(chain=[{"op": "relu", "as": ["y"]}]), LAYERS, orders.BAD_CONFIG),
        (layers(chain=[{**CHAIN[0], "out": 5, "as": "y"}]), LAYERS, orders.UNFIT_WEIGHTS),
        (layers(chain=[{**CHAIN[0], "name": "fc9", "as": "y"}]), LAYERS, orders.UNFIT_WEIGHTS),
        (layers(chain=[{**CHAIN[0], "out": 10**9, "as": "y"}]), LAYERS, orders.BAD_CONFIG),
        (layers(), Facts("layers"), orders.UNFIT_MODEL),
        (layers(extra={"model_type": "llama"}), Facts("bert"), orders.BAD_CONFIG),
        (layers(extra={"quantization": {"bits": 3, "group_size": 64}}), LAYERS, orders.BAD_CONFIG),
        (layers(weights=save({"fc1.weight": FC1.astype(np.int64)})), LAYERS, orders.UNFIT_WEIGHTS),
        ({"config.json": layers()["config.json"]}, LAYERS, orders.BAD_WEIGHTS),
        ({**layers(), "more.safetensors": Content("weights", mlp_weights())}, LAYERS, orders.BAD_WEIGHTS),
    ],
)
def test_a_model_that_contradicts_itself_is_refused_with_a_code(files: Files, facts: Facts, code: str) -> None:
    assert refused(files, facts) == code


def test_the_base_of_rotary_positions_is_read_from_either_spelling_and_never_guessed() -> None:
    assert rope_base({"rope_theta": 100000}) == 100000.0
    assert rope_base({"rope_parameters": {"rope_theta": 100000.0, "rope_type": "default"}}) == 100000.0
    assert rope_base({"rope_theta": 1e4, "rope_parameters": {"rope_theta": 1e4}, "rope_scaling": None}) == 1e4
    for config in (
        {},
        {"rope_theta": 10000, "rope_parameters": {"rope_theta": 100000}},
        {"rope_theta": 10000, "rope_scaling": {"rope_type": "llama3", "factor": 8}},
        {"rope_theta": 10000, "rope_parameters": {"rope_type": "yarn"}},
        {"rope_theta": "10000"},
        {"rope_theta": 10000, "rope_parameters": [1]},
        {"rope_theta": 10000, "rope_parameters": {"rope_type": ["default"]}},
        {"rope_theta": 10000, "rope_scaling": {"type": {}}},
    ):
        with pytest.raises(RunFailed) as caught:
            rope_base(config)
        assert caught.value.complaint.code == orders.BAD_CONFIG


# ---- CoreML packages


def package(**changes: object) -> Files:
    return mil_package(mlp_steps(), mlp_of_weights(), **changes)  # type: ignore[arg-type]


def mlp_of_weights() -> list[np.ndarray]:
    from exec_formats import B1, B2, FC2

    return [FC1, B1, FC2, B2]


@pytest.mark.parametrize(
    ("files", "code"),
    [
        (package(model_path="../../secret"), orders.BAD_PACKAGE),
        (package(model_path="/etc/passwd"), orders.BAD_PACKAGE),
        (package(model_path="com.apple.CoreML\\model.mlmodel"), orders.BAD_PACKAGE),
        (package(model_path="com.apple.CoreML/other.mlmodel"), orders.BAD_PACKAGE),
        (package(blob_name="@model_path/../../secret"), orders.BAD_PACKAGE),
        (package(blob_name="/etc/passwd"), orders.BAD_PACKAGE),
        (package(offset=2**40), orders.BAD_PACKAGE),
        (package(offset=32), orders.BAD_PACKAGE),
        ({path: file for path, file in package().items() if path != WEIGHT_AT}, orders.BAD_PACKAGE),
        ({path: file for path, file in package().items() if path != LIST_AT}, orders.BAD_PACKAGE),
        ({**package(), LIST_AT: Content("config", b"{}")}, orders.BAD_PACKAGE),
        ({**package(), LIST_AT: Content("config", b"[" * 50_000)}, orders.BAD_PACKAGE),
        ({**package(), MODEL_AT: Content("model", b"\xff" * 50)}, orders.BAD_PACKAGE),
        ({**package(), MODEL_AT: Content("model", b"")}, orders.NO_OPERATOR),
        (mil_package([("custom_op", {"x": "x"}, "y", [-1, 3])], []), orders.NO_OPERATOR),
        (mil_package([("while_loop", {"x": "x"}, "y", [-1, 3])], []), orders.NO_OPERATOR),
    ],
    ids=range(16),
)
def test_a_package_with_tricks_is_refused_with_a_code(files: Files, code: str) -> None:
    assert refused(files, Facts(), "coreml") == code


def test_an_unknown_operator_is_named() -> None:
    with pytest.raises(RunFailed, match="'lstm_of_doom'"):
        runtime_of("coreml").load(mil_package([("lstm_of_doom", {"x": "x"}, "y", [-1, 3])], []), Facts())


def test_a_neural_network_of_the_old_kind_and_its_custom_layers_are_refused() -> None:
    from exec_formats import spec_class

    spec = spec_class()()
    spec.neuralNetwork.layers.add().custom.className = "Evil"
    files = {**package(), MODEL_AT: Content("model", spec.SerializeToString())}
    assert refused(files, Facts(), "coreml") == orders.NO_OPERATOR


# ---- the small model, in this process


@pytest.mark.parametrize("form", ["onnx", "coreml"])
def test_the_small_model_gives_what_arithmetic_says(form: str) -> None:
    model = runtime_of(form).load(*mlp(form))
    assert np.abs(model.run({"x": X})["y"] - direct(X)).max() < 1e-6
    assert set(FORMATS) == {"onnx", "torch", "mlx", "coreml"}


def test_listed_weights_beside_an_onnx_file_are_its_external_data() -> None:
    from exec_models import external

    files = {
        "sub/m.onnx": Content("model", external("w.bin")),
        "sub/w.bin": Content("weights", np.arange(4, dtype="<f4").tobytes()),
    }
    model = runtime_of("onnx").load(files, Facts())
    given = model.inputs[0]
    found = model.run({given.name: np.zeros([size or 4 for size in given.shape or ()], np.float32)})
    assert next(iter(found.values())).reshape(-1).tolist() == [0, 1, 2, 3]


def test_a_chain_of_layers_says_its_outputs_by_name() -> None:
    architecture, _ = architecture_of(layers(chain=[*CHAIN, {"op": "argmax", "as": "label"}]), LAYERS)
    assert [(entry.name, entry.dtype) for entry in architecture.outputs] == [("y", "float32"), ("label", "int64")]
    assert json.loads(layers()["config.json"].raw)["layers"] == CHAIN
