"""Texts, files and rows as a job's input: what they become, and that what does not fit is named."""

import base64

import numpy as np
import pytest

from dimnode.api.given import from_records
from dimnode.api.inputs import check_inputs
from dimnode.api.jobfile import compile_job, read_job
from dimnode.errors import Refused
from dimnode.records.envelope import SigningKey, seal
from dimnode.records.ids import blob_cid
from dimnode.records.item_rows import item_blob
from dimnode.records.items import byte_items, item_tensors
from dimnode.records.kinds import OPEN_SWARM_ID, compose, open_record
from dimnode.records.manifest_kinds import MANIFEST_VERSION, PROFILE
from dimnode.records.tensors import Tensor, decode_tensors, encode_tensors
from dimnode.records.transforms import Source

KEY = SigningKey.from_seed(bytes(32))


def manifest(name, *sources, inputs=(("x", "float32", [-1, 2]),), post=()):
    body = {"name": name, "version": "1", "format": "onnx", "files": [["m", "model", blob_cid(b""), 1]]}
    body |= {"inputs": [list(row) for row in inputs], "outputs": [["y", "float32", [-1]]], "labels": [], "licence": ""}
    body |= {"origin": "trained", "access": "public", "profile": PROFILE}
    body["pre"] = [{"op": "input", **source} for source in sources]
    body["post"] = list(post)
    common = {"net": OPEN_SWARM_ID, "by": KEY.peer, "at_ms": 1}
    _, payload = compose("manifest", common, body, version=MANIFEST_VERSION)
    return open_record(seal(KEY, "manifest", payload, MANIFEST_VERSION))


MODELS = {
    "text": manifest("text", {"name": "text", "kind": "text"}),
    "picture": manifest("picture", {"name": "picture", "kind": "image"}),
    "rows": manifest("rows", {"name": "x", "kind": "rows", "columns": ["age", "size"]}),
    "mixed": manifest(
        "mixed",
        {"name": "x", "kind": "rows", "columns": ["age"]},
        {"name": "sex", "kind": "text", "columns": ["sex"]},
    ),
    "later": manifest("later", {"name": "x", "kind": "rows"}, post=[{"op": "a_later_word", "steps": [1, 2]}]),
    "tensor": manifest("tensor", {"name": "t", "kind": "tensor", "dtype": "int64", "shape": [-1, 3]}),
}


class Names:
    def find_model(self, name):
        return MODELS[name]

    def find_peer(self, name):
        raise Refused("E-peers-01", f"no peer {name!r}")


def tensors_of(model, given=None, blobs=(), **task):
    job = {"tasks": [{"model": model, **task}]} | ({"input": given} if given is not None else {})
    found = compile_job(read_job(job), Names(), blobs)
    return {tensor.name: tensor for tensor in decode_tensors(found.inputs[0])}


@pytest.mark.parametrize("given", [{"text": "é"}, {"text": ["é"]}, {"anything": "é"}, {"rows": [{"text": "é"}]}])
def test_a_text_is_its_utf8(given):
    assert byte_items(tensors_of("text", given), "text") == ("é".encode(),)


@pytest.mark.parametrize("model", ["text", "picture", "rows", "mixed", "tensor"])
def test_a_path_in_a_job_that_a_node_was_given_is_never_opened(model, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("the secret")
    for given in ({"file": str(secret)}, {"file": str(secret), "rows": [1]}, {"picture": {"file": str(secret)}}):
        if model == "text" and given == {"file": str(secret)}:  # a model of texts takes the name itself for a text
            assert byte_items(tensors_of(model, given), "text") == (str(secret).encode(),)
            continue
        with pytest.raises(Refused) as caught:
            tensors_of(model, given)
        assert caught.value.complaint.code in ("E-input-01", "E-input-07")
        assert "the secret" not in str(caught.value)


def test_files_are_base64_or_bytes():
    coded = base64.b64encode(b"one").decode()
    given = {"picture": [{"base64": coded}, b"two"]}
    assert byte_items(tensors_of("picture", given), "picture") == (b"one", b"two")


def test_rows_of_named_columns_become_each_declared_input():
    found = tensors_of("mixed", {"rows": [{"sex": "f", "age": 3, "more": None}, {"age": 4.5, "sex": "m"}]})
    assert np.frombuffer(found["x"].raw, "<f8").tolist() == [3.0, 4.5]
    assert found["x"].shape == (2, 1)
    assert byte_items(found, "sex") == (b"f", b"m")
    assert tensors_of("rows", {"x": [[1, 2]]})["x"].dtype == "float64"
    assert tensors_of("tensor", {"t": [[1, 2, 3]]})["t"].dtype == "int64"


def test_blobs_are_taken_by_name_or_as_the_only_thing_and_columns_of_them():
    blob = encode_tensors(item_tensors("other", [b"a"]))
    assert byte_items(tensors_of("text", blobs=[blob]), "other") == (b"a",)
    table = encode_tensors([Tensor("all", "float32", (1, 4), bytes(16))])
    take = [{"name": "x", "tensor": "all", "columns": [1, 3]}]
    assert tensors_of("rows", blobs=[table], take=take)["all"].shape == (1, 4)


FILES = encode_tensors(item_tensors("picture", []))
NUMBERS = encode_tensors([Tensor("picture", "float32", (1,), bytes(4))])
UNEVEN = encode_tensors([*item_tensors("sex", [b"f"]), Tensor("x", "float64", (2, 1), bytes(16))])
WIDE = encode_tensors([Tensor("x", "float32", (1, 3), bytes(12))])
STRAY = encode_tensors([*item_tensors("text", [b"f"]), Tensor("z", "float64", (2, 1), bytes(16))])


@pytest.mark.parametrize(
    ("model", "given", "blobs", "more", "code", "told"),
    [
        ("text", {"text": 7}, (), {}, "E-input-01", "text 1 of 'text' is no text"),
        ("text", {"text": ["a", None]}, (), {}, "E-input-01", "text 2"),
        ("text", {"text": "\ud800"}, (), {}, "E-input-01", "no text"),
        ("text", {"text": "x" * 2_000_000}, (), {}, "E-input-05", "2000000 bytes"),
        ("text", {"text": []}, (), {}, "E-input-04", "no text"),
        ("text", {"rows": [{"words": "a"}]}, (), {}, "E-input-07", "no column 'text'"),
        ("picture", {"picture": "cat.png"}, (), {}, "E-input-01", "image 1 of 'picture' is no file"),
        ("picture", {"picture": {"base64": "!"}}, (), {}, "E-input-01", "no base64"),
        ("picture", {"rows": [{"picture": 1}]}, (), {}, "E-input-01", "does not come from named columns"),
        ("picture", None, (FILES,), {}, "E-input-04", "no image"),
        ("picture", None, (NUMBERS,), {}, "E-input-01", "takes image 'picture'"),
        ("rows", {"rows": [{"age": 1}]}, (), {}, "E-input-07", "no column 'size'"),
        ("rows", {"rows": [{"age": 1, "size": "big"}]}, (), {}, "E-input-01", "row 1, column 'size' is no number"),
        ("rows", {"rows": [{"age": 1, "size": float("nan")}]}, (), {}, "E-input-02", "row 1, column 'size'"),
        ("rows", {"rows": [{"age": True, "size": 1}]}, (), {}, "E-input-01", "no number"),
        ("rows", None, (WIDE,), {}, "E-input-06", "shape [any, 2]"),
        ("rows", {"x": []}, (), {}, "E-input-06", "shape"),
        ("mixed", {"age": [[1]]}, (), {}, "E-input-07", "'age' is no input of this model"),
        ("mixed", None, (UNEVEN,), {}, "E-input-06", "number of items"),
        ("mixed", None, (WIDE,), {}, "E-input-06", "shape [any, 1]"),
        ("tensor", {"t": [1, 2, 3]}, (), {}, "E-input-06", "shape [any, 3]"),
        ("tensor", {"t": [[1, 2, 0.5]]}, (), {}, "E-input-01", "int64"),
        ("text", None, (STRAY,), {}, "E-input-07", "'z' is no input"),
        ("text", None, (WIDE,), {"take": [{"name": "y", "tensor": "x"}]}, "E-input-07", "takes no 'y'"),
        ("text", None, (WIDE,), {"take": [{"name": "text", "tensor": "q"}]}, "E-input-07", "not there"),
        ("rows", None, (WIDE,), {"take": [{"name": "x", "tensor": "x", "columns": [2, 5]}]}, "E-input-06", "columns 2"),
    ],
)
def test_what_does_not_fit_is_refused_at_the_door(model, given, blobs, more, code, told):
    with pytest.raises(Refused) as caught:
        tensors_of(model, given, blobs, **more)
    assert caught.value.complaint.code == code
    assert told in " ".join(caught.value.complaint.lines())


def test_a_tensor_of_nothing_in_a_shape_beyond_every_machine_is_no_bug_of_the_door():
    """Whoever hands a job in says the shapes; which a model takes, its executor says."""
    model = manifest("free", inputs=(("x", "float32", [-1, -1, -1]),))
    blob = encode_tensors([Tensor("x", "float32", (0, 2**31 - 1, 2**31 - 1), b"")])
    check_inputs([{"op": "infer", "model": model.id}], [model], [blob], chained=False)


def test_the_models_own_tensors_go_past_what_it_declares():
    tokens = encode_tensors([Tensor("x", "float32", (1, 2), bytes(8))])
    assert tensors_of("text", blobs=[tokens])["x"].shape == (1, 2)
    with pytest.raises(Refused, match="E-input-06"):
        tensors_of("text", blobs=[encode_tensors([Tensor("x", "float32", (1, 3), bytes(12))])])


def test_a_whole_number_that_no_float_can_hold_is_refused_by_its_place():
    source = Source("x", "rows", ("a",))
    with pytest.raises(Refused, match="row 2"):
        from_records(source, [{"a": 1}, {"a": 10**400}])
    with pytest.raises(Refused, match="item 2"):
        item_blob((source,), [{"x": [1]}, {"x": [10**400]}])


@pytest.mark.parametrize("task", [{}, {"take": [{"name": "x", "from": "step.0", "tensor": "y"}]}])
def test_what_a_model_of_a_later_vocabulary_answers_is_not_known_and_judged_by_nobody(task):
    """Its manifest may be a stranger's; the names of its answer were looked for in words that nobody knows here."""
    job = {"tasks": [{"model": "later"}, {"model": "later", **task}], "input": {"x": [[1, 2]]}}
    assert len(compile_job(read_job(job), Names()).models) == 2
