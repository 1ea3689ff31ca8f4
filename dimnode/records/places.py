"""Where in nested lists a number is wrong, in words: rows and columns are numbered from 1.

Rule: looked for only when something did not fit, so that good input pays nothing for it.
Pure: no I/O, no clock.
"""

import math
from collections.abc import Sequence
from itertools import count
from typing import Any, Final, NamedTuple

_DEPTH_MAX: Final = 64
_SHOWN_MAX: Final = 40


class Fault(NamedTuple):
    """Why a number cannot be used: a code of E-input, the place with what is wrong there, and the cause."""

    code: str
    what: str
    cause: str


def place_text(path: Sequence[int]) -> str:
    """`row 2, column 3` for [1, 2]; what lies deeper is numbered on."""
    words = [f"row {path[0] + 1}"] if path else []
    words += [f"column {path[1] + 1}"] if len(path) > 1 else []
    return ", ".join([*words, *(f"place {step + 1}" for step in path[2:])]) or "it"


def place_of(index: int, shape: Sequence[int]) -> tuple[int, ...]:
    """The path to a number by its place in the flat order (C order)."""
    path: list[int] = []
    for size in reversed(shape):
        path.append(index % size)
        index //= size
    return tuple(reversed(path))


def fault_in(value: Any, *, booleans: bool = False) -> Fault | None:
    """The first thing in nested lists that keeps them from being a table of finite numbers; None when they are one."""
    return _fault(value, (), [], (bool, int, float) if booleans else (int, float))


def _fault(value: Any, path: tuple[int, ...], sizes: list[int], numbers: tuple[type, ...]) -> Fault | None:
    """`sizes`: how many entries the first list of each depth has; all of that depth must have as many."""
    if not isinstance(value, list | tuple):
        return _fault_of_number(value, path, numbers)
    if len(path) >= _DEPTH_MAX:
        return Fault("E-input-01", "lists are nested too deeply", f"at most {_DEPTH_MAX}")
    if len(path) == len(sizes):
        sizes.append(len(value))
    if len(value) != sizes[len(path)]:
        entries = "1 entry" if len(value) == 1 else f"{len(value)} entries"
        what = f"{place_text(path)} has {entries}, the first has {sizes[len(path)]}"
        return Fault("E-input-01", what, "its rows differ in length")
    for step, entry in zip(count(), value):
        if isinstance(entry, list | tuple) != isinstance(value[0], list | tuple):
            what = f"{place_text((*path, step))} is {_shown(entry)}"
            return Fault("E-input-01", what, "lists and numbers stand side by side")
        if (found := _fault(entry, (*path, step), sizes, numbers)) is not None:
            return found
    return None


def _fault_of_number(value: Any, path: tuple[int, ...], numbers: tuple[type, ...]) -> Fault | None:
    if type(value) not in numbers:
        return Fault("E-input-01", f"{place_text(path)} is no number", f"it holds {_shown(value)}")
    if isinstance(value, float) and not math.isfinite(value):
        return Fault("E-input-02", f"{place_text(path)} is {value}", "a model cannot use it")
    return None


def _shown(value: Any) -> str:
    return repr(value)[:_SHOWN_MAX]
