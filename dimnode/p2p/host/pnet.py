"""Private networks: everything on a connection encrypted with a pre-shared key, before anything is negotiated.

Each side sends a random 24-byte nonce once and then XORs all it sends with the XSalsa20 keystream of key and nonce.
It hides what is spoken from whoever has no key; who the peers are is still proved by Noise, inside. Wire compatible
with js `@libp2p/pnet` and go-libp2p: stock py-libp2p 0.8.1 uses Salsa20 with an 8-byte nonce and meets only itself.

While a key is being replaced several are valid. The dialler tries them one after the other, the newest first, directly
and through relays; the listener tells which one it is by the first bytes, which are always those of multistream.

Rule: nothing is answered before the first bytes made sense under a valid key.

Source: https://github.com/libp2p/specs/blob/master/pnet/Private-Networks-PSK-V1.md, HSalsa20: cr.yp.to/snuffle/xsalsa
"""

import os
import struct
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, TypeVar

import libp2p.network.swarm as swarm_module
import trio
from Crypto.Cipher import Salsa20
from libp2p.abc import IRawConnection
from libp2p.network.connection.exceptions import RawConnError
from libp2p.network.exceptions import SwarmException
from libp2p.security.pnet.protector import new_protected_conn as stock_protect

from dimnode.p2p.host.multistream import GREETING, encode_line

NONCE_BYTES: Final = 24
FIRST_BYTES: Final = encode_line(GREETING)
MISMATCH: Final = "E-swarm-30: the other side does not use this swarm's pre-shared key"
_WORDS: Final = 0xFFFFFFFF

Keys = Callable[[], Sequence[bytes]]
"""The 32-byte keys that are valid now, the newest first."""

T = TypeVar("T")

_chosen: ContextVar[bytes] = ContextVar("pnet_key", default=b"")


class WrongKey(RawConnError):
    """The other side has no key of ours, or no key at all."""


def hsalsa20(key: bytes, nonce: bytes) -> bytes:
    """The 32-byte subkey of a 32-byte key and 16 bytes of nonce."""
    k, n, c = struct.unpack("<8I", key), struct.unpack("<4I", nonce), struct.unpack("<4I", b"expand 32-byte k")
    x = [c[0], *k[:4], c[1], *n, c[2], *k[4:], c[3]]

    def quarter(a: int, b: int, d: int, e: int) -> None:
        for target, left, right, shift in ((b, a, e, 7), (d, b, a, 9), (e, d, b, 13), (a, e, d, 18)):
            total = (x[left] + x[right]) & _WORDS
            x[target] ^= (total << shift | total >> (32 - shift)) & _WORDS

    for _ in range(10):
        for columns in ((0, 4, 8, 12), (5, 9, 13, 1), (10, 14, 2, 6), (15, 3, 7, 11)):
            quarter(*columns)
        for rows in ((0, 1, 2, 3), (5, 6, 7, 4), (10, 11, 8, 9), (15, 12, 13, 14)):
            quarter(*rows)
    return struct.pack("<8I", *(x[word] for word in (0, 5, 10, 15, 6, 7, 8, 9)))


def xsalsa20(key: bytes, nonce: bytes) -> Any:
    """The stream cipher of a 32-byte key and a 24-byte nonce."""
    return Salsa20.new(key=hsalsa20(key, nonce[:16]), nonce=nonce[16:])


class PrivateConnection(IRawConnection):
    """A raw connection on which only ciphertext travels. Reads and writes raise `WrongKey` at a mismatch."""

    def __init__(self, carrier: Any, keys: Keys) -> None:
        valid = list(keys())
        self.is_initiator = bool(carrier.is_initiator)
        self._carrier = carrier
        if self.is_initiator:  # it has chosen before it dialled; the listener finds out which key that is
            valid = [key for key in valid if key == _chosen.get()] or valid[:1]
        self._candidates = valid
        self.key = self._candidates[0] if self._candidates else b""
        self._nonce = os.urandom(NONCE_BYTES)
        self._unsaid = self._nonce
        self._opening = trio.Lock()
        self._incoming: Any = None
        self._outgoing: Any = None
        self._early = b""  # decrypted while the key was looked for

    async def write(self, data: bytes) -> None:
        """Encrypt and send; the listener's first write waits for the dialler's first bytes."""
        if self._outgoing is None:
            if not self.is_initiator:
                await self._open()
            if not self.key:
                raise WrongKey(MISMATCH)  # every key of ours has run out
            self._outgoing = xsalsa20(self.key, self._nonce)
        unsaid, self._unsaid = self._unsaid, b""
        await self._carrier.write(unsaid + self._outgoing.encrypt(bytes(data)))

    async def read(self, n: int | None = None) -> bytes:
        """Receive and decrypt up to `n` bytes; nothing at the end."""
        if self._incoming is None:
            await self._open()
        if self._early:
            n = len(self._early) if n is None else n
            taken, self._early = self._early[:n], self._early[n:]
            return taken
        received = await self._carrier.read(n)
        return bytes(self._incoming.decrypt(received)) if received else b""

    async def _open(self) -> None:
        """Read the nonce and the first bytes, and find the key under which they are multistream's.

        A listener says its own nonce before: js sends nothing else until it has it.
        """
        async with self._opening:
            if self._incoming is None:
                if not self.is_initiator and self._unsaid:
                    await self._say_nonce()
                candidates, self._candidates = self._candidates, []  # one try: a second one would read later bytes
                head = await self._read_head() if candidates else b""
                self._choose(candidates, head)

    async def _say_nonce(self) -> None:
        unsaid, self._unsaid = self._unsaid, b""
        try:
            await self._carrier.write(unsaid)
        except Exception:  # noqa: BLE001 boundary: as below, it hung up already
            raise WrongKey(MISMATCH) from None

    async def _read_head(self) -> bytes:
        head = b""
        while len(head) < NONCE_BYTES + len(FIRST_BYTES):
            try:
                chunk = await self._carrier.read(NONCE_BYTES + len(FIRST_BYTES) - len(head))
            except Exception:  # noqa: BLE001 boundary: a listener without our key hangs up, in one of many words
                raise WrongKey(MISMATCH) from None
            head += chunk
            if not chunk or head.startswith(FIRST_BYTES):  # hung up, or speaks in the clear
                raise WrongKey(MISMATCH)
        return head

    def _choose(self, candidates: Sequence[bytes], head: bytes) -> None:
        for key in candidates:
            cipher = xsalsa20(key, head[:NONCE_BYTES])
            if cipher.decrypt(head[NONCE_BYTES:]) == FIRST_BYTES:
                self.key, self._incoming, self._early = key, cipher, FIRST_BYTES
                return
        raise WrongKey(MISMATCH)

    async def close(self) -> None:
        """Close the carrier."""
        await self._carrier.close()

    def get_remote_address(self) -> tuple[str, int] | None:
        """Delegate to the carrier."""
        return self._carrier.get_remote_address()

    def get_transport_addresses(self) -> list[Any]:
        """Delegate to the carrier."""
        return list(self._carrier.get_transport_addresses())

    def get_connection_type(self) -> Any:
        """Delegate to the carrier."""
        return self._carrier.get_connection_type()


def protect(carrier: Any, keys: Any) -> Any:
    """What libp2p calls for each raw connection of a private network: ours for our keys, else its own."""
    return PrivateConnection(carrier, keys) if callable(keys) else stock_protect(carrier, keys)


def install(swarm: Any, keys: Keys) -> None:
    """Make a swarm private: every connection of it, dialled or accepted, uses one of `keys()`."""
    swarm_module.new_protected_conn = protect
    swarm.psk = keys
    dial = swarm.dial_addr

    async def dial_with_each_key(*where: Any, **how: Any) -> Any:
        return await with_each_key(keys, lambda: dial(*where, **how))

    swarm.dial_addr = dial_with_each_key


@contextmanager
def with_key(key: bytes) -> Iterator[None]:
    """What is dialled inside uses this key as long as it is valid, else the newest."""
    token = _chosen.set(key)
    try:
        yield
    finally:
        _chosen.reset(token)


async def with_each_key(keys: Keys | None, dial: Callable[[], Awaitable[T]]) -> T:
    """Dial with one key after the other until one is the other side's; once in a swarm without (`keys` None).

    Raises `SwarmException` when none is, and what `dial` raises for another reason at once.
    """
    tried = [b""] if keys is None else list(keys())
    for count, key in enumerate(tried, 1):
        with with_key(key):
            try:
                return await dial()
            except SwarmException as error:
                if count == len(tried) or not _is_mismatch(error):
                    raise
    raise SwarmException(MISMATCH)  # no key is valid any more: this node was away for too long


def key_of(muxed: Any) -> bytes:
    """The key under which a connection was made, so that both sides have it; none in a swarm without."""
    carrier = muxed.session.carrier
    while carrier is not None and not isinstance(carrier, PrivateConnection):
        carrier = getattr(carrier, "_carrier", None)
    return carrier.key if carrier is not None else b""


def _is_mismatch(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, WrongKey) or MISMATCH in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False
