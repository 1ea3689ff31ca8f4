"""Private networks: the cipher is libsodium's, keys are told apart, and whoever has none gets nothing."""

from collections.abc import Awaitable, Callable, Sequence

import nacl.bindings
import pytest
import trio
from host_pair import PipeCarrier, pipe_carriers, run
from hypothesis import given, settings
from hypothesis import strategies as st
from libp2p.security.pnet.psk_conn import PskConn

from dimnode.p2p.host.pnet import FIRST_BYTES, NONCE_BYTES, PrivateConnection, WrongKey, with_key, xsalsa20

OLD, NEW, OTHER = (bytes([number]) * 32 for number in (1, 2, 3))


def pair(dialler: Sequence[bytes], listener: Sequence[bytes], choice: int = 0) -> tuple[PrivateConnection, ...]:
    """Both ends over a pipe; the dialler uses the key that it chose."""
    a, b = pipe_carriers()
    a.is_initiator, b.is_initiator = True, False  # type: ignore[attr-defined]
    with with_key(dialler[choice]):
        return PrivateConnection(a, lambda: dialler), PrivateConnection(b, lambda: listener)


def together(*tasks: Callable[[], Awaitable[object]]) -> None:
    async def scenario() -> None:
        async with trio.open_nursery() as nursery:
            for task in tasks:
                nursery.start_soon(task)

    run(scenario)


async def read_all(connection: PrivateConnection, size: int) -> bytes:
    got = b""
    while len(got) < size:
        chunk = await connection.read(7)
        assert chunk
        got += chunk
    return got


@settings(max_examples=20, deadline=None)
@given(st.binary(min_size=32, max_size=32), st.binary(min_size=24, max_size=24), st.binary(max_size=200))
def test_the_cipher_is_xsalsa20_as_libsodium_has_it(key: bytes, nonce: bytes, message: bytes) -> None:
    # A secretbox is the message under the keystream from its 32nd byte on, behind a 16-byte authenticator.
    box = nacl.bindings.crypto_secretbox(message, nonce, key)
    assert xsalsa20(key, nonce).encrypt(bytes(32) + message)[32:] == box[16:]


@pytest.mark.parametrize(("choice", "listener"), [(0, [NEW]), (0, [NEW, OLD]), (1, [NEW, OLD]), (1, [OLD])])
def test_the_listener_finds_the_key_that_the_dialler_chose(choice: int, listener: list[bytes]) -> None:
    ours, theirs = pair([NEW, OLD], listener, choice)

    async def dial() -> None:
        await ours.write(FIRST_BYTES)
        await ours.write(b"and more")
        assert await read_all(ours, len(FIRST_BYTES) + 5) == FIRST_BYTES + b"reply"

    async def listen() -> None:
        await theirs.write(FIRST_BYTES)  # before anything was read, as multistream does
        assert await read_all(theirs, len(FIRST_BYTES) + 8) == FIRST_BYTES + b"and more"
        await theirs.write(b"reply")

    together(dial, listen)


@pytest.mark.parametrize(
    "sent", [b"", FIRST_BYTES, FIRST_BYTES + b"\x07/noise\n", bytes(10), bytes(NONCE_BYTES + len(FIRST_BYTES))]
)
def test_who_has_no_key_is_refused_and_gets_a_nonce_at_most(sent: bytes) -> None:
    plain, carrier = pipe_carriers()
    carrier.is_initiator = False  # type: ignore[attr-defined]
    listener = PrivateConnection(carrier, lambda: [NEW, OLD])

    async def stranger() -> None:
        await plain.write(sent)
        if len(sent) < len(FIRST_BYTES):
            await plain.close()

    async def listen() -> None:
        with pytest.raises(WrongKey, match="E-swarm-30"):
            await listener.write(FIRST_BYTES)
        with pytest.raises(WrongKey):
            await listener.read(1)

    if sent:
        together(stranger, listen)
    else:
        together(plain.close, listen)


def test_another_key_is_refused_on_both_sides() -> None:
    ours, theirs = pair([NEW, OLD], [OTHER])

    async def dial() -> None:
        await ours.write(FIRST_BYTES)
        with pytest.raises(WrongKey):
            await ours.read(1)

    async def listen() -> None:
        with pytest.raises(WrongKey):
            await theirs.read(1)
        await theirs.close()

    together(dial, listen)


def test_stock_private_networks_use_a_nonce_that_js_and_go_do_not() -> None:
    """When this fails, upstream speaks XSalsa20: `pnet.py` is then needed for the rotation of keys alone."""
    sent: list[bytes] = []

    class Sink(PipeCarrier):
        async def write(self, data: bytes) -> None:
            sent.append(data)

    async def scenario() -> None:
        channels = trio.open_memory_channel[bytes](1)
        await PskConn(Sink(*channels), NEW.hex()).write(b"x")  # type: ignore[arg-type]

    run(scenario)
    assert len(sent[0]) == 8 != NONCE_BYTES
