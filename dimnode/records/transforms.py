"""`transforms/1`: the vocabulary of a manifest's `pre` and `post`, and whether two such lists make sense together.

Rule: a list of transforms is a declaration. A word of the vocabulary never changes its meaning; a new meaning is a new
word, and a node that does not know a word refuses to run the model by it. What each word does to numbers, to the bit,
is in docs/transforms.md. Pure: no I/O, no clock, no NumPy.

A value has a name and holds one thing per item (a row, a text, a file): every word is defined on one item alone, so a
result does not depend on what else is in the batch (`tokenise` with pad "longest" is the one exception).
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from dimnode.limits import LIMITS
from dimnode.records.shapes import Check, any_of, boolean, fields, integer, list_of, one_of, row, text
from dimnode.records.tensors import ITEM_BYTES

VOCABULARY: Final = "transforms/1"
KINDS: Final = ("text", "image", "audio", "bytes", "rows", "tensor")
CALL_MODES: Final = ("stack", "each", "bare", "scan")
COLOURS: Final = ("rgb", "bgr", "grey")
FILTERS: Final = ("nearest", "bilinear", "bicubic", "lanczos")

Transform = Mapping[str, Any]

_name = text(128, 1)
_path = text(256, 1)
_dtype = one_of(*ITEM_BYTES)
_nano = integer(-(2**62), 2**62)
_axis = integer(-8, 7)
_side = integer(1, 65_536)
_size = integer(1, 2**31 - 1)
_NUMBERS_MAX: Final = 512
_WORD_MAX: Final = 24
_WORDS_MAX: Final = 32


def _op(required: dict[str, Check], optional: dict[str, Check] | None = None) -> Check:
    return fields({"op": text(_WORD_MAX, 1), "name": _name, **required}, {"into": _name, **(optional or {})})


def _plain(required: dict[str, Check], optional: dict[str, Check] | None = None) -> Check:
    return fields({"op": text(_WORD_MAX, 1), **required}, optional)


# Before the model: from bytes, texts and tables to arrays.
_BEFORE: Final[dict[str, Check]] = {
    "input": _plain(
        {"name": _name, "kind": one_of(*KINDS)},
        {
            "columns": list_of(text(128, 1), 512, 1),
            "dtype": _dtype,
            "shape": list_of(integer(-1, 2**31 - 1), 8),
        },
    ),
    "tokenise": _op(
        {"into": _name, "file": _path, "max_tokens": integer(1, 65_536)},
        {
            "pair": _name,
            "mask": _name,
            "types": _name,
            "pad": one_of("none", "longest", "max"),
            "pad_id": integer(0, 2**31 - 1),
            "special": boolean,
        },
    ),
    "one_hot": _op({"values": list_of(text(128), _NUMBERS_MAX, 1)}, {"unknown": one_of("refuse", "zeros")}),
    "ordinal": _op({"values": list_of(text(128), _NUMBERS_MAX, 1)}, {"unknown": integer(-(2**31), 2**31 - 1)}),
    "bytes_window": _op(
        {"begin": integer(0, 1 << 20), "end": integer(0, 1 << 20), "pad_value": integer(-(2**31), 2**31 - 1)},
        {"middle": integer(0, 1 << 20), "block": integer(1, 1 << 20), "strip": boolean, "dtype": _dtype},
    ),
    "decode_image": _op({"colour": one_of(*COLOURS)}, {"orient": boolean}),
    "resize": _op({"filter": one_of(*FILTERS)}, {"height": _side, "width": _side, "shorter": _side, "longer": _side}),
    "centre_crop": _op({"height": _side, "width": _side}, {"rounding": one_of("floor", "half_even")}),
    "pad_image": _op({"height": _side, "width": _side, "value": integer(0, 255)}, {"place": one_of("centre", "first")}),
    "decode_audio": _op({"rate_hz": integer(1000, 384_000)}, {"channels": one_of("mono", "keep")}),
    "frame": _op({"size": _size, "hop": _size}, {"left": integer(0, 2**31 - 1), "tail": one_of("pad", "drop")}),
    "log_mel": _op(
        {"rate_hz": integer(1000, 384_000), "fft": integer(16, 65_536), "hop": _size, "mels": integer(1, 512)},
        {
            "low_hz": integer(0, 192_000),
            "high_hz": integer(1, 192_000),
            "scale": one_of("slaney", "htk"),
            "norm": one_of("slaney", "none"),
            "log": one_of("none", "ln", "log10", "whisper"),
            "floor_nano": _nano,
            "centre": boolean,
        },
    ),
    "constant": _plain(
        {"name": _name, "dtype": _dtype, "shape": list_of(integer(0, 2**31 - 1), 8)},
        {"values": list_of(integer(-(2**63)), _NUMBERS_MAX, 1), "values_nano": list_of(_nano, _NUMBERS_MAX, 1)},
    ),
    "call": _plain(
        {"mode": one_of(*CALL_MODES)},
        {"over": list_of(_name, 64, 1), "carry": list_of(row(_name, _name), 64)},
    ),
}

# Arrays to arrays, on either side of the model.
_BOTH: Final[dict[str, Check]] = {
    "scale": _op({"multiply": _nano, "divide": integer(1, 2**62)}, {"add_nano": _nano}),
    "normalise": _op(
        {"mean_nano": list_of(_nano, _NUMBERS_MAX, 1), "std_nano": list_of(integer(1, 2**62), _NUMBERS_MAX, 1)},
        {"axis": _axis},
    ),
    "cast": _op({"dtype": _dtype}),
    "clip": _op({"low_nano": _nano, "high_nano": _nano}),
    "reshape": _op({"shape": list_of(integer(-1, 2**31 - 1), 8)}),
    "expand": _op({"axis": _axis}),
    "transpose": _op({"axes": list_of(integer(0, 7), 8, 1)}),
    "reverse": _op({"axis": _axis}),
    "pad": _op({"axis": _axis, "size": _size, "value": integer(-(2**31), 2**31 - 1)}, {"side": one_of("end", "begin")}),
    "truncate": _op({"axis": _axis, "size": _size}, {"keep": one_of("begin", "end")}),
    "slice": _op({"axis": _axis, "start": integer(0, 2**31 - 1), "stop": _size}),
    "select": _op({"axis": _axis, "places": list_of(integer(0, 2**31 - 1), _NUMBERS_MAX, 1)}),
    "concat": _plain({"names": list_of(_name, 64, 1), "into": _name, "axis": _axis}),
    "sum": _op({"axis": _axis}),
    "mean": _op({"axis": _axis}),
    "resample": _op({"from_hz": integer(1000, 384_000), "to_hz": integer(1000, 384_000)}),
    "l2_normalise": _op({}, {"axis": _axis}),
    "copy": _op({"into": _name}),
}

# After the model: from its outputs to an answer.
_AFTER: Final[dict[str, Check]] = {
    "softmax": _op({}, {"axis": _axis}),
    "sigmoid": _op({}),
    "argmax": _op({"into": _name}, {"axis": _axis}),
    "top_k": _op({"into": _name, "k": integer(1, _NUMBERS_MAX), "places": _name}),
    "threshold": _op({"into": _name, "at_nano": _nano}),
    "mean_pool": _op({"mask": _name}),
    "dequantise": _op({"scale_nano": _nano}, {"zero": integer(-(2**31), 2**31 - 1)}),
    "label_text": _op({"into": _name}, {"file": _path}),
    "keep": _plain({"names": list_of(_name, 64, 1)}),
}

_BEFORE_CHECKS: Final = _BEFORE | _BOTH
_AFTER_CHECKS: Final = _BOTH | _AFTER
WORDS: Final = frozenset(_BEFORE) | frozenset(_BOTH) | frozenset(_AFTER)

_KEY: Final = re.compile(r"[a-z0-9_]{1,24}")
_scalar = any_of(integer(-(2**63)), boolean, text())
_plain_value = any_of(_scalar, list_of(any_of(_scalar, list_of(_scalar)), _NUMBERS_MAX))
"""What a word of a later vocabulary may hold: numbers, text, and lists of lists of them."""


def transform(value: Any) -> bool:
    """A checker for a manifest's schema: one word with its fields, or one of a later vocabulary.

    A manifest outlives a version of this program: a word that is unknown here is kept and named, and never run.
    """
    if type(value) is not dict or type(value.get("op")) is not str:
        return False
    word = value["op"]
    check = _BEFORE_CHECKS.get(word) or _AFTER.get(word)
    if check is not None:
        return check(value)
    if not 0 < len(word) <= _WORD_MAX or not all(type(key) is str and _KEY.fullmatch(key) for key in value):
        return False
    return list(value) == sorted(value) and all(_plain_value(part) for part in value.values())


def first_wrong(words: Sequence[Any]) -> str:
    """The first entry of a list that is no word with its fields, as a person finds it; "" when all are."""
    if len(words) > _WORDS_MAX:
        return f"{len(words)} words, at most {_WORDS_MAX}"
    for number, word in enumerate(words):
        if not transform(word):
            op = word.get("op") if isinstance(word, Mapping) else None
            said = type(op) is str and op in WORDS
            known = " has a field that is wrong, missing or unknown" if said else " is no word"
            return f"[{number}] {op!r}{known}"
    return ""


transforms: Final = list_of(transform, _WORDS_MAX)
"""What a manifest's `pre` and `post` are."""


@dataclass(frozen=True, slots=True)
class Source:
    """What a person gives: an `input` of `pre`. `columns` for rows (or the one column that a text comes from)."""

    name: str
    kind: str
    columns: tuple[str, ...] = ()
    dtype: str = ""
    shape: tuple[int, ...] = ()


def sources_of(pre: Sequence[Transform]) -> tuple[Source, ...]:
    """The inputs that a list declares, in its order."""
    return tuple(
        Source(op["name"], op["kind"], tuple(op.get("columns", ())), op.get("dtype", ""), tuple(op.get("shape", ())))
        for op in pre
        if op["op"] == "input"
    )


def goes_past(pre: Sequence[Transform], inputs: Sequence[str], given: Collection[str]) -> bool:
    """What is given names the model's own tensors, all of them, and nothing that `pre` takes: `pre` is left out.

    So whoever has tokens, say, need not make them text again.
    """
    named = all(name in given for name in inputs) and not any(source.name in given for source in sources_of(pre))
    return bool(inputs) and named


def of_numbers(pre: Sequence[Transform]) -> bool:
    """Every input is a tensor with one row per item, as for a model without `pre`: rows of several orders can be put
    together. Files and texts without sizes cannot: two of them would become one."""
    return all(source.kind in ("rows", "tensor") for source in sources_of(pre))


def files_of(pre: Sequence[Transform], post: Sequence[Transform]) -> tuple[str, ...]:
    """The manifest's files that these lists read, by path. What stands there in a later vocabulary may be no path."""
    return tuple(sorted({op["file"] for op in (*pre, *post) if type(op.get("file")) is str}))


def takes_row(source: Source) -> dict[str, Any]:
    """What a model takes, as doors tell it; `source_from` reads it back."""
    return {
        "name": source.name,
        "kind": source.kind,
        "columns": list(source.columns),
        "dtype": source.dtype,
        "shape": list(source.shape),
    }


def source_from(said: Mapping[str, Any]) -> Source:
    """A row of `takes`."""
    return Source(said["name"], said["kind"], tuple(said["columns"]), said["dtype"], tuple(said["shape"]))


def text_names(post: Sequence[Transform]) -> tuple[str, ...]:
    """Names of an answer that hold UTF-8."""
    return tuple(op["into"] for op in post if op["op"] == "label_text")


def unknown_words(pre: Sequence[Transform], post: Sequence[Transform]) -> tuple[str, ...]:
    """Words of these lists that this vocabulary lacks."""
    return tuple(sorted({op["op"] for op in (*pre, *post)} - WORDS))


def call_of(pre: Sequence[Transform]) -> Transform:
    """How the model is called: the last word of `pre` when it says so, else once on all items."""
    return pre[-1] if pre and pre[-1]["op"] == "call" else {"op": "call", "mode": "stack"}


def kept_of(post: Sequence[Transform], outputs: Sequence[str]) -> tuple[str, ...]:
    """The names of the answer: what `keep` says, else the model's outputs and everything that `post` writes.

    None when a word of a later vocabulary stands there: what it writes is not known.
    """
    for op in reversed(post):
        if op["op"] == "keep":
            return tuple(op["names"])
    if unknown_words((), post):
        return ()
    return tuple(dict.fromkeys([*outputs, *(name for op in post for name, _ in _flow(op)[1])]))


def fault_of(
    pre: Sequence[Transform],
    post: Sequence[Transform],
    inputs: Sequence[str],
    outputs: Sequence[str],
    paths: Sequence[str],
) -> str:
    """What is wrong with two lists for a model with these inputs, outputs and files; "" when nothing is.

    `inputs` and `outputs` are the model's own; empty when it does not declare them, and then they are not judged.
    """
    if unknown := unknown_words(pre, post):
        return f"{unknown[0]!r} is no word of {VOCABULARY}"
    known: dict[str, str] = {}
    for side, words, checks in (("pre", pre, _BEFORE_CHECKS), ("post", post, _AFTER_CHECKS)):
        if side == "post":
            known |= dict.fromkeys(outputs, "array")
        for number, op in enumerate(words):
            where = f"{side}[{number}] {op['op']}"
            if op["op"] not in checks:
                return f"{where}: stands on the wrong side of the model"
            if op["op"] == "call" and number != len(words) - 1:
                return f"{where}: is the last word of pre"
            if fault := _fault_of_one(op, known, paths, open_names=side == "post" and not outputs):
                return f"{where}: {fault}"
            known |= dict(_flow(op)[1])
        if side == "pre" and (fault := _fault_of_call(pre, known, inputs)):
            return fault
    if post and outputs and (missing := [name for name in kept_of(post, outputs) if name not in known]):
        return f"post: nothing is called {missing[0]!r}"
    return ""


def _fault_of_call(pre: Sequence[Transform], known: Mapping[str, str], inputs: Sequence[str]) -> str:
    if not pre:
        return ""
    sources = sources_of(pre)
    if not sources:
        return "pre: declares no input"
    if len({source.name for source in sources}) != len(sources):
        return "pre: two inputs have one name"
    fed = {name for name, kind in known.items() if kind in ("array", "constant")}
    if missing := [name for name in inputs if name not in fed]:
        return f"pre: nothing is made for the model's input {missing[0]!r}"
    call = call_of(pre)
    over, carry = call.get("over", ()), call.get("carry", ())
    if (call["mode"] == "scan") != bool(over):
        return "call: `over` belongs to mode scan, and scan needs it"
    if carry and call["mode"] != "scan":
        return "call: `carry` belongs to mode scan"
    strange = [name for name in (*over, *(pair[0] for pair in carry)) if name not in fed]
    return f"call: nothing is called {strange[0]!r}" if strange else ""


def _fault_of_one(op: Transform, known: Mapping[str, str], paths: Sequence[str], *, open_names: bool) -> str:
    for name, kind in _flow(op)[0]:
        found = known.get(name)
        if found is None and not open_names:
            return f"nothing is called {name!r}"
        if found is not None and found != kind and not (kind == "bytes" and found in ("image", "audio")):
            return f"{name!r} is {found}, not {kind}"
    if "file" in op and op["file"] not in paths:
        return f"the model has no file {op['file']!r}"
    match op["op"]:
        case "resize":
            sides = {"height", "width", "shorter", "longer"} & op.keys()
            if sides not in ({"height", "width"}, {"shorter"}, {"longer"}):
                return "takes height and width, or shorter, or longer"
        case "normalise":
            if len(op["mean_nano"]) != len(op["std_nano"]):
                return "mean_nano and std_nano differ in length"
        case "constant":
            return _fault_of_constant(op)
        case "input":
            if op["kind"] == "text" and len(op.get("columns", ())) > 1:
                return "a text comes from one column"
            if op["kind"] in ("image", "audio", "bytes") and "columns" in op:
                return "only rows and text come from columns"
        case "bytes_window":
            if not op["begin"] + op.get("middle", 0) + op["end"]:
                return "takes no byte"
        case "clip":
            if op["low_nano"] > op["high_nano"]:
                return "low is above high"
        case "slice":
            if op["start"] >= op["stop"]:
                return "start is not before stop"
        case "transpose":
            if sorted(op["axes"]) != list(range(len(op["axes"]))):
                return "axes are each axis once"
    return ""


def _fault_of_constant(op: Transform) -> str:
    if ("values" in op) == ("values_nano" in op):
        return "has `values`, or `values_nano`"
    count = 1
    for size in op["shape"]:
        count *= size
    if count * ITEM_BYTES[op["dtype"]] > LIMITS.transforms.constant_bytes_max:
        return "is too large"
    given = len(op.get("values", op.get("values_nano", ())))
    return "" if given in (1, count) else f"has {given} numbers for {count} places"


_READS: Final = {
    "tokenise": "text",
    "one_hot": "text",
    "ordinal": "text",
    "bytes_window": "bytes",
    "decode_image": "image",
    "decode_audio": "audio",
}


def _flow(op: Transform) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """What one word reads and what it writes: names with their kinds (text, image, audio, bytes, array, constant)."""
    match op["op"]:
        case "input":
            return [], [(op["name"], "array" if op["kind"] in ("rows", "tensor") else op["kind"])]
        case "constant":
            return [], [(op["name"], "constant")]
        case "call" | "keep":
            return [], []
        case "concat":
            return [(name, "array") for name in op["names"]], [(op["into"], "array")]
        case "label_text":
            return [(op["name"], "array")], [(op["into"], "text")]
    reads = [(op["name"], _READS.get(op["op"], "array"))]
    writes = [(op.get("into", op["name"]), "array")]
    if "pair" in op:
        reads.append((op["pair"], "text"))
    if op["op"] == "mean_pool":
        reads.append((op["mask"], "array"))
    if op["op"] == "tokenise":
        writes += [(op[key], "array") for key in ("mask", "types") if key in op]
    if op["op"] == "top_k":
        writes.append((op["places"], "array"))
    return reads, writes
