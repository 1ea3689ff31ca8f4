"""Many items through one model: portions, blame, resumption. The swarm is a function here."""

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dimnode.batches import Fault, Item, Piece, Plan, model_row, numbered, run_chunks, run_rows, sources_from
from dimnode.errors import Refused, RunFailed
from dimnode.records.item_rows import answer_rows
from dimnode.records.lists import read_output
from dimnode.records.tensors import Tensor, encode_tensors
from dimnode.records.transforms import Source

SOURCE = Source("x", "rows", ("a",))


@dataclass
class Ended:
    index: int
    status: str = "ok"
    outputs: tuple[bytes, ...] = ()
    code: str = ""
    reason: str = ""
    job: bytes = b"job"
    receipt: bytes | None = None


class Swarm:
    """Doubles every number. A number in `bad` fails its job as a worker would; jobs are answered out of order."""

    def __init__(self, bad=(), *, tells=True, code="E-exec-100", moods=()):
        self.bad, self.tells, self.code, self.moods = set(bad), tells, code, list(moods)
        self.nonces, self.sizes, self.most = [], [], 0

    def __call__(self, jobs):
        waiting, index = [], 0
        while True:
            while len(waiting) < 3:
                job = next(jobs, None)
                if job is None:
                    break
                waiting.append((index, job))
                index += 1
            if not waiting:
                return
            self.most = max(self.most, len(waiting))
            yield self.answer(*waiting.pop())

    def answer(self, index, job):
        _, (blob,), nonce = job
        self.nonces.append(nonce)
        values = [row[0] for row in read_output(blob)["x"]]
        self.sizes.append(len(values))
        if self.moods and (mood := self.moods.pop(0)):
            return Ended(index, "failed", code=mood, reason="the swarm is tired")
        for place, value in enumerate(values, 1):
            if value in self.bad:
                said = f"item {place}: does not fit" if self.tells else "does not fit"
                return Ended(index, "failed", code=self.code, reason=said)
        raw = b"".join(int(2 * value).to_bytes(8, "little", signed=True) for value in values)
        return Ended(index, outputs=(encode_tensors([Tensor("y", "int64", (len(values),), raw)]),))


def plan(rows=4, sources=(SOURCE,), size=1 << 20):
    return Plan({"tasks": []}, sources, b"i" * 16, rows, size)


def items(count):
    return iter([Item(number, {"x": [float(number)]}) for number in range(1, count + 1)])


def outcome(found):
    answers, faults = {}, {}
    for one in found:
        if isinstance(one, Piece):
            rows = answer_rows(one.ended.outputs[0], len(one.numbers))
            for number, row in zip(one.numbers, rows, strict=True):
                assert number not in answers
                answers[number] = row["y"]
        else:
            assert one.number not in faults
            faults[one.number] = one
    return answers, faults


@given(
    st.integers(0, 40),
    st.sets(st.integers(1, 40)),
    st.integers(1, 9),
    st.booleans(),
    st.lists(st.sampled_from(["", "E-jobs-05"])),
)
@settings(deadline=None, max_examples=50)
def test_every_good_item_has_its_answer_and_every_bad_one_its_reason(count, bad, rows, tells, moods):
    swarm = Swarm(bad, tells=tells, moods=moods[:2])
    answers, faults = outcome(run_chunks(swarm, plan(rows), items(count)))
    wanted = set(range(1, count + 1))
    assert answers == {number: 2 * number for number in wanted - bad}
    assert set(faults) == wanted & bad
    assert swarm.most <= 3
    assert len(set(swarm.nonces)) == len(swarm.nonces)


def test_a_named_item_costs_one_more_job_and_an_unnamed_one_a_few():
    swarm = Swarm({7})
    outcome(run_chunks(swarm, plan(16), items(16)))
    assert swarm.sizes == [16, 15]
    swarm = Swarm({7}, tells=False)
    outcome(run_chunks(swarm, plan(16), items(16)))
    assert sorted(swarm.sizes) == [1, 1, 2, 2, 4, 4, 8, 8, 16]


def test_a_models_own_fault_ends_the_batch():
    with pytest.raises(RunFailed, match="E-exec-91"):
        outcome(run_chunks(Swarm({1}, tells=False, code="E-exec-91"), plan(), items(100)))


def test_what_the_swarm_did_is_tried_again_under_another_nonce_and_then_told_as_passing():
    swarm = Swarm(moods=["E-jobs-05"] * 2)
    answers, faults = outcome(run_chunks(swarm, plan(), items(3)))
    assert len(answers) == 3
    assert not faults
    assert len(set(swarm.nonces)) == 3
    swarm = Swarm(moods=["E-jobs-05"] * 3)
    answers, faults = outcome(run_chunks(swarm, plan(), items(3)))
    assert not answers
    assert all(fault.passing for fault in faults.values())


class Odd(Swarm):
    """The answers to these jobs have a row too many."""

    def __init__(self, *odd):
        super().__init__()
        self.odd = odd

    def answer(self, index, job):
        ended = super().answer(index, job)
        if len(self.sizes) - 1 in self.odd:
            ended.outputs = (encode_tensors([Tensor("y", "int64", (9,), bytes(72))]),)
        return ended


def test_one_executors_misshapen_answer_is_asked_for_again_and_never_kept():
    swarm = Odd(1)
    answers, faults = outcome(run_chunks(swarm, plan(), items(12)))
    assert sorted(answers) == list(range(1, 13))
    assert not faults
    assert len(swarm.sizes) == 4


def test_a_model_whose_first_answer_does_not_fit_its_items_ends_the_batch():
    with pytest.raises(Refused, match="not one row per item"):
        list(run_chunks(Odd(0), plan(), items(12)))


def test_other_failures_are_told_of_each_item():
    _, faults = outcome(run_chunks(Swarm(moods=["E-models-09"]), plan(), items(2)))
    assert [(fault.code, fault.passing) for fault in faults.values()] == [("E-models-09", False)] * 2


def test_the_same_items_are_the_same_submission_whatever_was_done_before():
    first, second = Swarm(), Swarm()
    outcome(run_chunks(first, plan(), items(20)))
    answers, _ = outcome(run_chunks(second, plan(), items(20), lambda number: number <= 8))
    assert set(answers) == set(range(9, 21))
    assert set(second.nonces) < set(first.nonces)


def test_items_that_cannot_be_sent_are_faults_and_so_are_those_of_the_input():
    given = [
        Item(1, {"x": [1.0]}),
        Fault(2, "E-input-01", "no number"),
        Item(3, {"x": [float("nan")]}),
        Item(4, {"z": 1}),
    ]
    answers, faults = outcome(run_chunks(Swarm(), plan(), iter(given)))
    assert answers == {1: 2}
    assert {number: fault.code for number, fault in faults.items()} == {
        2: "E-input-01",
        3: "E-input-02",
        4: "E-input-07",
    }
    assert outcome(run_chunks(Swarm(), plan(), iter([Fault(1, "E-input-01", "none")])))[1].keys() == {1}


def test_a_job_holds_no_more_bytes_than_it_may():
    files = iter([Item(number, {"f": bytes(40)}) for number in range(1, 6)])
    seen = []

    def swarm(jobs):
        for index, (_, (blob,), _) in enumerate(jobs):
            count = len(read_output(blob)["f.sizes"])
            seen.append(count)
            raw = bytes(8 * count)
            yield Ended(index, outputs=(encode_tensors([Tensor("y", "int64", (count,), raw)]),))

    outcome(run_chunks(swarm, plan(100, (Source("f", "bytes"),), 100), files))
    assert seen == [2, 2, 1]


def test_a_program_gets_rows_as_they_come():
    rows = {row.number: row for row in run_rows(Swarm({2.0}), plan(), numbered([[1.0], [2.0], {"x": [3.0]}], [SOURCE]))}
    assert rows[1].values == {"y": 2}
    assert rows[3].values == {"y": 6}
    assert (rows[2].values, rows[2].code) == (None, "E-exec-100")


def test_a_name_means_the_newest_model_of_it():
    def listed(name, **more):
        return {"model": f"id-{name}", "name": name, "publisher": "P", **more}

    rows = [listed("a:1.2"), listed("a:1.10"), listed("b:1")]
    assert model_row(rows, "a")["name"] == "a:1.10"
    assert model_row(rows, "P/a:1.2")["name"] == "a:1.2"
    assert model_row(rows, "c") is None
    theirs = [listed("a:999", publisher="Q"), listed("a:²", publisher="R", here=True)]
    assert model_row([*rows, *theirs], "a")["publisher"] == "R"
    assert model_row([*rows, *theirs, listed("a:0.1", mine=True)], "a")["name"] == "a:0.1"
    spoofs = [listed("P/a:9", publisher="Q"), listed("id-a:1.2:9", publisher="Q")]
    assert model_row([*spoofs, *rows], "P/a")["name"] == "a:1.10"
    assert model_row([*spoofs, *rows], "id-a:1.2")["name"] == "a:1.2"
    assert model_row([*rows, listed("a:1.9", mine=True)], "a")["name"] == "a:1.10"
    assert sources_from({"inputs": [["x", "int8", [-1, 2]]]}) == (Source("x", "tensor", (), "int8", (-1, 2)),)
