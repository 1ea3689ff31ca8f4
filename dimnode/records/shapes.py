"""Small checkers from which the schema of each record kind is built.

Rule: a checker says yes or no about one decoded cmp/1 value; it never changes it.
Pure: no I/O, no clock.
"""

from collections.abc import Callable, Mapping
from typing import Any

from dimnode.limits import LIMITS

Check = Callable[[Any], bool]

_LIST_MAX = LIMITS.records.list_entries_max


def exact_bytes(*sizes: int, prefix: bytes = b"") -> Check:
    """bin of one of these sizes, beginning with `prefix`."""
    return lambda value: type(value) is bytes and len(value) in sizes and value.startswith(prefix)


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
    return lambda value: type(value) is list and shortest <= len(value) <= longest and all(map(item, value))


def row(*items: Check) -> Check:
    """A list of exactly these entries in this order."""
    return lambda value: (
        type(value) is list
        and len(value) == len(items)
        and all(check(entry) for check, entry in zip(items, value, strict=True))
    )


def fields(required: Mapping[str, Check], optional: Mapping[str, Check] | None = None) -> Check:
    """A map with these keys. Unknown keys fail, except those that begin with `x_`."""
    needed = tuple(required.items())
    extra = dict(optional or {})

    def check(value: Any) -> bool:
        if type(value) is not dict:
            return False
        try:
            for key, known in needed:
                if not known(value[key]):
                    return False
        except KeyError:
            return False
        return len(value) == len(needed) or all(
            extra[key](entry) if key in extra else key in required or key.startswith("x_")
            for key, entry in value.items()
        )

    return check


def any_of(*checks: Check) -> Check:
    """Passes when one of the checks passes."""
    return lambda value: any(check(value) for check in checks)
