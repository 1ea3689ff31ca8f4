"""Messages in which one value is odd: what stands somewhere in a message is replaced, left out, doubled or moved.

Rule: the message is well formed, and where it is signed it is signed after it was changed, by the key of whoever sends
it: no check of form or signature hides what the odd value does. Everything comes in a fixed order: nothing is drawn.
"""

import copy
from collections.abc import Callable, Iterator
from typing import Any, Final

from dimnode.records.ids import PEER_PREFIX, RECORD_PREFIX

PEER: Final = PEER_PREFIX + bytes(32)
RECORD: Final = RECORD_PREFIX + bytes(32)
LETTERS: Final = "a\u0301\u202eb\U0001f469\u200d\U0001f680\ufeff\u2028\U0010ffff"
CONTROLS: Final = "\x1b[2J\x1b]0;t\x07\r\n\t\0\x7f\x9b"
GREATEST: Final = 2**63 - 1
"""As most schemas have it."""

_HOLLOW: Final = (None, True, False, [], {}, [[]], [None], {"x": 1})
_NUMBERS: Final = (-(2**63), -1, 0, 1, 2**31, 2**53, 2**62, GREATEST, 2**63, 2**64 - 1)
_FLOATS: Final = (1e308, float("nan"), float("inf"), -0.5)
_WORDS: Final = (
    "",
    "\0",
    " ",
    LETTERS,
    CONTROLS,
    "../../etc/passwd",
    "%s%n{0}",
    "self",
    "-1",
    "9" * 64,
    "\u0663",
    "nan",
)
_LONG: Final = tuple(letter * size for letter in "é\0" for size in (16, 32, 64, 128, 256, 5000))
_BYTES: Final = (b"", b"\0", b"x" * 65536, PEER, RECORD, bytes(36), b"\xff" * 32)
ODD: Final = (*_HOLLOW, *_NUMBERS, *_FLOATS, *_WORDS, *_LONG, *_BYTES)
_EVERYWHERE: Final = (GREATEST, 0, CONTROLS, "é" * 16, "")

Place = tuple[Any, ...]
Mutant = tuple[str, Any]


def mutants(message: Any) -> Iterator[Mutant]:
    """The message with each of its parts changed in each way, and in words what was changed."""
    everywhere = list(_places(message))
    others = [_at(message, place) for place in everywhere if place]
    for place in everywhere:
        for new in (*ODD, *others):
            yield f"{place} = {new!r:.40}", _with(message, place, lambda _, new=new: new)
        yield f"{place} deeper", _with(message, place, lambda old: [old])
        part = _at(message, place)
        if isinstance(part, list):
            yield from _of_list(message, place)
        if isinstance(part, list | dict):
            yield from _of_parts(message, place, part)
        if isinstance(part, dict):
            yield f"{place} with one more", _with(message, place, lambda old: {**old, "zzz": 1})


def many_at_once(message: Any) -> Iterator[Mutant]:
    """All that is of one type within each part, since sums are of many."""
    for place in _places(message):
        part = _at(message, place)
        if not isinstance(part, list | dict):
            continue
        for new in _EVERYWHERE:
            alike = [below for below in _places(part) if type(_at(part, below)) is type(new)]
            yield (
                f"all in {place} = {new!r:.40}",
                _with(message, place, lambda old, a=alike, new=new: _all(old, a, new)),
            )


def _of_list(message: Any, place: Place) -> Iterator[Mutant]:
    yield f"{place} doubled", _with(message, place, lambda old: old + old)
    yield f"{place} backwards", _with(message, place, lambda old: old[::-1])
    yield f"{place} by the thousand", _with(message, place, lambda old: old[:1] * 4000)


def _of_parts(message: Any, place: Place, part: Any) -> Iterator[Mutant]:
    for key in list(part) if isinstance(part, dict) else range(len(part)):
        yield f"{(*place, key)} left out", _with(message, place, lambda old, key=key: _without(old, key))


def _places(value: Any, here: Place = ()) -> Iterator[Place]:
    yield here
    for key, part in _entries(value):
        yield from _places(part, (*here, key))


def _entries(value: Any) -> list[tuple[Any, Any]]:
    return list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []


def _at(value: Any, place: Place) -> Any:
    for key in place:
        value = value[key]
    return value


def _with(message: Any, place: Place, change: Callable[[Any], Any]) -> Any:
    found = copy.deepcopy(message)
    if not place:
        return change(found)
    holder = _at(found, place[:-1])
    holder[place[-1]] = change(holder[place[-1]])
    return found


def _all(part: Any, places: list[Place], new: Any) -> Any:
    for place in places:
        part = _with(part, place, lambda _: new)
    return part


def _without(part: Any, key: Any) -> Any:
    if isinstance(part, dict):
        return {name: value for name, value in part.items() if name != key}
    return part[:key] + part[key + 1 :]
