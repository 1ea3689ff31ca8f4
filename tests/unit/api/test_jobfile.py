"""A job as people write it: what it means, and that every mistake is named with its code."""

import pytest

from dimnode.api.jobfile import compile_job, input_blob, new_nonce, read_job
from dimnode.errors import Refused
from dimnode.jobs.work import same_bits_wanted
from dimnode.limits import LIMITS
from dimnode.records.envelope import SigningKey, seal
from dimnode.records.ids import PEER_PREFIX, PeerId, blob_cid, blob_ref
from dimnode.records.kinds import OPEN_SWARM_ID, check_schema, compose, open_record
from dimnode.records.lists import tensor_rows
from dimnode.records.tensors import decode_tensors

KEY = SigningKey.from_seed(bytes(32))
PEER = PeerId(PEER_PREFIX + bytes(32))


def manifest(name: str = "iris", inputs=(("x", "float32", [-1, 2]),), outputs=()):
    body = {"name": name, "version": "1", "format": "onnx", "files": [["m", blob_cid(b""), 1]]}
    body |= {"inputs": [list(row) for row in inputs], "labels": [], "licence": ""}
    body["outputs"] = [[output, "float32", [-1]] for output in outputs]
    body |= {"origin": "trained", "access": "public"}
    _, payload = compose("manifest", {"net": OPEN_SWARM_ID, "by": KEY.peer, "at_ms": 1}, body)
    return open_record(seal(KEY, "manifest", payload))


IRIS, ROSE = manifest(), manifest("rose")


class Names:
    """Two models, one peer."""

    def find_model(self, name: str):
        found = {"iris": IRIS, "rose": ROSE}.get(name)
        if found is None:
            raise Refused("E-models-01", f"unknown model {name!r}")
        return found

    def find_peer(self, name: str) -> PeerId:
        if name != "nora":
            raise Refused("E-peers-01", f"no peer {name!r}")
        return PEER


MODEL = {"model": "iris"}
SITE = {"model": "iris", "op": "evaluate", "cabinet": "patients"}
JOB = {"tasks": [MODEL], "input": {"x": [[1.0, 2.0]]}}


def compiled(**changes):
    return compile_job(read_job(JOB | changes), Names())


def complaint(call, *arguments, **named):
    with pytest.raises(Refused) as caught:
        call(*arguments, **named)
    said = caught.value.complaint
    assert said.what
    assert said.code in said.lines()[0]
    return said


def fits_a_spec(found) -> bool:
    common = {"v": 1, "kind": "spec", "net": OPEN_SWARM_ID, "by": KEY.peer, "at_ms": 1}
    refs = [blob_ref(bytes(32), blob_cid(blob)) for blob in found.inputs]
    check_schema("spec", {**common, **found.body, "inputs": refs, "nonce": new_nonce()})
    return True


def test_the_shortest_job_is_one_model_and_its_input() -> None:
    found = compiled()
    assert found.body == {
        "pattern": "chained",
        "tasks": [{"op": "infer", "model": IRIS.id}],
        "tier": "signed",
        "rule": {"method": "first"},
        "deadline_ms": 120_000,
        "priority": "normal",
        "visibility": "swarm",
    }
    assert fits_a_spec(found)
    (tensor,) = decode_tensors(found.inputs[0])
    assert (tensor.name, tensor.dtype, tensor.shape) == ("x", "float32", (1, 2))


def test_layers_of_a_sandbox_are_asked_for_in_a_field_that_older_peers_read_past() -> None:
    asked = compiled(sandbox=["landlock", "seccomp"])
    assert fits_a_spec(asked)
    assert asked.body["x_sandbox"] == ["landlock", "seccomp"]
    assert "x_sandbox" not in compiled().body


def test_equal_bits_are_asked_for_in_a_field_that_older_peers_read_past() -> None:
    asked = compiled(deterministic=True)
    assert fits_a_spec(asked)
    assert asked.body["x_deterministic"] is True
    assert same_bits_wanted(asked.body)
    assert not same_bits_wanted(compiled().body)
    assert not same_bits_wanted({"x_deterministic": "yes"}), "a stranger may have written anything"
    assert same_bits_wanted(compiled(tier="quorum", quorum={"n": 3, "k": 2}, comparator={"kind": "exact"}).body)


def test_names_become_ids() -> None:
    found = compiled(tasks=[{"model": "rose", "peer": "nora"}])
    assert found.body["tasks"] == [{"op": "infer", "model": ROSE.id, "peer": PEER}]
    assert found.models == (ROSE,)


@pytest.mark.parametrize(
    ("decimal", "permille"),
    [(0.5, 500), (0.0005, 0), (0.0015, 2), (0.0025, 2), (1.2345, 1234), (1000, 1_000_000), (0, 0)],
)
def test_weights_become_permille_half_even(decimal, permille) -> None:
    rule = {"method": "weighted_vote", "weights": [decimal]}
    assert compiled(pattern="comparative", rule=rule).body["rule"]["weights_permille"] == [permille]


@pytest.mark.parametrize(("value", "micro"), [(1.5, 1_500_000), (-2, -2_000_000), (0.0000005, 0), (0.0000015, 2)])
def test_conditions_become_millionths_half_even(value, micro) -> None:
    where = [{"column": "age", "op": "lt", "value": value}]
    found = compiled(tasks=[SITE | {"where": where}], pattern="collaborative")
    assert found.body["tasks"][0]["where"] == [["age", "lt", micro]]
    assert fits_a_spec(found)


@pytest.mark.parametrize(("seconds", "ms"), [(0.001, 1), (1.5, 1500), (86400, 86_400_000)])
def test_deadlines_become_milliseconds(seconds, ms) -> None:
    assert compiled(deadline_seconds=seconds).body["deadline_ms"] == ms


def rows(**named) -> bytes:
    """A blob with these tensors."""
    return input_blob(named, None)


TWO_BLOBS = (rows(x=[[1.0, 2.0]]), rows(x=[[3.0, 4.0]]))


def taken(source: str, blobs=TWO_BLOBS):
    job = read_job({"tasks": [MODEL, MODEL | {"take": [{"name": "x", "from": source}]}]})
    return compile_job(job, Names(), blobs).body["tasks"][1]["take"]


@pytest.mark.parametrize(("source", "number"), [("input", 0), ("input.0", 0), ("input.1", 1), ("step.0", 2)])
def test_sources_are_numbered_inputs_first_then_steps(source, number) -> None:
    assert taken(source) == [["x", number, "x", -1, -1]]


@pytest.mark.parametrize(
    "source",
    [
        "input.2",
        "step",
        "step.",
        "step.x",
        "input.x",
        "input.",
        "",
        "inputs",
        "step.-1",
        "input.²",
        "step.²",
        "step.0.1",
        "step.1",  # itself
        "step.7",
        "input." + "9" * 5000,
        "step." + "9" * 5000,
    ],
)
def test_a_source_that_names_nothing_is_refused(source) -> None:
    assert complaint(taken, source).code == "E-job-04"


def test_a_first_step_and_a_parallel_one_read_no_step() -> None:
    task = MODEL | {"take": [{"name": "x", "from": "step.0"}]}
    for job in ({"tasks": [task]}, {"tasks": [MODEL, task], "pattern": "comparative"}):
        said = complaint(compile_job, read_job(job), Names(), TWO_BLOBS)
        assert (said.code, "before this one: 0" in said.cause) == ("E-job-04", True)


TWO_INPUTS = manifest("pair", [("a", "float32", [-1, 2]), ("b", "int64", [-1])])


GIVERS = {"ab": manifest("ab", outputs="ab"), "a": manifest("a", outputs="a"), "silent": manifest("silent")}


class Pair(Names):
    """Also a model with two inputs, and models named after what they give."""

    def find_model(self, name: str):
        return TWO_INPUTS if name == "pair" else GIVERS.get(name) or super().find_model(name)


def on_pair(take=(), op="infer", **named):
    task = {"model": "pair", "take": list(take)}
    return compile_job(read_job({"tasks": [task]}), Pair(), [rows(**named)])


A, B = [[1.0, 2.0]], [1]


@pytest.mark.parametrize(
    ("named", "code", "told"),
    [
        ({"a": A}, "E-input-07", "takes 'b'"),
        ({"a": A, "c": B}, "E-input-07", "takes 'b'"),
        ({"a": A, "b": B, "c": B}, "E-input-07", "'c' is no input"),
        ({"a": [1.0, 2.0], "b": B}, "E-input-06", "[any, 2]"),
        ({"a": [[1.0, 2.0, 3.0]], "b": B}, "E-input-06", "[1, 3]"),
        ({"a": A, "b": [0.5]}, "E-input-01", "int64"),
    ],
)
def test_an_input_that_does_not_fit_the_manifest_is_refused_at_the_door(named, code, told) -> None:
    said = complaint(on_pair, **named)
    assert (said.code, told in said.what) == (code, True)
    if code == "E-input-07":
        assert "a, b" in said.cause


@pytest.mark.parametrize(
    ("chain", "told"),
    [
        (["a", "pair"], "takes 'b', which step 0 does not give"),
        (["ab", "iris"], "takes 'x', which step 0 does not give"),
        (["a", "a", "pair"], "takes 'b', which step 1 does not give"),
        (["ab", "pair"], ""),
        (["a", "iris"], ""),  # the only answer for the only input
        (["silent", "pair"], ""),  # nobody can tell
    ],
)
def test_a_chain_whose_steps_do_not_fit_is_refused_at_the_door(chain, told) -> None:
    job = read_job({"tasks": [{"model": name} for name in chain], "input": {"x": A}})
    if told:
        said = complaint(compile_job, job, Pair())
        assert (said.code, told in said.what) == ("E-input-07", True)
        assert "take: " in said.hint
    else:
        assert compile_job(job, Pair())


def test_what_every_executor_would_take_is_taken() -> None:
    assert on_pair(a=A, b=[1.0])
    assert on_pair([{"name": "a", "tensor": "wide", "columns": [1, 3]}, {"name": "b"}], wide=[[9.0, 1.0, 2.0]], b=B)
    assert compile_job(read_job({"tasks": [MODEL]}), Names(), [rows(other=A)])  # the only tensor for the only input


@pytest.mark.parametrize(
    ("take", "code", "told"),
    [
        ([{"name": "a"}], "E-input-07", "nothing is taken for 'b'"),
        ([{"name": "a"}, {"name": "b"}, {"name": "z"}], "E-input-07", "no input 'z'"),
        ([{"name": "a", "tensor": "z"}, {"name": "b"}], "E-input-07", "'z'"),
        ([{"name": "a", "columns": [0, 3]}, {"name": "b"}], "E-input-06", "columns 0 to 3"),
        ([{"name": "a", "columns": [0, 1]}, {"name": "b"}], "E-input-06", "[1, 1]"),
    ],
)
def test_a_mapping_that_no_executor_could_follow_is_refused_at_the_door(take, code, told) -> None:
    said = complaint(on_pair, take, a=A, b=B)
    assert (said.code, told in said.what) == (code, True)


def test_a_blob_that_holds_no_tensors_is_refused_at_the_door() -> None:
    assert complaint(compile_job, read_job({"tasks": [MODEL]}), Names(), [b"junk"]).code == "E-input-03"


def test_a_comparator_that_does_not_exist_is_answered_with_those_that_do() -> None:
    said = complaint(compiled, comparator={"kind": "near", "by": 1})
    assert said.what == "there is no comparator {kind: near, by: 1}"
    assert "argmax_atol with tensor and atol_micro" in said.cause


def test_the_default_rule_is_the_first_that_fits_the_pattern() -> None:
    quorum = {"tier": "quorum", "quorum": {"n": 3, "k": 2}}
    assert compiled(**quorum).body["rule"] == {"method": "quorum"}
    assert compiled(**quorum).body["quorum"] == {"n": 3, "k": 2}
    assert compiled(pattern="comparative").body["rule"] == {"method": "majority_vote"}
    assert compiled(pattern="collaborative", tasks=[SITE]).body["rule"] == {"method": "sum_counts"}


def test_a_later_step_of_a_chain_on_a_cabinet_needs_no_input() -> None:
    site = SITE | {"op": "infer"}
    assert fits_a_spec(compile_job(read_job({"tasks": [site, MODEL]}), Names()))


INF, NAN = float("inf"), float("nan")
WHERE = {"column": "a", "op": "eq"}
MISTAKES = [
    ("E-job-01", {"tsks": []}),
    ("E-job-01", {"pattern": "star"}),
    ("E-job-01", {"tasks": "iris"}),
    ("E-job-01", {"tasks": [{"modl": "iris"}]}),
    ("E-job-01", {"tasks": [{"model": 5}]}),
    ("E-job-01", {"tasks": [SITE | {"where": [WHERE | {"value": "x"}]}]}),
    ("E-job-01", {"deadline_seconds": "soon"}),
    ("E-job-01", {"input": [1]}),
    ("E-job-01", {"quorum": {"n": 3}}),
    ("E-job-02", {"tasks": []}),
    ("E-job-02", {"tasks": [MODEL] * (LIMITS.jobs.tasks_per_job_max + 1)}),
    ("E-models-01", {"tasks": [{"model": "tulip"}]}),
    ("E-peers-01", {"tasks": [MODEL | {"peer": "nobody"}]}),
    ("E-job-03", {"tasks": [{}]}),
    ("E-job-03", {"tasks": [MODEL | {"op": "evaluate"}]}),
    ("E-job-03", {"tasks": [{"op": "statistics"}]}),
    ("E-job-03", {"tasks": [SITE | {"where": [WHERE | {"value": INF}]}]}),
    ("E-job-03", {"tasks": [SITE | {"where": [WHERE | {"value": NAN}]}]}),
    ("E-job-03", {"tasks": [SITE | {"where": [WHERE | {"value": 1e300}]}]}),
    ("E-job-04", {"tasks": [MODEL | {"take": [{"name": "x", "from": "input.1"}]}]}),
    ("E-tier-01", {"tier": "referee"}),
    ("E-tier-01", {"tier": "best"}),
    ("E-tier-02", {"tier": "quorum", "quorum": {"n": 4, "k": 2}}),
    ("E-job-05", {"tier": "quorum"}),
    ("E-job-05", {"quorum": {"n": 3, "k": 2}}),
    ("E-job-05", {"tier": "quorum", "quorum": {"n": 3, "k": 2}, "pattern": "comparative"}),
    ("E-job-06", {"comparator": {"kind": "near"}}),
    ("E-job-06", {"comparator": {"kind": "rtol"}}),
    ("E-job-06", {"comparator": {"kind": "rtol", "rtol_micro": 0.5}}),
    ("E-job-07", {"min_sites": 2}),
    ("E-job-07", {"min_sites": -1}),
    ("E-job-08", {"rule": {"method": "majority_vote"}}),
    ("E-job-08", {"rule": {"method": "none"}}),
    ("E-job-08", {"rule": {"weights": [1.0]}}),
    ("E-job-08", {"pattern": "comparative", "rule": {"method": "weighted_vote"}}),
    ("E-job-08", {"pattern": "comparative", "rule": {"method": "weighted_vote", "weights": [1, 2]}}),
    ("E-job-08", {"pattern": "comparative", "rule": {"method": "weighted_vote", "weights": [-1]}}),
    ("E-job-08", {"pattern": "comparative", "rule": {"method": "weighted_vote", "weights": [NAN]}}),
    ("E-job-08", {"pattern": "comparative", "rule": {"method": "weighted_vote", "weights": [INF]}}),
    ("E-job-09", {"deadline_seconds": 0}),
    ("E-job-09", {"deadline_seconds": -1}),
    ("E-job-09", {"deadline_seconds": 86401}),
    ("E-job-09", {"deadline_seconds": NAN}),
    ("E-job-09", {"deadline_seconds": INF}),
    ("E-job-10", {"pattern": "collaborative"}),
    ("E-input-01", {"input": {"x": "text"}}),
    ("E-input-01", {"input": {"x": [[1], [1, 2]]}}),
    ("E-input-01", {"input": {"x": None}}),
    ("E-input-01", {"input": {"x": {"a": 1}}}),
    ("E-input-01", {"input": {"y": [2**64]}}),
    ("E-input-01", {"input": {"y": [2**63]}}),
    ("E-input-02", {"input": {"x": [NAN]}}),
    ("E-input-02", {"input": {"x": [INF]}}),
    ("E-input-02", {"input": {"x": [1e300]}}),
    ("E-input-03", {"input": {"x" * 129: [1]}}),
    ("E-input-03", {"input": {"": [1]}}),
    ("E-input-03", {"input": {"x": [[[[[[[[[1]]]]]]]]]}}),
    ("E-input-03", {"input": {f"x{number}": [1] for number in range(65)}}),
    ("E-input-04", {"input": {}}),
]


@pytest.mark.parametrize(("code", "changes"), MISTAKES, ids=lambda value: str(value)[:60])
def test_each_mistake_has_its_code(code, changes) -> None:
    assert complaint(compiled, **changes).code == code


def test_the_place_of_a_mistake_is_named() -> None:
    assert "`tasks[0].model` is to be text" in complaint(compiled, tasks=[{"model": 5}]).what


def test_a_too_large_input_is_refused() -> None:
    blob = bytes(LIMITS.exec.input_bytes_max + 1)
    assert complaint(compile_job, read_job(JOB), Names(), (blob,)).code == "E-input-05"


@pytest.mark.parametrize("raw", [None, [], "text", 5])
def test_what_is_no_map_is_refused(raw) -> None:
    assert complaint(read_job, raw).code == "E-job-01"


# ---- inputs in the type that the model declares


def typed(dtype: str, value):
    (tensor,) = decode_tensors(input_blob({"x": value}, manifest(inputs=[("x", dtype, [-1])])))
    return tensor.dtype, tensor.raw


def test_numbers_take_the_declared_type_or_a_usual_one() -> None:
    assert typed("float64", [1]) == ("float64", b"\0\0\0\0\0\0\xf0\x3f")
    assert typed("int8", [-1, 2]) == ("int8", b"\xff\x02")
    assert typed("bool", [True, False, 1]) == ("bool", b"\1\0\1")
    assert typed("int64", [2.0]) == ("int64", b"\2" + bytes(7))
    usual = decode_tensors(input_blob({"a": [1], "b": [0.5], "c": [True]}, None))
    assert [tensor.dtype for tensor in usual] == ["int64", "float32", "int64"]


@pytest.mark.parametrize(
    ("dtype", "value"),
    [("int8", [300]), ("uint8", [-1]), ("int64", [1.7]), ("int64", [NAN]), ("int32", [1e300]), ("bool", [2])],
)
def test_numbers_that_the_declared_type_cannot_hold_are_refused_not_changed(dtype, value) -> None:
    said = complaint(typed, dtype, value)
    assert said.code == ("E-input-02" if value == [NAN] else "E-input-01")
    assert "row 1" in said.what + said.cause


def test_a_number_in_the_inputs_bytes_that_no_model_can_use_is_named_at_the_door() -> None:
    blob = tensor_rows([[1.0, 2.0], [3.0, NAN]])
    said = complaint(compile_job, read_job({"tasks": [MODEL]}), Names(), [blob])
    assert (said.code, said.what) == ("E-input-02", "input 'x': row 2, column 2 is nan")


@pytest.mark.parametrize(
    "dtype", ["object", "O", "V99999999", "S99999999", "datetime64", "complex128", "no type", "<f4"]
)
def test_a_strangers_manifest_may_declare_any_type_and_harm_nobody(dtype) -> None:
    assert complaint(typed, dtype, [1]).code == "E-input-01"


def test_nonces_differ() -> None:
    assert len({new_nonce() for _ in range(100)}) == 100


def test_half_of_a_letter_is_refused_wherever_it_stands() -> None:
    for job in ({"pattern": "\ud800"}, {"tasks": "\ud800"}, {"tasks": [{"op": "\ud800"}]}, {"priority": "\ud800"}):
        assert complaint(read_job, JOB | job).code == "E-job-01"
