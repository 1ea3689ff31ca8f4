"""What is wrong with settings, a card or a job, in plain words instead of a library's.

Rule: the place is named as people write it (`tasks[0].op`), and where only some words are allowed, all of them are.
Pure: no I/O, no clock.
"""

import re
from difflib import get_close_matches
from typing import Any, Final

import msgspec

_KINDS: Final = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "bytes": "bytes",
    "array": "a list",
    "object": "a map of keys",
    "null": "nothing",
}
_EXPECTED: Final = re.compile(r"Expected `([^`]+)`, got `([^`]+)`")
_ENUM: Final = re.compile(r"Invalid enum value (.+)")
_UNKNOWN: Final = re.compile(r"Object contains unknown field `([^`]+)`")
_MISSING: Final = re.compile(r"Object missing required field `([^`]+)`")
_STEP: Final = re.compile(r"\w+|\[")


def in_words(error: msgspec.ValidationError, struct: type) -> str:
    """The one mistake that msgspec names, of something that was to become `struct`."""
    text, _, place = str(error).partition(" - at ")
    place = place.strip("`").removeprefix("$").lstrip(".")
    where = f"`{place}` " if place else ""
    if found := _EXPECTED.fullmatch(text):
        wanted = " or ".join(_KINDS.get(part.strip(), part.strip()) for part in found[1].split("|"))
        return f"{where or 'it '}is to be {wanted}, not {_KINDS.get(found[2], found[2])}"
    from msgspec.inspect import type_info  # only once something is wrong

    kind = _kind_at(type_info(struct), place)
    if found := _ENUM.fullmatch(text):
        values = getattr(kind, "values", ())
        return f"{where}cannot be {found[1]}" + (f": {', '.join(map(str, values))}" if values else "")
    if found := _UNKNOWN.fullmatch(text):
        known = [field.encode_name for field in getattr(kind, "fields", ())]
        near = get_close_matches(found[1], known, 1)
        hint = f"did you mean `{near[0]}`?" if near else f"the keys are {', '.join(known)}"
        return f"{where}has no key `{found[1]}`; {hint}" if where else f"there is no key `{found[1]}`; {hint}"
    if found := _MISSING.fullmatch(text):
        return f"{where}lacks the key `{found[1]}`" if where else f"the key `{found[1]}` is missing"
    return f"{where}is wrong: {text}" if where else text


def _kind_at(kind: Any, place: str) -> Any:
    """The type of what stands at a place such as `tasks[0].op`; None where it cannot be told."""
    for step in _STEP.findall(re.sub(r"\[[^\]]*\]", "[", place)):
        kind = _given(kind)
        if step == "[":
            kind = getattr(kind, "item_type", None) or getattr(kind, "value_type", None)
        else:
            named = {field.encode_name: field.type for field in getattr(kind, "fields", ())}
            kind = named.get(step)
    return _given(kind)


def _given(kind: Any) -> Any:
    """T of T | None."""
    options = [option for option in getattr(kind, "types", ()) if type(option).__name__ != "NoneType"]
    return options[0] if options else kind
