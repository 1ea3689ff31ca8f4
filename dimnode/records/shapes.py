"""Small checkers from which the schema of each record kind is built.

Rule: a checker says yes or no about one decoded cmp/1 value; it never changes it.
Pure: no I/O, no clock. Every record that arrives passes here, hence plain loops: a call from a loop costs half of one
from `all`.
"""

from collections.abc import Callable, Mapping
from typing import Any

from dimnode.limits import LIMITS

Check = Callable[[Any], bool]

_LIST_MAX = LIMITS.records.list_entries_max


def exact_bytes(size: int, prefix: bytes = b"") -> Check:
    """bin of this size, beginning with `prefix`."""
    if not prefix:
        return lambda value: type(value) is bytes and len(value) == size
    return lambda value: type(value) is bytes and len(value) == size and value.startswith(prefix)


def integer(low: int = 0, high: int = 2**63 - 1) -> Check:
    """int in [low, high]; a bool is none."""
    return lambda value: type(value) is int and low <= value <= high


def text(longest: int = 256, shortest: int = 0) -> Check:
    """str of at most `longest` characters."""
    return lambda value: type(value) is str and shortest <= len(value) <= longest


def one_of(*words: str) -> Check:
    """One of a fixed vocabulary."""
    allowed = frozenset(words)
    return lambda value: type(value) is str and value in allowed


def boolean(value: Any) -> bool:
    """true or false."""
    return type(value) is bool


def list_of(item: Check, longest: int = _LIST_MAX, shortest: int = 0) -> Check:
    """A list whose every entry passes."""

    def check(value: Any) -> bool:
        if type(value) is not list or not shortest <= len(value) <= longest:
            return False
        for entry in value:  # noqa: SIM110
            if not item(entry):
                return False
        return True

    return check


def list_of_bytes(size: int, prefix: bytes = b"", longest: int = _LIST_MAX) -> Check:
    """`list_of(exact_bytes(size, prefix), longest)` without a call for each entry."""

    def check(value: Any) -> bool:
        if type(value) is not list or len(value) > longest:
            return False
        for entry in value:
            if type(entry) is not bytes or len(entry) != size or not entry.startswith(prefix):
                return False
        return True

    return check


def row(*items: Check) -> Check:
    """A list of exactly these entries in this order."""

    def check(value: Any) -> bool:
        if type(value) is not list or len(value) != size:
            return False
        for passes, entry in zip(items, value):  # noqa: SIM110, B905 their number was just compared
            if not passes(entry):
                return False
        return True

    size = len(items)
    return check


def fields(required: Mapping[str, Check], optional: Mapping[str, Check] | None = None) -> Check:
    """A map with these keys, in ascending order. Unknown keys fail, except those that begin with `x_`."""
    known = {**required, **(optional or {})}
    arrangements: dict[tuple[Any, ...], tuple[Check, ...]] = {}  # by keys: at most one for each choice of optional ones

    def check(value: Any) -> bool:
        if type(value) is not dict:
            return False
        checks = arrangements.get(keys := tuple(value))
        if checks is None and (checks := arrange(keys)) is None:
            return False
        for passes, entry in zip(checks, value.values()):  # noqa: SIM110, B905 one of each
            if not passes(entry):
                return False
        return True

    def arrange(keys: tuple[Any, ...]) -> tuple[Check, ...] | None:
        """The check of each key, in order; None when a key is missing, unknown, no text, or out of order."""
        if not all(type(key) is str and (key in known or key.startswith("x_")) for key in keys):
            return None
        if list(keys) != sorted(keys) or not required.keys() <= set(keys):
            return None
        checks = tuple(known.get(key, _anything) for key in keys)
        if known.keys() >= set(keys):
            arrangements[keys] = checks
        return checks

    return check


def _anything(_: Any) -> bool:
    """An experimental field: nobody reads it."""
    return True


def any_of(*checks: Check) -> Check:
    """Passes when one of the checks passes."""

    def check(value: Any) -> bool:
        for known in checks:  # noqa: SIM110
            if known(value):
                return True
        return False

    return check
