"""One value in a decoded tree where another belongs: each part replaced, left out, doubled, moved or buried.

Rule: everything is made in a fixed order, without chance; what is not changed is shared and never copied.
"""

import datetime
import itertools
from collections.abc import Iterator
from typing import Any, Final

DEPTH: Final = 10_000


def deep(kind: type) -> Any:
    """Lists in lists, or maps in maps."""
    found: Any = kind()
    for _ in range(DEPTH):
        found = [found] if kind is list else {"a": found}
    return found


DEEP: Final = (deep(list), deep(dict))
LONG: Final = "x" * 100_000
FEW: Final = (None, True, -1, 2**63, float("nan"), "", "\ud800", [], {}, [[]], {"a": 1, b"b": 2}, *DEEP)
MORE: Final = (0, 3, 2**70, 10**400, 1e308, "a\0b", LONG, {"": None}, [None], [1, "a", None], b"\xff\0")
ODD: Final = (*FEW, *MORE, datetime.date(2026, 11, 30))
"""Some of it neither JSON nor most programs know: msgpack, YAML and TOML have it."""


def mutants(value: Any, odd: tuple[Any, ...]) -> Iterator[tuple[str, Any]]:
    """The tree with each of its parts changed in each way, each with the name of what was changed."""
    for number, new in enumerate(odd):
        yield f" = odd[{number}]", new
    if isinstance(value, dict):
        for key, part in value.items():
            yield f".{key} left out", {name: it for name, it in value.items() if name != key}
            for name, new in mutants(part, odd):
                yield f".{key}{name}", {**value, key: new}
        for one, other in itertools.pairwise(value):
            yield f".{one} and .{other} swapped", {**value, one: value[other], other: value[one]}
        for new in ("", "zzz", "x_zzz", 1, None, b"a"):
            yield f" with a key {new!r}", {**value, new: 1}
    elif isinstance(value, list):
        for place, part in enumerate(value):
            yield f"[{place}] left out", value[:place] + value[place + 1 :]
            yield f"[{place}] doubled", [*value[:place], part, *value[place:]]
            for name, new in mutants(part, odd):
                yield f"[{place}]{name}", [*value[:place], new, *value[place + 1 :]]
        yield " backwards", value[::-1]
        yield " by the thousand", value[:1] * 5000
