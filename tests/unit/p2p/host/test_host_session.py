"""The Noise session: order, size, loss, and what it keeps when idle."""

import gc
import random
import tracemalloc

import pytest
import trio
from host_pair import LIMITS, connections, pipe_carriers, read_exactly, run, sessions, socket_carriers

from dimnode.p2p.host.noise_session import BATCH_BYTES, PLAIN_BYTES_MAX, NoiseSession, SessionLost


async def collect(session: NoiseSession, size: int) -> bytes:
    got = bytearray()
    while len(got) < size:
        got += b"".join(await session.receive())
    return bytes(got)


@pytest.mark.parametrize("carriers", [socket_carriers, pipe_carriers])
def test_bytes_arrive_in_order_whatever_their_portions(carriers) -> None:
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    portions = [rng.randbytes(rng.choice([1, 12, 500, 65_000, PLAIN_BYTES_MAX])) for _ in range(60)]
    sent = b"".join(portions)

    async def scenario() -> None:
        a, b = sessions(carriers())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(a.pump)
            for portion in portions:
                a.put(portion)
                rng.choice([a.flush, a.kick])()
            assert await collect(b, len(sent)) == sent, f"seed {seed}"
            nursery.cancel_scope.cancel()

    run(scenario)


def test_a_cancelled_receive_loses_nothing() -> None:
    async def scenario() -> None:
        a, b = sessions()
        for _ in range(20):
            with trio.move_on_after(0):
                await b.receive()
            a.put(b"x" * 1000)
            a.flush()
        assert len(await collect(b, 20_000)) == 20_000

    run(scenario)


def test_a_damaged_message_ends_the_session() -> None:
    async def scenario() -> None:
        carriers = socket_carriers()
        _, b = sessions(carriers)
        await carriers[0].write((20).to_bytes(2, "big") + bytes(20))
        with pytest.raises(SessionLost, match="decrypt"):
            await b.receive()

    run(scenario)


def test_the_end_of_the_carrier_is_told() -> None:
    async def scenario() -> None:
        a, b = sessions()
        await a.close()
        with pytest.raises(SessionLost, match="closed"):
            await b.receive()

    run(scenario)


def test_a_writer_waits_while_the_socket_is_full_and_goes_on_afterwards() -> None:
    async def scenario() -> None:
        a, b = sessions(socket_carriers(buffer_bytes=4096))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(a.pump)
            a.put(b"y" * 60_000)
            a.flush()
            assert not a.has_room()
            nursery.start_soon(collect, b, 60_000)
            await a.wait_room()
            assert a.has_room()
            nursery.cancel_scope.cancel()

    run(scenario)


@pytest.mark.slow
def test_an_idle_connection_keeps_less_than_64_kib() -> None:
    async def transfer() -> None:
        async with connections() as (a, b):
            outgoing = await a.open_stream()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(outgoing.write, bytes(1_000_000))
                incoming = await b.accept_stream()
                await read_exactly(incoming, 1_000_000)
            gc.collect()
            tracemalloc.start()
            before = tracemalloc.take_snapshot()
            async with connections() as (c, d):
                stream = await c.open_stream()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(stream.write, bytes(1_000_000))
                    await read_exactly(await d.accept_stream(), 1_000_000)
                gc.collect()
                after = tracemalloc.take_snapshot()
            tracemalloc.stop()
        grown = sum(difference.size_diff for difference in after.compare_to(before, "filename"))
        scratch = 3 * BATCH_BYTES  # once per host, shared by all its connections
        assert (grown - scratch) / 2 < 64 * 1024

    run(transfer)
    assert LIMITS.session_unsent_bytes_max >= PLAIN_BYTES_MAX
