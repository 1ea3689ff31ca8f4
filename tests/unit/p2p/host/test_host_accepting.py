"""How inbound streams agree on a protocol and how a connection begins: pieces, limits, bytes that are not theirs."""

import itertools
from typing import Any

import pytest
import trio
from host_pair import LIMITS, connections, read_exactly, run
from hypothesis import given, settings
from hypothesis import strategies as st
from libp2p.protocol_muxer.exceptions import MultiselectError

from dimnode.p2p.host.handshaking import EagerCarrier
from dimnode.p2p.host.lazy import open_negotiated
from dimnode.p2p.host.multistream import (
    LIST,
    NOT_AVAILABLE,
    Unnegotiable,
    answer_proposals,
    encode_line,
    proposal,
)

GREETING = proposal("x")[: -len(encode_line("x"))]
OFFERED = ("/a/1", "/b/1")


class Pieces:
    """A source whose bytes come in given pieces, and what was written to it in return."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = list(pieces)
        self._there = b""
        self.written: list[bytes] = []

    def buffered(self) -> bytes:
        return self._there

    async def peek(self, n: int) -> bytes:
        while len(self._there) < n and self._pieces:
            self._there += self._pieces.pop(0)
        return self._there

    def skip(self, n: int) -> None:
        self._there = self._there[n:]

    async def read(self, n: int | None = None) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""

    async def write(self, data: bytes) -> None:
        self.written.append(data)

    def all_that_came(self) -> bytes:
        return self._there + b"".join(self._pieces)


def negotiate(source: Pieces) -> str:
    async def scenario() -> str:
        return await answer_proposals(source, OFFERED, LIMITS, source.write)

    return str(trio.run(scenario))


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 70), max_size=6), st.booleans())
def test_whatever_the_pieces_the_same_protocol_is_agreed_and_no_payload_is_touched(
    cuts: list[int], asks_first: bool
) -> None:
    said = GREETING + (encode_line("/none/1") if asks_first else b"") + encode_line("/b/1") + b"payload"
    places = sorted({0, len(said), *(cut % len(said) for cut in cuts)})
    source = Pieces(*(said[start:end] for start, end in itertools.pairwise(places)))
    assert negotiate(source) == "/b/1"
    assert source.all_that_came() == b"payload"
    refused = encode_line(NOT_AVAILABLE) if asks_first else b""
    assert b"".join(source.written) == GREETING + refused + encode_line("/b/1")


def test_a_whole_proposal_is_answered_in_one_piece() -> None:
    source = Pieces(proposal("/a/1"))
    assert negotiate(source) == "/a/1"
    assert source.written == [proposal("/a/1")]


def test_a_list_is_given_on_request() -> None:
    source = Pieces(GREETING + encode_line(LIST), encode_line("/a/1"))
    negotiate(source)
    assert encode_line("/a/1\n/b/1\n") in b"".join(source.written)


@pytest.mark.parametrize(
    "said",
    [
        b"",
        GREETING,
        GREETING[:-1] + b"x",
        b"\xff\xff\xff\xff" + bytes(40),
        GREETING + b"\xff\x7f" + bytes(20_000),
        GREETING + b"\x80\x80\x01" + bytes(20_000),
        GREETING + encode_line("/" + "a" * 2000) + encode_line("/a/1"),
        GREETING + b"\x03\xff\xfe\n",
        GREETING + b"\x05/a/1x",
        GREETING + encode_line("/none/1") * LIMITS.proposals_per_stream_max + encode_line("/a/1"),
    ],
)
def test_what_is_no_negotiation_ends_it(said: bytes) -> None:
    with pytest.raises(Unnegotiable):
        negotiate(Pieces(said))


def test_another_cipher_is_found_out_at_its_first_bytes() -> None:
    source = Pieces(b"\x7f" + bytes(20))  # promises a line of 127 bytes that never comes
    with pytest.raises(Unnegotiable, match="another"):
        negotiate(source)


def test_a_dialler_sends_all_it_can_before_it_waits_and_reads_nothing_twice() -> None:
    async def scenario() -> None:
        raw = Pieces(proposal("/noise") + b"and more", b" later")
        carrier = EagerCarrier(raw)
        await carrier.write(proposal("/noise"))
        carrier.expect(proposal("/noise"))
        await carrier.write(b"first message")
        assert raw.written == []
        assert await carrier.read(3) == b"and"
        assert raw.written == [proposal("/noise") + b"first message"]
        await carrier.write(b"held")
        assert carrier.rest() == (b" more", b"held")

    trio.run(scenario)


def test_a_peer_that_does_not_echo_the_proposal_is_refused() -> None:
    async def scenario() -> None:
        carrier = EagerCarrier(Pieces(GREETING + encode_line(NOT_AVAILABLE)))
        carrier.expect(proposal("/noise"))
        with pytest.raises(MultiselectError):
            await carrier.read(2)

    trio.run(scenario)


def test_answer_and_payload_of_a_lazy_stream_cross_in_one_message_each() -> None:
    async def scenario() -> None:
        async with connections() as (a, b):
            ours = await open_negotiated(a, "/a/1", lazy=True)
            before = b.session._outgoing._nonce
            await ours.write(b"question")
            theirs: Any = await b.accept_stream()

            async def later(said: bytes) -> None:
                assert theirs.write_nowait(said, later=True)

            assert await answer_proposals(theirs, OFFERED, LIMITS, later) == "/a/1"
            assert await read_exactly(theirs, 8) == b"question"
            await theirs.write(b"answer")
            assert await read_exactly(ours, 6) == b"answer"
            assert b.session._outgoing._nonce - before <= 2

    run(scenario)
