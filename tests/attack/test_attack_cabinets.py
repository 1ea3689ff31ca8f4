"""What an asker must not learn from a cabinet: by refusals, by models built for it, by another's signature."""

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dimnode.cabinets.policy import ANY, Policy, Request, conditions_digest, decide, rows_mask
from dimnode.errors import RunFailed
from dimnode.exec.mapping import Declared
from dimnode.exec.operations import evaluate
from dimnode.exec.orders import Condition, Rows
from dimnode.exec.rows import matching, read_table
from dimnode.exec.runtimes.onnx import OnnxModel
from dimnode.limits import LIMITS
from dimnode.node.usage import CabinetUse
from dimnode.records.ids import peer_of_key
from dimnode.store.journal import Journal

SUBMITTER, OWNER = peer_of_key(b"s" * 32), peer_of_key(b"o" * 32)
POLICY = Policy(frozenset({"statistics"}), frozenset({SUBMITTER}), ANY, where=frozenset({"age", "ill"}))
Where = tuple[tuple[str, str, int], ...]


def request(**changes: object) -> Request:
    return replace(Request(SUBMITTER, "statistics", b"", 190, "", 1), **changes)


class Site:
    """A cabinet as its node asks it: count the rows, decide, write down."""

    def __init__(self, text: str, uses: CabinetUse, policy: Policy = POLICY) -> None:
        self._table, self._uses, self._policy = read_table(io.StringIO(text), LIMITS.exec), uses, policy

    def ask(self, *where: tuple[str, str, float]) -> str:
        """The code of the ruling."""
        asked: Where = tuple((column, op, round(value * 1_000_000)) for column, op, value in where)
        kept = matching(self._table, [Condition(*row) for row in asked])  # type: ignore[arg-type]
        mask, conditions = rows_mask(np.flatnonzero(kept).tolist()), conditions_digest(asked)
        used, previous = self._uses.so_far("ward", 1)
        again = self._uses.repeated("ward", mask, conditions)
        columns = frozenset(column for column, _, _ in asked)
        query = request(cohort=int(kept.sum()), rows=mask, repeated=again, where=columns)
        ruling = decide(self._policy, query, used, previous)
        self._uses.note("ward", 1, SUBMITTER, mask if ruling.allowed else 0, conditions)
        return ruling.code


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "journal.db") as opened:
        yield opened


def ward(ill: bool) -> str:
    """Patients with distinct ages; one of 71.5 years, who is ill or not."""
    rows = [f"{30 + place},{place % 2}" for place in range(60)]
    return "age,ill\n" + "\n".join([*rows, f"71.5,{int(ill)}"]) + "\n"


@pytest.mark.parametrize("first", [True, False])
def test_a_refusal_does_not_say_whether_one_patient_is_ill(tmp_path: Path, first: bool) -> None:
    """With and without the patient of 71.5 years, among the ill: if both were answered, that patient would be well."""
    seen = []
    for ill in (True, False):
        with Journal(tmp_path / f"{ill}.db") as journal:
            site = Site(ward(ill), CabinetUse(journal))
            asked = [[("ill", "eq", 1.0)], [("ill", "eq", 1.0), ("age", "ne", 71.5)]]
            seen.append([site.ask(*where) for where in (asked if first else asked[::-1])])
    assert seen == [["", "E-cabinet-09"]] * 2


def test_nobody_finds_one_patient_next_to_nine_known_ones(journal: Journal) -> None:
    """Whether the tenth is there is a yes or a no by the minimum cohort; without `age` in `where` nothing is told."""
    probes = [[("age", "ge", 71.5 - years), ("age", "le", 71.5), ("ill", "eq", 1.0)] for years in (8.5, 9.5, 40.0)]
    for text in (ward(True), ward(False)):
        careful = Site(text, CabinetUse(journal), replace(POLICY, where=frozenset({"ill"})))
        assert [careful.ask(*where) for where in probes] == ["E-cabinet-11"] * 3
        closed = Site(text, CabinetUse(journal), replace(POLICY, where=frozenset()))
        assert closed.ask(("ill", "ge", 0)) == "E-cabinet-11"


def test_the_same_question_may_be_asked_again_also_in_another_order_and_after_a_restart(tmp_path: Path) -> None:
    where = [("ill", "eq", 1.0), ("age", "ge", 31.0)]
    for order in (where, where[::-1]):
        with Journal(tmp_path / "journal.db") as journal:
            assert Site(ward(True), CabinetUse(journal)).ask(*order) == ""


def test_a_specs_signature_does_not_open_a_cabinet_to_another_owner() -> None:
    assert decide(POLICY, request(), 0).allowed
    assert decide(POLICY, request(owner=SUBMITTER), 0).allowed
    assert decide(POLICY, request(owner=OWNER), 0).code == "E-cabinet-03"
    assert decide(POLICY, request(submitter=OWNER, owner=SUBMITTER), 0).code == "E-cabinet-03"
    both = replace(POLICY, submitters=frozenset({SUBMITTER, OWNER}))
    assert decide(both, request(owner=OWNER), 0).allowed


class Oracle:
    """A runtime session whose label is made of a cell of one row, as a model built for it would make it."""

    def run(self, _: object, arrays: dict[str, np.ndarray]) -> list[np.ndarray]:
        values = arrays["x"]
        target = values[:, 0] == 71.5
        return [np.where(target, values[:, 1], 0).astype(np.int64)]


@pytest.mark.parametrize("cell", [2, 5, 41, 63])
def test_a_model_has_no_more_classes_to_write_a_cell_into_than_the_label_column(cell: int) -> None:
    x, label = Declared("x", "float32", (None, 2)), Declared("label", "int64", (None,))
    model = OnnxModel(Oracle(), (x,), (label,))
    lines = ["age,dose,label", *(f"{30 + place},1,{place % 2}" for place in range(20)), f"71.5,{cell},0"]
    with pytest.raises(RunFailed) as caught:
        evaluate(model, Rows("", "label"), io.StringIO("\n".join(lines) + "\n"), LIMITS.exec)
    assert str(cell) not in caught.value.complaint.what
