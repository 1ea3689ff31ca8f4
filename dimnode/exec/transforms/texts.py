"""The words that take texts and bytes: tokens, classes by name, the windows of a file.

Rule: a tokenizer is data that a library reads; nothing of a stranger's model runs here, and what the library throws,
its panics included, is a fault of the model's file or of the text.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from dimnode.exec.mapping import Array
from dimnode.exec.transforms.arrays import Words
from dimnode.exec.transforms.values import (
    BAD_TOKENIZER,
    NO_EXTRA,
    NOT_TEXT,
    UNFIT_VALUE,
    UNKNOWN_WORD,
    VALUE_TOO_LARGE,
    Each,
    Stacked,
    Value,
    fail,
    named,
)
from dimnode.limits import LIMITS

_WHITESPACE = b" \t\n\r\x0b\x0c"
T = TypeVar("T")


def texts_of(items: Sequence[bytes]) -> tuple[str, ...]:
    """UTF-8 to text. Raises `RunFailed` naming the item that is none or is too long."""
    found = []
    for number, raw in enumerate(items, 1):
        with named(number):
            if len(raw) > LIMITS.transforms.text_bytes_max:
                fail(VALUE_TOO_LARGE, f"a text of {len(raw)} bytes, at most {LIMITS.transforms.text_bytes_max}")
            try:
                found.append(raw.decode("utf-8"))
            except UnicodeDecodeError as error:
                fail(NOT_TEXT, f"the text is not UTF-8 at byte {error.start}", "save it as UTF-8")
    return tuple(found)


def load_tokenizer(raw: bytes) -> Any:
    """The tokenizer of a tokenizer.json. Raises `RunFailed`."""
    try:
        from tokenizers import Tokenizer
    except ImportError:
        fail(NO_EXTRA, "this node cannot cut text into tokens", "pip install 'dimnode[text]'")
    if len(raw) > LIMITS.transforms.tokenizer_bytes_max:
        fail(BAD_TOKENIZER, f"the model's tokenizer has {len(raw)} bytes")
    return _tamed(lambda: Tokenizer.from_buffer(raw), "the model's tokenizer cannot be read")


def tokenise(op: Words, tokenizer: Any, texts: Sequence[str], pairs: Sequence[str] | None) -> dict[str, Value]:
    """Ids, mask and types by the names that the word gives them, int64 [tokens] per item."""
    given: Any = list(texts) if pairs is None else list(zip(texts, pairs, strict=True))
    most, special = op["max_tokens"], op.get("special", True)

    def cut() -> Any:
        tokenizer.no_padding()
        tokenizer.enable_truncation(most, strategy="longest_first")
        return tokenizer.encode_batch(given, add_special_tokens=special)

    found = _tamed(cut, "the text cannot be cut into tokens")
    rows = [found[place].ids for place in range(len(given))]
    if (total := sum(map(len, rows))) > LIMITS.transforms.tokens_max:
        fail(VALUE_TOO_LARGE, f"{total} tokens, at most {LIMITS.transforms.tokens_max}", "give fewer texts at a time")
    if max(map(len, rows)) > most:
        fail(BAD_TOKENIZER, "the model's tokenizer does not keep to the number of tokens")
    types = [found[place].type_ids for place in range(len(given))]
    laid = {op["into"]: _laid_out(op, rows, op.get("pad_id", 0))}
    if "mask" in op:
        laid[op["mask"]] = _laid_out(op, [[1] * len(row) for row in rows], 0)
    if "types" in op:
        laid[op["types"]] = _laid_out(op, types, 0)
    return laid


def _laid_out(op: Words, rows: Sequence[Sequence[int]], fill: int) -> Value:
    if op.get("pad", "longest") == "none":
        return Each(tuple(np.array(row, dtype=np.int64) for row in rows))
    width = op["max_tokens"] if op.get("pad") == "max" else max(map(len, rows))
    if len(rows) * width > LIMITS.transforms.tokens_max:
        fail(VALUE_TOO_LARGE, f"{len(rows) * width} tokens with padding", "give fewer texts, or texts of like length")
    table = np.full((len(rows), width), fill, dtype=np.int64)
    for place, row in enumerate(rows):
        table[place, : len(row)] = row
    return Stacked(table)


def _tamed(call: Callable[[], T], what: str) -> T:
    """The library raises bare `Exception`, and its panics are not even that."""
    try:
        return call()
    except MemoryError:
        raise
    except BaseException as fault:  # noqa: BLE001 boundary: a panic of the library's; nobody cancels in this process
        fail(BAD_TOKENIZER, f"{what}: {str(fault)[:160]}")


def one_hot(op: Words, texts: Sequence[str]) -> Value:
    """float32 [values] per item: 1 at the place of the text."""
    places = _places(op, texts, None if op.get("unknown", "refuse") == "refuse" else -1)
    table = np.zeros((len(texts), len(op["values"])), dtype=np.float32)
    for number, place in enumerate(places):
        if place >= 0:
            table[number, place] = 1
    return Stacked(table)


def ordinal(op: Words, texts: Sequence[str]) -> Value:
    """int64, one number per item: the text's place among the values."""
    return Stacked(np.array(_places(op, texts, op.get("unknown")), dtype=np.int64))


def _places(op: Words, texts: Sequence[str], unknown: int | None) -> list[int]:
    known: Mapping[str, int] = {value: place for place, value in reversed(list(enumerate(op["values"])))}
    found = []
    for number, text in enumerate(texts, 1):
        place = known.get(text, unknown)
        if place is None:
            words = ", ".join(map(repr, op["values"][:6])) + (" …" if len(op["values"]) > 6 else "")
            with named(number):
                fail(UNKNOWN_WORD, f"{text[:40]!r} is none of the values of {op['name']!r}", f"they are {words}")
        found.append(place)
    return found


def bytes_window(op: Words, raw: bytes) -> Array:
    """Bytes as numbers from the beginning, the middle and the end of a file, padded to fixed sizes.

    Source: magika's feature extraction v2 (begin and end of a stripped block of the file).
    """
    begin, middle, end = op["begin"], op.get("middle", 0), op["end"]
    block = op.get("block", max(begin, end, 1))
    strip = op.get("strip", False)
    head, tail = raw[:block], raw[max(0, len(raw) - block) :]
    if strip:
        head, tail = head.lstrip(_WHITESPACE), tail.rstrip(_WHITESPACE)
    start = max(0, (len(raw) - middle) // 2)
    parts = [head[:begin], raw[start : start + middle], tail[max(0, len(tail) - end) :] if end else b""]
    out = np.full(begin + middle + end, op["pad_value"], dtype=np.int64)
    out[: len(parts[0])] = np.frombuffer(parts[0], dtype=np.uint8)
    out[begin : begin + len(parts[1])] = np.frombuffer(parts[1], dtype=np.uint8)
    if parts[2]:
        out[-len(parts[2]) :] = np.frombuffer(parts[2], dtype=np.uint8)
    target = np.dtype(op.get("dtype", "int32"))
    typed = out.astype(target)
    if not np.array_equal(typed.astype(np.int64), out):
        fail(UNFIT_VALUE, f"bytes_window: {target} cannot hold the numbers")
    return typed
