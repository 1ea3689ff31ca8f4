"""Answering proposals of multistream-select, on whatever can be looked into before it is read.

Rule: nothing behind the line that decides is touched, and no line and no number of proposals is without a bound.

Source: https://github.com/multiformats/multistream-select
"""

from collections.abc import Awaitable, Callable, Collection
from typing import Final, Protocol

from dimnode.limits import HostLimits

NOT_AVAILABLE: Final = "na"
LIST: Final = "ls"
_LENGTH_BYTES_MAX: Final = 2


OTHER_ANSWER: Final = "another answer than the one proposed"
GREETING: Final = "/multistream/1.0.0"


def encode_line(text: str) -> bytes:
    """Return a multistream line: its length as a varint, the text, a newline."""
    line = text.encode() + b"\n"
    size = len(line)
    prefix = bytearray()
    while size > 127:
        prefix.append(size & 127 | 128)
        size >>= 7
    prefix.append(size)
    return bytes(prefix) + line


def proposal(protocol: str) -> bytes:
    """Return what both sides say when they agree: greeting and protocol id."""
    return encode_line(GREETING) + encode_line(protocol)


class Unnegotiable(Exception):
    """The other side does not speak multistream-select, or proposes nothing that we have."""


class Source(Protocol):
    """What a negotiation is read from."""

    def buffered(self) -> bytes:
        """What has arrived; it stays in place."""

    async def peek(self, n: int) -> bytes:
        """Wait until `n` bytes have arrived; fewer when no more will come."""

    def skip(self, n: int) -> None:
        """Drop `n` bytes that have arrived."""

    async def write(self, data: bytes) -> None:
        """Send."""


async def answer_proposals(
    source: Source, offered: Collection[str], limits: HostLimits, write_last: Callable[[bytes], Awaitable[None]]
) -> str:
    """Return the one of `offered` that the other side proposes. Raises `Unnegotiable`, and what the source raises.

    All that can be answered without waiting is answered in one piece, and the last of it by `write_last`.
    """
    answer = encode_line(GREETING)
    await expect(source, answer)  # at the first other byte: what speaks in another cipher promises lines of any length
    for _ in range(limits.proposals_per_stream_max):
        if not _line_is_there(source):
            await source.write(answer)
            answer = b""
        said = await read_line(source, limits.protocol_line_bytes_max)
        if said in offered:
            await write_last(answer + encode_line(said))
            return said
        answer += encode_line("\n".join(offered) + "\n") if said == LIST else encode_line(NOT_AVAILABLE)
    await source.write(answer)
    raise Unnegotiable("too many proposals")


async def expect(source: Source, wanted: bytes) -> None:
    """Take `wanted` from the source. Raises `Unnegotiable` at the first other byte."""
    there = b""
    while len(there) < len(wanted):
        more = await source.peek(len(there) + 1)
        if len(more) == len(there):
            raise Unnegotiable("the peer ended")
        there = more[: len(wanted)]
        if not wanted.startswith(there):
            raise Unnegotiable(OTHER_ANSWER)
    source.skip(len(wanted))


def _line_is_there(source: Source) -> bool:
    try:
        return _line_in(source.buffered()) is not None
    except Unnegotiable:
        return True


async def read_line(source: Source, bytes_max: int) -> str:
    """The next line, and not one byte more. Raises `Unnegotiable`, and what the source raises."""
    while True:
        there = source.buffered()
        if (found := _line_in(there)) is not None:
            start, end = found
            if end - start > bytes_max:
                raise Unnegotiable("a long line")
            source.skip(end)
            line = there[start:end]
            if not line.endswith(b"\n"):
                raise Unnegotiable("a line without an end")
            try:
                return line[:-1].decode()
            except UnicodeDecodeError:
                raise Unnegotiable("a line that is no text") from None
        if len(there) > bytes_max + _LENGTH_BYTES_MAX:
            raise Unnegotiable("a long line")
        if len(await source.peek(len(there) + 1)) <= len(there):
            raise Unnegotiable("the peer ended")


def _line_in(there: bytes) -> tuple[int, int] | None:
    """Start and end of the first line, None when it is not whole. Raises `Unnegotiable` for too long a one."""
    length = 0
    for at in range(min(len(there), _LENGTH_BYTES_MAX)):
        length |= (there[at] & 127) << (7 * at)
        if there[at] < 128:
            return (at + 1, at + 1 + length) if len(there) > at + length else None
    if len(there) >= _LENGTH_BYTES_MAX:
        raise Unnegotiable("a long line")
    return None
