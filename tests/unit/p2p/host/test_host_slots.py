"""Payload that is sent from where it lies: byte for byte the same, whatever window there is and whatever is beside."""

import os
from collections.abc import Sequence

import pytest
import trio
from host_pair import LIMITS, RawPeer, against_raw_peer, connections, pipe_carriers, read_exactly, run, socket_carriers
from test_host_bulk import pair
from trio.testing import wait_all_tasks_blocked

from dimnode.p2p.host.noise_session import PLAIN_BYTES_MAX
from dimnode.p2p.host.yamux_frames import HEADER_BYTES, INITIAL_WINDOW_BYTES, SYN, DataPiece, Kind, encode_header
from dimnode.p2p.host.yamux_slots import PAYLOAD_BYTES_MAX, Slot, Slots

FULL = PAYLOAD_BYTES_MAX
HEAD = b"a head of it"
NOISE = os.urandom(20 * FULL)
SIZES = [1, 2, 4096, FULL - 1, FULL, FULL + 1, 2 * FULL - 1, 2 * FULL, 2 * FULL + 1, 5 * FULL + 17]


def laid(slots: Slots, content: bytes, head: bytes = HEAD) -> list[Slot]:
    """Slots that hold `head` and `content`, filled as a file fills them."""
    made, places = slots.lay(head, len(content))
    at = 0
    for place in places:
        place[:] = content[at : at + len(place)]
        at += len(place)
    assert at == len(content)
    return made


@pytest.mark.parametrize("head", [b"", b"h", HEAD])
def test_slots_are_cut_as_frames_travel_and_lie_where_nothing_else_does(head: bytes) -> None:
    for total in (total for size in SIZES for total in (size, size + len(head)) if total > len(head)):
        size = total - len(head)
        slots = Slots(total)
        made, places = slots.lay(head, size)
        assert [len(slot) for slot in made] == [FULL] * (total // FULL) + [total % FULL] * bool(total % FULL)
        assert sum(map(len, places)) == size
        for at, place in enumerate(places):
            place[:] = bytes([at + 1]) * len(place)
        found = b"".join(bytes(slot.payload) for slot in made)
        assert found[: len(head)] == head
        frames = [bytes(slot.framed(3)) for slot in made]
        assert all(frame[:HEADER_BYTES] == encode_header(0, 0, 3, len(frame) - HEADER_BYTES) for frame in frames)
        assert b"".join(frame[HEADER_BYTES:] for frame in frames) == found
        assert all(len(frame) <= PLAIN_BYTES_MAX for frame in frames)


def test_memory_that_is_laid_out_again_says_nothing_of_what_lay_there_before() -> None:
    slots = Slots(3 * FULL)
    laid(slots, NOISE[: 3 * FULL - len(HEAD)])
    for size in (1, FULL, 2 * FULL + 5, 7):
        made = laid(slots, NOISE[5 : 5 + size], b"h")
        assert b"".join(bytes(slot.payload) for slot in made) == b"h" + NOISE[5 : 5 + size]


@pytest.mark.parametrize(
    "carriers", [socket_carriers, lambda: socket_carriers(8192), pipe_carriers], ids=["socket", "tight", "relay"]
)
def test_what_lies_in_slots_arrives_as_it_lay_and_the_memory_may_be_used_again_at_once(carriers: object) -> None:
    async def scenario() -> None:
        async with connections(carriers()) as (a, b), trio.open_nursery() as nursery:  # type: ignore[operator]
            ours, theirs = await pair(a, b)
            slots = Slots(5 * FULL + 17 + len(HEAD))

            async def write() -> None:
                for size in SIZES:
                    made = laid(slots, NOISE[:size])
                    await ours.write(*made)
                    for slot in made:
                        slot.payload[:] = bytes(len(slot))

            nursery.start_soon(write)
            for size in SIZES:
                assert await read_exactly(theirs, len(HEAD) + size) == HEAD + NOISE[:size]
            assert theirs.unread_bytes == b.unread_bytes == 0
            assert ours.bytes_out - 1 == sum(SIZES) + len(SIZES) * len(HEAD)

    run(scenario)


def parts_of(slots: list[Slots]) -> tuple[list[bytes | memoryview | Slot], bytes]:
    """Slots among other bytes, and all of it in order."""
    first, second, third = laid(slots[0], NOISE[:FULL]), laid(slots[1], NOISE[:9]), laid(slots[2], NOISE[: 3 * FULL])
    parts: list[bytes | memoryview | Slot] = [b"begin", b"", *first, memoryview(NOISE)[: FULL + 3], *second]
    parts += [b"x", *third, memoryview(b""), *second, b"end"]
    alike = [bytes(part.payload) if isinstance(part, Slot) else bytes(part) for part in parts]
    return parts, b"".join(alike)


def test_slots_among_other_bytes_arrive_in_their_order() -> None:
    async def scenario() -> None:
        async with connections() as (a, b), trio.open_nursery() as nursery:
            ours, theirs = await pair(a, b)
            parts, whole = parts_of([Slots(4 * FULL) for _ in range(3)])
            nursery.start_soon(ours.write, *parts)
            assert await read_exactly(theirs, len(whole)) == whole

    run(scenario)


class Grantor:
    """Reads by hand, and grants what it wants to."""

    def __init__(self, peer: RawPeer) -> None:
        self.peer, self.got = peer, bytearray()
        self.frames: list[int] = []

    async def until(self, size: int) -> None:
        while len(self.got) < size:
            for frame in await self.peer.next_frames():
                if isinstance(frame, DataPiece) and frame.stream_id == 1:
                    self.got += frame.payload
                    if frame.first:
                        self.frames.append(frame.length)

    async def grant(self, size: int) -> None:
        await self.peer.send(encode_header(Kind.WINDOW, 0, 1, size))


GRANTS: Sequence[Sequence[int]] = [
    [1] * 40,
    [11, 12, 13],
    [FULL - 1, 1, FULL, 2, FULL + 1],
    [7, 3 * FULL],
    [FULL] * 3,
]


@pytest.mark.parametrize("grants", GRANTS, ids=lambda grants: f"{len(grants)} grants of {grants[0]} first")
@pytest.mark.parametrize("mixed", [False, True])
def test_a_peer_that_grants_few_bytes_at_a_time_gets_just_these_and_all_of_them_in_order(
    grants: Sequence[int], mixed: bool
) -> None:
    async def scenario() -> None:
        async with against_raw_peer() as (connection, peer), trio.open_nursery() as nursery:
            await peer.send(encode_header(Kind.WINDOW, SYN, 1, 0))
            stream = await connection.accept_stream()
            grantor, written = Grantor(peer), trio.Event()
            parts, whole = parts_of([Slots(4 * FULL) for _ in range(3)])
            if not mixed:
                parts, whole = list(laid(Slots(7 * FULL), NOISE[: 6 * FULL])), HEAD + NOISE[: 6 * FULL]

            async def write() -> None:
                await stream.write(*parts)
                written.set()

            nursery.start_soon(write)
            granted = INITIAL_WINDOW_BYTES
            await grantor.until(min(granted, len(whole)))
            for grant in grants:
                assert grantor.got == whole[:granted] and not written.is_set()
                await grantor.grant(grant)
                granted = min(granted + grant, len(whole))
                await grantor.until(granted)
            if granted < len(whole):
                await wait_all_tasks_blocked()
                assert not written.is_set()
                await grantor.grant(len(whole) - granted)
            await grantor.until(len(whole))
            await written.wait()
            assert grantor.got == whole and sum(grantor.frames) == len(whole)
            assert stream.bytes_out == len(whole)

    run(scenario)


def test_two_writers_of_slots_do_not_mix_and_what_is_small_waits_for_its_turn() -> None:
    async def scenario() -> None:
        async with connections() as (a, b), trio.open_nursery() as nursery:
            ours, theirs = await pair(a, b)
            size = INITIAL_WINDOW_BYTES + 5

            async def write(letter: bytes, times: int) -> None:
                slots = Slots(size)
                for _ in range(times):
                    await ours.write(*laid(slots, letter * size, b""))

            async with trio.open_nursery() as writers:
                writers.start_soon(write, b"a", 3)
                writers.start_soon(write, b"b", 3)
                await wait_all_tasks_blocked()
                assert not ours.write_nowait(b"small"), "it would lie in the middle"
                got = await read_exactly(theirs, 6 * size)
            runs = [got[at : at + size] for at in range(0, len(got), size)]
            assert sorted(bytes(each[:1]) for each in runs) == [b"a"] * 3 + [b"b"] * 3
            assert all(each == each[:1] * size for each in runs)
            assert ours.write_nowait(b"small")
            assert await read_exactly(theirs, 5) == b"small"
            nursery.cancel_scope.cancel()

    run(scenario)


def test_a_writer_that_is_cancelled_while_it_waits_for_its_turn_writes_nothing_and_takes_no_turn_from_another() -> None:
    async def scenario() -> None:
        async with connections() as (a, b), trio.open_nursery() as nursery:
            ours, theirs = await pair(a, b)
            first, cancelled, third = (
                laid(Slots(2 * INITIAL_WINDOW_BYTES), bytes([n]) * 300_000, b"") for n in (1, 2, 3)
            )
            scope = trio.CancelScope()

            async def give_up() -> None:
                with scope:
                    await ours.write(*cancelled)

            nursery.start_soon(ours.write, *first)
            await wait_all_tasks_blocked()
            nursery.start_soon(give_up)
            await wait_all_tasks_blocked()
            nursery.start_soon(ours.write, *third)
            await wait_all_tasks_blocked()
            scope.cancel()
            assert await read_exactly(theirs, 600_000) == b"\1" * 300_000 + b"\3" * 300_000
            await ours.write(b"!")
            assert await read_exactly(theirs, 1) == b"!"

    run(scenario)


@pytest.mark.parametrize("turns", [*range(6), None])
def test_a_cancelled_write_of_slots_sent_a_prefix_and_no_half_frame(turns: int | None) -> None:
    """Cancelled after so many turns of the loop; None: while it waits for window."""

    async def scenario() -> None:
        async with connections(socket_carriers(8192)) as (a, b), trio.open_nursery() as nursery:
            ours, theirs = await pair(a, b)
            content, scope = NOISE[: 10 * FULL], trio.CancelScope()

            async def write() -> None:
                with scope:
                    await ours.write(*laid(Slots(11 * FULL), content))

            nursery.start_soon(write)
            if turns is None:
                await wait_all_tasks_blocked()
            for _ in range(turns or 0):
                await trio.lowlevel.checkpoint()
            scope.cancel()
            await wait_all_tasks_blocked()

            async def write_after() -> None:
                await ours.write(b"after it")
                await ours.close()

            nursery.start_soon(write_after)
            got = await theirs.read()
            assert got.endswith(b"after it")
            assert (HEAD + content).startswith(got[: -len(b"after it")])
            other_ours, other_theirs = await pair(a, b)
            await other_ours.write(b"hello")
            assert await read_exactly(other_theirs, 5) == b"hello"

    run(scenario)


def test_a_write_of_slots_to_a_stream_that_is_lost_meanwhile_raises_and_the_next_writer_hears_it_too() -> None:
    async def scenario() -> None:
        async with connections() as (a, b), trio.open_nursery() as nursery:
            ours, theirs = await pair(a, b)
            heard: list[int] = []

            async def write(number: int) -> None:
                with pytest.raises(Exception, match="reset, or connection lost"):
                    await ours.write(*laid(Slots(6 * FULL), NOISE[: 5 * FULL]))
                heard.append(number)

            for number in range(3):
                nursery.start_soon(write, number)
            await wait_all_tasks_blocked()
            await theirs.reset()
            with trio.fail_after(LIMITS.close_seconds_max):
                while len(heard) < 3:
                    await wait_all_tasks_blocked()

    run(scenario)
