"""Whatever stands where something else belongs in a model, a card, a job or an input: an answer or a refusal, in time.

Rule: an entry is what the node, a worker or the command line calls, and raises nothing but what its docstring says.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from exec_formats import CHAIN, LIST_AT, X_OF_3, mlp, safetensors_with

from dimnode.api.jobfile import compile_job, read_job
from dimnode.cli.gather import gather, one_blob
from dimnode.cli.inputs import Choice, read_input
from dimnode.cli.job_file import choice_of, file_of_job, read_job_file
from dimnode.cli.pretrained import card_of as card_of_folder
from dimnode.errors import DimError, PeerFault
from dimnode.exec.mapping import Declared
from dimnode.exec.orders import Facts
from dimnode.exec.runtimes.architectures.choice import architecture_of
from dimnode.exec.runtimes.base import Content
from dimnode.exec.runtimes.choice import extras_of, runtime_of
from dimnode.exec.runtimes.config_file import config_of
from dimnode.exec.runtimes.pretrained import pretrained_of
from dimnode.exec.runtimes.pretrained_samples import sample_config
from dimnode.exec.runtimes.weights_file import read_weights
from dimnode.exec.transforms.program import compile_program, run_program
from dimnode.exec.transforms.sources import read_inputs
from dimnode.node.benches import made_up
from dimnode.node.composing import compose_or_refuse
from dimnode.node.model_answers import _kept
from dimnode.node.model_card import body_of, card_of, check_card
from dimnode.node.model_orders import LocalModel
from dimnode.records.codec import encode, in_order
from dimnode.records.envelope import Record, SigningKey, seal
from dimnode.records.ids import blob_cid
from dimnode.records.kinds import OPEN_SWARM_ID, open_record
from dimnode.records.manifest import Manifest
from dimnode.records.tensors import Tensor, encode_tensors
from dimnode.records.transforms import Source, files_of, sources_of, takes_row, text_names, transforms
from dimnode.wire import is_deeper
from tests.confusion.mutants import FEW, ODD, mutants
from tests.golden.model_vectors import FIRST, FULL

SECONDS_MAX = 2.0
KEY = SigningKey.from_seed(bytes(32))
COMMON = {"net": OPEN_SWARM_ID, "by": KEY.peer, "at_ms": 1}
PRE = [
    {"op": "input", "name": "t", "kind": "tensor", "dtype": "float32", "shape": [-1, 4]},
    {"op": "scale", "name": "t", "multiply": 3, "divide": 5},
    {"op": "reshape", "name": "t", "into": "r", "shape": [2, 2]},
    {"op": "pad", "name": "r", "axis": 1, "size": 5, "value": 1, "side": "begin"},
    {"op": "constant", "name": "c", "dtype": "int64", "shape": [2], "values": [1, 2]},
    {"op": "copy", "name": "t", "into": "x"},
]
POST = [
    {"op": "argmax", "name": "y", "into": "a", "axis": -1},
    {"op": "top_k", "name": "y", "into": "b", "k": 2, "places": "w"},
    {"op": "label_text", "name": "a", "into": "l"},
]
CARD = {
    "name": "iris",
    "version": "1",
    "format": "onnx",
    "licence": "MIT",
    "origin": "imported",
    "summary": "s",
    "inputs": [["x", "float32", [-1, 4]]],
    "outputs": [["y", "float32", [-1, 2]]],
    "labels": ["a"],
    "columns": ["p", "q", "r", "s"],
    "tokenizer": "tokenizer.json",
    "max_tokens": 8,
    "access": "pay-per-use",
    "price": {"unit": "row", "micro": 3, "currency": "EUR"},
    "max_batch": 3,
    "pre": PRE,
    "post": POST,
}
JOB = {
    "pattern": "chained",
    "tier": "quorum",
    "quorum": {"n": 3, "k": 2},
    "comparator": {"kind": "exact"},
    "tasks": [
        {"model": "m", "take": [{"name": "x", "from": "input", "tensor": "x", "columns": [0, 4]}]},
        {"model": "m"},
    ],
    "input": {"x": [[1.0, 2, 3, 4]]},
    "deadline_seconds": 5.0,
    "sandbox": ["seccomp"],
}
SITES = {
    "pattern": "collaborative",
    "tasks": [{"model": "m", "op": "evaluate", "cabinet": "c", "where": [{"column": "a", "op": "ge", "value": 3.5}]}],
    "rule": {"method": "weighted_average", "weights": [1.5]},
    "min_sites": 1,
}
SHOWN = {"size": {"height": 4, "width": 4}, "resample": 2, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
ROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}, "rms_norm_eps": 1e-5, "hidden_act": "silu"}
BERT = {**sample_config("BertForSequenceClassification"), "id2label": {"0": "a"}, "hidden_act": "gelu"}
GROUPS = {"type_vocab_size": 2, "layer_norm_eps": 1e-12, "quantization": {"group_size": 64, "bits": 4}}
HEADER = {
    "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    "b": {"dtype": "U8", "shape": [], "data_offsets": [24, 25]},
}
TABLE = [{"a": 1.0, "b": 2, "c": "x"}, {"a": 3, "b": 4, "c": "y"}]
SOURCES = (Source("x", "rows", ("a", "b")), Source("x", "rows", (), "float8"), Source("c", "text"))
STRANGE = ([], [["x", "float32", [-1, 3]]], [["x", "float8", [-1, 3]]], [["x", "bool", []], ["y", "int64", [-1]]])


class Names:
    """Whatever a task calls it, it is this model, and this peer."""

    def __init__(self, model: Record) -> None:
        self._model = model

    def find_model(self, _: str) -> Record:
        return self._model

    def find_peer(self, _: str) -> Any:
        return KEY.peer


def read_by_all(record: Record) -> None:
    """A stranger's manifest, in everything of a node that reads one."""
    said = Manifest.of(record)
    order = LocalModel(record, {file.path: Path("/x") for file in said.files}, ()).order
    _ = said.title, said.runtime, said.main, _kept(said), extras_of(said.pre, said.post), text_names(said.post)
    _ = files_of(said.pre, said.post), [takes_row(source) for source in sources_of(said.pre)]
    for task in ({}, {"take": [{"name": "x", "from": "step.0", "tensor": "y"}]}):
        job = {"tasks": [{"model": "m"}, {"model": "m", **task}], "input": {"x": [[1.0, 2, 3, 4]]}}
        tolerant(lambda _, job=job: compile_job(read_job(job), Names(record)), None)
    tolerant(lambda _: made_up(order.facts, 1, 16), None)


def tolerant(entry: Callable[[Any], object], given: Any) -> None:
    """Whatever it refuses, the next question is asked all the same."""
    try:
        entry(given)
    except (DimError, PeerFault, MemoryError):
        pass


def a_card(said: Any) -> None:
    if type(said) is not dict:
        return  # doors take a map and nothing else
    card = card_of(said)
    check_card(card)
    body = body_of(card, "onnx", [["m.onnx", "model", blob_cid(b""), 1], ["t", "tokenizer", blob_cid(b""), 1]])
    _, payload = compose_or_refuse("manifest", COMMON, body, "E-models-07", "the card", 2)
    read_by_all(open_record(seal(KEY, "manifest", payload, 2), check_signature=False))


def a_manifest(version: int) -> Callable[[Any], None]:
    def entry(body: Any) -> None:
        if type(body) is dict:
            payload = encode({"v": version, "kind": "manifest", **COMMON, **body})
            read_by_all(open_record(seal(KEY, "manifest", payload, version), check_signature=False))

    return entry


def a_job(said: Any) -> None:
    payload = encode({"v": 2, "kind": "manifest", **COMMON, **FULL, "pre": [], "post": [], "inputs": CARD["inputs"]})
    compile_job(read_job(said), Names(open_record(seal(KEY, "manifest", payload, 2), check_signature=False)))


def files(raw: bytes) -> dict[str, Content]:
    return {"config.json": Content("config", memoryview(raw))}


def a_class_of_transformers(raw: bytes) -> None:
    found = pretrained_of(config_of(files(raw)))
    _ = found.inputs(("token_type_ids",)), found.output(("next_logits",)), found.labels(), found.classes


def an_architecture(name: str) -> Callable[[bytes], None]:
    def entry(raw: bytes) -> None:
        found, _ = architecture_of(files(raw), Facts(name, inputs=X_OF_3))
        _ = found.needs(), found.inputs, found.outputs

    return entry


def a_package(raw: bytes) -> None:
    runtime_of("coreml").load({**mlp("coreml")[0], LIST_AT: Content("config", memoryview(raw))}, Facts())


def a_program(lists: Any) -> None:
    """As a worker has it, of a manifest that a node took."""
    lists = in_order(lists)
    if not isinstance(lists, list) or len(lists) != 2 or not all(map(transforms, lists)):
        return
    x, y = Declared("x", "float32", (None, 4)), Declared("y", "float32", (None, 4))
    program = compile_program(*lists, [x], [y], {}, tuple("abcd"))
    if program is not None:
        blob = encode_tensors([Tensor("t", "float32", (3, 4), np.arange(12, dtype="<f4").tobytes())])
        run_program(program, read_inputs(sources_of(program.pre), (), (blob,)), lambda fed: {"y": fed["x"] * 2})


def a_folder(place: Path, raw: bytes) -> None:
    (place / "model.safetensors").write_bytes(b"weights")
    (place / "preprocessor_config.json").write_bytes(raw)
    card_of_folder(place, sample_config("ViTModel"))


def a_job_file(place: Path, raw: bytes) -> None:
    (place / "j.yaml").write_bytes(raw)
    if (wanted := file_of_job(read_job_file(place / "j.yaml"))) is not None:
        choice_of(wanted)


def an_input(place: Path, raw: bytes) -> None:
    (place / "i.json").write_bytes(raw)
    for declared in STRANGE:
        tolerant(lambda _, declared=declared: read_input(str(place / "i.json"), Choice(rows=(1,)), declared), None)


def a_table(place: Path, raw: bytes) -> None:
    (place / "t.json").write_bytes(raw)
    for source in SOURCES:
        tolerant(lambda _, source=source: one_blob(gather([str(place / "t.json")], [source], Choice())), None)


@dataclass(frozen=True, slots=True)
class Case:
    """`written`: as it comes in; what cannot be written so cannot come in."""

    sample: Any
    entry: Callable[..., object]
    written: Callable[[Any], Any] = lambda value: value


def through_a_door(value: Any) -> Any:
    """What is nested deeper than a frame may be is refused before it is looked at."""
    if is_deeper(value):
        raise ValueError("refused")
    return value


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


def as_yaml(value: Any) -> bytes:
    return yaml.dump(value, Dumper=yaml.CDumper).encode()


CASES = {
    "a card": Case(CARD, a_card),
    "a manifest of version 1": Case(FIRST, a_manifest(1)),
    "a manifest of version 2": Case({**FULL, "pre": PRE, "post": [*POST, {"op": "later", "file": "x"}]}, a_manifest(2)),
    "a job": Case(JOB, a_job, through_a_door),
    "a job on cabinets": Case(SITES, a_job, through_a_door),
    "a config of transformers": Case(BERT, a_class_of_transformers, as_json),
    "a config of a decoder": Case({**sample_config("LlamaForCausalLM"), **ROPE}, a_class_of_transformers, as_json),
    "bert": Case({**BERT, **GROUPS}, an_architecture("bert"), as_json),
    "llama": Case({**sample_config("LlamaForCausalLM"), **ROPE}, an_architecture("llama"), as_json),
    "layers": Case({"layers": CHAIN}, an_architecture("layers"), as_json),
    "weights": Case(HEADER, read_weights, lambda said: safetensors_with(as_json(said), bytes(25))),
    "a package": Case(json.loads(bytes(mlp("coreml")[0][LIST_AT].raw)), a_package, as_json),
    "transforms": Case([PRE, POST], a_program),
    "a folder": Case(SHOWN, a_folder, as_json),
    "a job file": Case({**JOB, "input": {"file": "r.csv", "columns": ["a"], "rows": [1]}}, a_job_file, as_yaml),
    "an input": Case({"x": [[1.0, 2, 3], [4, 5, 6]], "y": [1, 2]}, an_input, as_json),
    "a table": Case(TABLE, a_table, as_json),
}
OF_FILES = ("a folder", "a job file", "an input", "a table")


def confuse(name: str, place: Path, odd: tuple[Any, ...], step: int = 1) -> int:
    """How many were given to the entry; each `step`th is made."""
    case, given = CASES[name], 0
    for what, mutant in islice(mutants(case.sample, odd), 0, None, step):
        try:
            written = case.written(mutant)
        except (TypeError, ValueError, RecursionError, yaml.YAMLError):
            continue
        given, began = given + 1, time.process_time()
        try:
            tolerant(case.entry if name not in OF_FILES else lambda raw: case.entry(place, raw), written)
        except Exception as fault:
            raise AssertionError(f"{name}{what}: {type(fault).__name__}") from fault
        assert time.process_time() - began < SECONDS_MAX, f"{name}{what}"
    return given


@pytest.mark.parametrize("name", CASES)
def test_one_thing_in_the_place_of_another_is_refused_or_used_and_no_bug_of_ours(name: str, tmp_path: Path) -> None:
    """A part of them, for each time; the next test makes all."""
    assert confuse(name, tmp_path, FEW, 11) > 3


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_each_odd_value_in_each_place_is_refused_or_used_and_no_bug_of_ours(name: str, tmp_path: Path) -> None:
    assert confuse(name, tmp_path, ODD) > 50
