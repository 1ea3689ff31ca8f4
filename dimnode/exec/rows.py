"""A cabinet's CSV file as numbers: which columns are features, which rows meet the conditions.

Rule: rows go in and only counts and means come out. No message of this file holds a cell, because messages travel to
whoever submitted the job. Reads one open file, once, from front to back.
"""

import csv
import io
import math
import operator
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dimnode.errors import RunFailed
from dimnode.exec import orders
from dimnode.exec.mapping import require_finite
from dimnode.exec.orders import Condition, Rows
from dimnode.limits import ExecLimits

Floats = NDArray[np.float64]
COMPARE: Mapping[str, Callable[[Floats, float], NDArray[np.bool_]]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
}


@dataclass(frozen=True, slots=True)
class Table:
    """The numeric columns of the whole file by name in file order (an empty cell is NaN), and all column names."""

    columns: Mapping[str, Floats]
    header: tuple[str, ...]
    rows: int


def read_table(stream: io.TextIOBase, limits: ExecLimits) -> Table:
    """Parse CSV text with one header line. Raises `RunFailed` when it is malformed or too large."""
    lines = csv.reader(stream, strict=True)
    try:
        header = tuple(name.strip() for name in next(lines, []))
        _check_header(header, limits)
        return _read_columns(header, lines, limits)
    except csv.Error as error:
        raise RunFailed(orders.BAD_ROWS_FILE, f"not readable as CSV: {error}") from None
    except UnicodeDecodeError:
        raise RunFailed(orders.BAD_ROWS_FILE, "not readable as CSV: not UTF-8") from None


def _check_header(header: Sequence[str], limits: ExecLimits) -> None:
    if not header:
        raise RunFailed(orders.BAD_ROWS_FILE, "the rows file has no header line")
    if len(header) > limits.columns_max:
        raise RunFailed(orders.BAD_ROWS_FILE, f"more than {limits.columns_max} columns")
    if len(set(header)) != len(header):
        raise RunFailed(orders.BAD_ROWS_FILE, "two columns have the same name")


def _read_columns(header: tuple[str, ...], lines: Iterator[list[str]], limits: ExecLimits) -> Table:
    """A column stays as long as all its cells are numbers; the first word in it drops the whole column."""
    columns = [array("d") for _ in header]
    numeric = list(range(len(header)))
    count = 0
    for cells in lines:
        if not cells:
            continue
        if len(cells) != len(header):
            raise RunFailed(
                orders.BAD_ROWS_FILE, f"a row has {len(cells)} cells where the header has {len(header)} columns"
            )
        count += 1
        if count > limits.rows_max:
            raise RunFailed(orders.BAD_ROWS_FILE, f"more than {limits.rows_max} rows")
        dropped = []
        for index in numeric:
            cell = cells[index]
            try:
                columns[index].append(_number(cell))
            except ValueError:
                dropped.append(index)
        for index in dropped:
            numeric.remove(index)
            columns[index] = array("d")
    kept = {header[index]: np.frombuffer(columns[index], dtype=np.float64) for index in numeric} if count else {}
    # A column without a single number is no numeric column.
    kept = {name: values for name, values in kept.items() if not np.isnan(values).all()}
    return Table(kept, header, count)


def _number(cell: str) -> float:
    text = cell.strip()
    if not text:
        return math.nan
    if "_" in text:
        raise ValueError("Python reads 1_000 as a number; nobody else does")
    return float(text)


def _column(table: Table, name: str) -> Floats:
    if name not in table.header:
        raise RunFailed(orders.BAD_COLUMN, f"no column {name!r} in the rows file")
    if name not in table.columns:
        raise RunFailed(orders.BAD_COLUMN, f"column {name!r} is not numeric")
    return table.columns[name]


def matching(table: Table, where: Sequence[Condition]) -> NDArray[np.bool_]:
    """For each row whether all conditions hold. bool [rows]. Raises `RunFailed` for an unknown column or operator."""
    keep = np.ones(table.rows, dtype=np.bool_)
    for condition in where:
        if condition.op not in COMPARE:
            raise RunFailed(orders.BAD_ORDER, f"unknown comparison {condition.op!r}")
        if not table.rows:
            continue
        values = _column(table, condition.column)
        # Division of two whole numbers rounds once, so 100000 becomes the same float as the text "0.1".
        keep &= COMPARE[condition.op](values, condition.micro / 1_000_000) & ~np.isnan(values)
    return keep


def feature_names(table: Table, rows: Rows) -> tuple[str, ...]:
    """All numeric columns but the label and the excluded, in file order. Raises `RunFailed` for unknown names."""
    left_out = {*rows.exclude, rows.label} - {""}
    unknown = left_out - set(table.header)
    if unknown:
        raise RunFailed(orders.BAD_COLUMN, f"no column {sorted(unknown)[0]!r} in the rows file")
    return tuple(name for name in table.columns if name not in left_out)


def features(table: Table, rows: Rows, keep: NDArray[np.bool_]) -> Floats:
    """The matrix float64 [matching rows, features]. Raises `RunFailed` when a needed cell is empty."""
    names = feature_names(table, rows)
    if not names:
        raise RunFailed(orders.BAD_COLUMN, "the rows file has no numeric feature column")
    matrix = np.column_stack([table.columns[name][keep] for name in names])
    require_finite(matrix)
    return matrix


def labels(table: Table, rows: Rows, keep: NDArray[np.bool_], classes_max: int) -> NDArray[np.int64]:
    """The label column, int64 [matching rows], whole numbers from 0. Raises `RunFailed` when it holds anything else."""
    values = _column(table, rows.label)[keep]
    return whole_labels(values, classes_max, f"label column {rows.label!r}")


def known_classes(table: Table, rows: Rows, classes_max: int) -> int:
    """How many classes the label column of the whole file has: its largest label and one more, at least two."""
    values = _column(table, rows.label)
    largest = np.max(values, where=np.isfinite(values), initial=1.0)
    return int(min(largest, classes_max - 1)) + 1


def whole_labels(values: NDArray[np.generic], classes_max: int, what: str) -> NDArray[np.int64]:
    """Labels as int64, checked to be whole and in [0, classes_max). The message names no value."""
    numbers = values.astype(np.float64)
    if not (np.isfinite(numbers).all() and (numbers == np.floor(numbers)).all()):
        raise RunFailed(orders.BAD_COLUMN, f"{what} must hold whole numbers, 0 for the first class")
    if numbers.size and (numbers.min() < 0 or numbers.max() >= classes_max):
        raise RunFailed(orders.BAD_COLUMN, f"{what} must lie between 0 and {classes_max - 1}")
    return numbers.astype(np.int64)


def confusion(actual: NDArray[np.int64], predicted: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """counts[actual][predicted], int64 [classes, classes]; for two classes [[tn, fp], [fn, tp]]."""
    counts = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts, (actual, predicted), 1)
    return counts


def means(matrix: Floats) -> Floats:
    """The mean of each column, float64 [features], rounded twice in all: the same bits on every machine.

    `fsum` is exact before its one rounding, where a pairwise or vectorised sum depends on the machine.
    """
    return np.array([math.fsum(column.tolist()) / len(column) for column in matrix.T], dtype=np.float64)
