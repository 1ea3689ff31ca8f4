"""A cabinet's CSV file."""

import io
import math
from dataclasses import replace

import numpy as np
import pytest

from dimnode.errors import RunFailed
from dimnode.exec import orders, rows
from dimnode.exec.orders import Condition, Rows
from dimnode.limits import ExecLimits

LIMITS = ExecLimits()
CSV = """id,name,age,dose,label
1,ann,30,0.1,0
2,bob,40,0.2,1
3,eve,50,,1
4,"o, k",60,0.4,0
"""


def table(text: str = CSV, limits: ExecLimits = LIMITS) -> rows.Table:
    return rows.read_table(io.StringIO(text), limits)


def wanted(*where: Condition, exclude: tuple[str, ...] = ("id",), label: str = "label") -> Rows:
    return Rows("", label, exclude, where)


def kept(*where: Condition) -> list[bool]:
    return rows.matching(table(), where).tolist()


def use(text: str, spec: Rows | None, limits: ExecLimits) -> None:
    found = table(text, limits)
    if spec is not None:
        keep = rows.matching(found, spec.where)
        rows.features(found, spec, keep)
        rows.labels(found, spec, keep, LIMITS.evaluate_classes_max)


def refusal(text: str, spec: Rows | None = None, limits: ExecLimits = LIMITS) -> tuple[str, str]:
    with pytest.raises(RunFailed) as caught:
        use(text, spec, limits)
    return caught.value.complaint.code, caught.value.complaint.what


def test_features_are_the_numeric_columns_but_label_and_excluded_in_file_order() -> None:
    assert rows.feature_names(table(), wanted()) == ("age", "dose")
    assert rows.feature_names(table(), wanted(exclude=())) == ("id", "age", "dose")


def test_one_word_makes_a_column_text() -> None:
    assert rows.feature_names(table("a,b,label\n1,2,0\n3,x,1\n"), wanted(exclude=())) == ("a",)


def test_an_id_with_an_underscore_is_no_number() -> None:
    assert rows.feature_names(table("id,b,label\n2021_001,2,0\n"), wanted(exclude=())) == ("b",)


def test_all_conditions_must_hold() -> None:
    assert kept(Condition("age", "ge", 40_000_000), Condition("label", "eq", 1_000_000)) == [False, True, True, False]
    assert kept(Condition("age", "ne", 40_000_000)) == [True, False, True, True]
    assert kept() == [True] * 4


def test_a_decimal_in_the_file_equals_its_millionths() -> None:
    assert kept(Condition("dose", "eq", 100_000)) == [True, False, False, False]


@pytest.mark.parametrize("op", list(rows.COMPARE))
def test_an_empty_cell_meets_no_condition(op: str) -> None:
    assert not kept(Condition("dose", op, 200_000))[2]  # type: ignore[arg-type]


def test_an_empty_cell_fails_only_when_its_row_is_used() -> None:
    young = wanted(Condition("age", "lt", 50_000_000))
    matrix = rows.features(table(), young, rows.matching(table(), young.where))
    assert matrix.tolist() == [[30.0, 0.1], [40.0, 0.2]]
    assert refusal(CSV, wanted()) == (orders.NOT_FINITE, "input has NaN or infinity")


def test_labels_must_be_classes() -> None:
    head = "age,label\n"
    for text in (head + "1,0.5\n", head + "1,-1\n", head + "1,64\n", head + "1,\n2,1\n", head + "1,sick\n"):
        code, message = refusal(text, wanted(exclude=()))
        assert code == orders.BAD_COLUMN
        assert "0.5" not in message
        assert "sick" not in message


def test_unknown_columns_are_named() -> None:
    assert "no column 'weight'" in refusal(CSV, wanted(Condition("weight", "eq", 0)))[1]
    assert "column 'name' is not numeric" in refusal(CSV, wanted(Condition("name", "eq", 0)))[1]
    assert "no column 'idd'" in refusal(CSV, wanted(exclude=("idd",)))[1]


def test_broken_files_are_refused_without_quoting_them() -> None:
    for text, part in (
        ("", "no header"),
        ("a,a\n1,2\n", "same name"),
        ("a,b\nsecret\n", "a row has 1 cells where the header has 2 columns"),
        ('a,b\n"secret" x,2\n', "not readable as CSV"),
    ):
        code, message = refusal(text)
        assert code == orders.BAD_ROWS_FILE
        assert part in message
        assert "secret" not in message


def test_too_many_rows_or_columns_are_refused() -> None:
    small = replace(LIMITS, rows_max=2, columns_max=2)
    assert "more than 2 rows" in refusal("a\n1\n2\n3\n", limits=small)[1]
    assert "more than 2 columns" in refusal("a,b,c\n1,2,3\n", limits=small)[1]


def test_a_file_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(RunFailed, match="UTF-8"):
        rows.read_table(io.TextIOWrapper(io.BytesIO(b"a\n\xff\n"), encoding="utf-8-sig"), LIMITS)


def test_an_empty_table_matches_nothing() -> None:
    assert rows.matching(table("age,label\n"), (Condition("age", "gt", 0),)).tolist() == []


def test_means_are_exact_before_their_one_rounding() -> None:
    values = np.array([[1e16], [1.0], [-1e16], [1.0]])
    assert rows.means(values).tolist() == [0.5]
    assert rows.means(np.full((10, 1), 0.1)).tolist() == [math.fsum([0.1] * 10) / 10]


def test_confusion_counts_actual_by_predicted() -> None:
    actual, predicted = np.array([0, 0, 1, 1, 1]), np.array([0, 1, 1, 1, 0])
    assert rows.confusion(actual, predicted, 2).tolist() == [[1, 1], [1, 2]]
