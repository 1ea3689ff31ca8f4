"""The DHT's questions on kept streams: framing, reuse, and peers that end or babble."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing
from host_pair import LIMITS, connections, run
from libp2p.kad_dht.pb.kademlia_pb2 import Message
from libp2p.stream_muxer.exceptions import MuxedStreamEOF, MuxedStreamError
from libp2p.utils import encode_varint_prefixed

from dimnode.p2p.host.kad_messages import KAD, KeptStreams, message, read_message
from dimnode.p2p.host.multistream import answer_proposals

PING = Message.MessageType.PING
ECHO = encode_varint_prefixed(message(PING).SerializeToString())


def is_ping(answer: Message) -> bool:
    return bool(answer.type == PING)


async def serve(b: Any, answers: Callable[[Any], Awaitable[None]], accepted: list[Any]) -> None:
    while True:
        stream = await b.accept_stream()
        accepted.append(stream)
        await answer_proposals(stream, (KAD,), LIMITS, stream.write)
        await answers(stream)


def asked(times: int, answers: Callable[[Any], Awaitable[None]]) -> int:
    """Ask so many times; how many streams that took."""
    accepted: list[Any] = []

    async def scenario() -> None:
        async with connections() as (a, b), trio.open_nursery() as nursery:
            nursery.start_soon(serve, b, answers, accepted)
            kept = KeptStreams(LIMITS)
            for _ in range(times):
                assert is_ping(await kept.exchange(a, (message(PING),), is_ping))
                await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

    run(scenario)
    return len(accepted)


async def answer_for_ever(stream: Any) -> None:
    try:
        while True:
            await read_message(stream, 1000)
            await stream.write(ECHO)
    except (MuxedStreamEOF, MuxedStreamError):
        pass


def test_many_questions_take_one_stream() -> None:
    assert asked(10, answer_for_ever) == 1


def test_a_server_that_ends_after_each_answer_gets_a_stream_for_each_question() -> None:
    async def answer_once(stream: Any) -> None:
        await read_message(stream, 1000)
        await stream.write(ECHO)
        await stream.close()

    assert asked(3, answer_once) == 3


def test_a_stream_on_which_more_came_than_was_asked_for_is_not_used_again() -> None:
    async def answer_twice(stream: Any) -> None:
        await read_message(stream, 1000)
        await stream.write(ECHO + ECHO)

    assert asked(3, answer_twice) == 3


def test_other_answers_than_the_one_asked_for_are_bounded() -> None:
    other = encode_varint_prefixed(message(Message.MessageType.FIND_NODE).SerializeToString())

    async def babble(stream: Any) -> None:
        await read_message(stream, 1000)
        await stream.write(other * 100)

    with pytest.raises(BaseExceptionGroup) as caught:
        asked(1, babble)
    assert caught.group_contains(ValueError)


@pytest.mark.parametrize("cut", [1, 2, 5])
@pytest.mark.parametrize("size", [0, 1, 127, 128, 20_000])
def test_a_message_is_read_whole_however_it_is_cut(cut: int, size: int) -> None:
    async def scenario() -> None:
        async with connections() as (a, b):
            ours = await a.open_stream()
            raw = encode_varint_prefixed(bytes(size)) * 2
            await ours.write(raw[:cut])
            theirs = await b.accept_stream()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ours.write, raw[cut:])
                for _ in range(2):
                    assert await read_message(theirs, 20_000) == bytes(size)
            await ours.close()
            with pytest.raises(MuxedStreamEOF):
                await read_message(theirs, 20_000)

    run(scenario)


@pytest.mark.parametrize("raw", [encode_varint_prefixed(bytes(20_001))[:3], b"\xff" * 6])
def test_a_long_message_is_refused_before_it_comes(raw: bytes) -> None:
    async def scenario() -> None:
        async with connections() as (a, b):
            ours = await a.open_stream()
            await ours.write(raw)
            with pytest.raises(ValueError, match=r"message|length"):
                await read_message(await b.accept_stream(), 20_000)

    run(scenario)
