"""Words, tables and JSON for people and scripts.

Rule: results go to stdout, talk goes to stderr; with `--json` stdout carries one JSON document and nothing else.
Colour only on a terminal, never with NO_COLOR. rich is loaded only to draw a table on a terminal.
"""

import json
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from dimnode.cli.hints import with_home
from dimnode.records.ids import (
    PEER_ID_BYTES,
    PEER_PREFIX,
    RECORD_ID_BYTES,
    RECORD_PREFIX,
    cid_text,
    is_cid,
    peer_text,
)

_BOLD, _RESET = "\033[1m", "\033[0m"


def say(text: str = "") -> None:
    """One line of the result."""
    _write(sys.stdout, text)


def talk(text: str) -> None:
    """One line about what is going on. Reasons and codes of strangers are in it: a terminal must not obey them."""
    words = text.lstrip("\n")
    _write(sys.stderr, "\n" * (len(text) - len(words)) + harmless(with_home(words)))


def _write(stream: TextIO, line: str) -> None:
    """A line and its end in one piece: another thread's line, in the same file perhaps, never comes between them."""
    stream.write(f"{line}\n")
    stream.flush()


def say_json(value: Any, indent: int | None = 2) -> None:
    """The result as one JSON document."""
    say(json_text(value, indent))


def json_text(value: Any, indent: int | None = None) -> str:
    """JSON in which what a terminal might obey is escaped; JSON itself only does it below U+0020."""
    text = json.dumps(plain(value), ensure_ascii=False, indent=indent)
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() or sign == "\n" else json.dumps(sign)[1:-1] for sign in text)


def plain(value: Any) -> Any:
    """JSON's own types only: ids as people write them, other bytes as hex, numbers that JSON lacks as null."""
    match value:
        case bytes():
            return id_text(value)
        case float():
            return value if math.isfinite(value) else None
        case Mapping():
            return {str(key): plain(entry) for key, entry in value.items()}
        case list() | tuple() | set() | frozenset():
            return [plain(entry) for entry in value]
        case None | bool() | int() | str():
            return value
        case _:
            return str(value)


def id_text(raw: bytes) -> str:
    """A peer, record or blob id as text; any other bytes as hex."""
    if len(raw) == PEER_ID_BYTES and raw.startswith(PEER_PREFIX):
        return peer_text(raw)
    record = len(raw) == RECORD_ID_BYTES and raw.startswith(RECORD_PREFIX)
    return cid_text(raw) if record or is_cid(raw) else raw.hex()


def coloured() -> bool:
    """True when stdout is a terminal whose owner likes colour."""
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ


def bold(text: str) -> str:
    """Emphasis where it can be shown."""
    return f"{_BOLD}{text}{_RESET}" if coloured() else text


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], empty: str = "nothing yet") -> None:
    """Rows under their columns: drawn by rich on a terminal, else aligned with spaces, so that awk can read it."""
    columns = [shown(column) for column in columns]  # names of tensors and classes are a stranger's too
    cells = [[shown(cell) for cell in row] for row in rows]
    if not cells:
        talk(empty)
    elif sys.stdout.isatty():
        _draw(columns, cells)
    else:
        for line in aligned([list(columns), *cells]):
            say(line)


def aligned(rows: Sequence[Sequence[str]], gap: str = "  ") -> list[str]:
    """Lines whose columns begin at the same place."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return [gap.join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def facts(pairs: Sequence[tuple[str, Any]]) -> None:
    """Names and values, one pair a line."""
    width = max(len(name) for name, _ in pairs)
    for name, value in pairs:
        say(f"  {bold(f'{name:<{width}}')}  {shown(value)}")


def shown(value: Any) -> str:
    """A cell for people. What a stranger wrote is made harmless: a terminal must not obey it."""
    match value:
        case None | "" | [] | () | {}:
            return "-"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.4g}"
        case list() | tuple():
            return ", ".join(shown(entry) for entry in value)
        case _:
            return harmless(str(value))


def harmless(text: str) -> str:
    """Nothing in it moves a cursor, changes a colour or turns the direction of writing."""
    return text if text.isprintable() else "".join(letter if letter.isprintable() else "?" for letter in text)


def clock(at_ms: int, *, date: bool = False) -> str:
    """A time of day in this machine's zone."""
    moment = time.localtime(at_ms / 1000)
    day = time.strftime("%Y-%m-%d ", moment) if date else ""
    return f"{day}{time.strftime('%H:%M:%S', moment)}.{at_ms % 1000:03d}"


def size_text(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def counted(count: int, noun: str) -> str:
    """`1 answer`, `2 answers`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def narrowed(widths: Sequence[int], room: int) -> list[int]:
    """Widths that fit into `room` together, taken from the widest first and from none below its fair share.

    The first column is what people type into the next command: it stays whole while it leaves two fifths of the
    room, as a CID does on a terminal of 120 columns.
    """
    kept = list(widths[:1]) if len(widths) > 1 and 5 * widths[0] <= 3 * room else []
    rest = widths[len(kept) :]
    room -= sum(kept)
    least = max(1, room // len(rest))
    widest = max(rest)
    while widest > least and sum(min(width, widest) for width in rest) > room:
        widest -= 1
    return [*kept, *(min(width, widest) for width in rest)]


def _draw(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(no_color="NO_COLOR" in os.environ, highlight=False)
    widths = [max(cell_len(row[place]) for row in (columns, *cells)) for place in range(len(columns))]
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    # One line per fact: the widest columns are cut at their end, so that ids stay whole; --json and pipes cut nothing.
    for column, width in zip(columns, narrowed(widths, console.width - 2 * (len(columns) - 1)), strict=True):
        drawn.add_column(column, no_wrap=True, overflow="ellipsis", width=width)
    for row in cells:
        drawn.add_row(*(Text(cell) for cell in row))
    console.print(drawn)
