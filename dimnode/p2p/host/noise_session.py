"""An event-driven Noise session over the finished libp2p Noise handshake.

Stock libp2p reads each Noise message with two locked reads and writes it inside the caller's task, so that cancelling
a caller can cut a message in half and with it the whole connection. Here one system call reads up to 320 KiB, all
messages in it are decrypted at once, and sending is `put` (collect) and `flush` (encrypt, one non-blocking write),
neither of which can be interrupted. What the socket does not take is sent by `pump`, the one task that waits for it.

Rule: no `await` between the first and the last byte of a Noise message.

An idle session holds no buffers: `Scratch` is shared by all sessions of a host, and is only used between two awaits.

Source: https://github.com/libp2p/specs/tree/master/noise (2-byte length, ChaCha20-Poly1305 with a counter nonce).
"""

import os
import socket
import struct
from collections import deque
from typing import Any, Final

import trio
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.io.trio import TrioTCPStream
from libp2p.security.noise.messages import NoiseHandshakePayload
from libp2p.security.noise.patterns import PatternXX
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.security.secure_session import SecureSession

from dimnode.limits import HostLimits
from dimnode.posix.sockets import readv, tcp_info

NOISE_MESSAGE_BYTES_MAX: Final = 65535
TAG_BYTES: Final = 16
PLAIN_BYTES_MAX: Final = NOISE_MESSAGE_BYTES_MAX - TAG_BYTES
BATCH_BYTES: Final = 5 * (2 + NOISE_MESSAGE_BYTES_MAX)  # per system call: five full messages, all that may be unsent
_LONG_BYTES: Final = 4096  # where memory of its own begins to cost more than a view of the scratch
_NONCE_PREFIX: Final = b"\0\0\0\0"
_TCP_INFO_BYTES: Final = 152  # of Linux's `struct tcp_info`, up to and with the shortest round trip in microseconds
_MIN_ROUND_TRIP_AT: Final = 148


class SessionLost(ConnectionClosedError):
    """The connection below the session is gone, or the peer broke the encryption; `str()` says which."""


class Scratch:
    """Working memory of one host (one thread): read, decrypt and encrypt here, never across an `await`."""

    __slots__ = ("incoming", "outgoing", "plain")

    def __init__(self) -> None:
        self.incoming = memoryview(bytearray(BATCH_BYTES))
        self.plain = memoryview(bytearray(BATCH_BYTES))
        self.outgoing = memoryview(bytearray(BATCH_BYTES))


class OutgoingCipher:
    """Packs plaintext into Noise messages inside the scratch buffer."""

    __slots__ = ("_cipher", "_nonce", "_scratch")

    def __init__(self, key: bytes, nonce: int, scratch: Scratch) -> None:
        self._cipher = ChaCha20Poly1305(key)
        self._nonce = nonce
        self._scratch = scratch

    def seal_some(self, parts: deque[bytes | memoryview]) -> tuple[int, int]:
        """Encrypt from the left of `parts` until they or the scratch end; return (ciphertext, plaintext) bytes."""
        out = self._scratch.outgoing
        filled = consumed = 0
        while parts and BATCH_BYTES - filled >= 2 + NOISE_MESSAGE_BYTES_MAX:
            message: list[bytes | memoryview] = []
            size = 0
            while parts and size + len(parts[0]) <= PLAIN_BYTES_MAX:
                part = parts.popleft()
                message.append(part)
                size += len(part)
            plain = message[0] if len(message) == 1 else b"".join(message)
            until = filled + 2 + size + TAG_BYTES
            out[filled : filled + 2] = (size + TAG_BYTES).to_bytes(2, "big")
            nonce = _NONCE_PREFIX + self._nonce.to_bytes(8, "little")
            self._cipher.encrypt_into(nonce, plain, None, out[filled + 2 : until])
            self._nonce += 1
            filled = until
            consumed += size
        return filled, consumed


class IncomingCipher:
    """Opens Noise messages; keeps the incomplete rest (under 64 KiB, and nothing when the line is idle)."""

    __slots__ = ("_cipher", "_nonce", "_scratch", "rest")

    def __init__(self, key: bytes, nonce: int, scratch: Scratch) -> None:
        self._cipher = ChaCha20Poly1305(key)
        self._nonce = nonce
        self._scratch = scratch
        self.rest = b""

    def open_all(self, view: memoryview) -> list[bytes | memoryview]:
        """Return the plaintext of each complete message in `view`, which begins with `rest`: long ones in the scratch.

        Raises `SessionLost`.
        """
        plaintexts: list[bytes | memoryview] = []
        at, end, filled = 0, len(view), 0
        while end - at >= 2:
            size = (view[at] << 8) | view[at + 1]
            if end - at - 2 < size:
                break
            nonce = _NONCE_PREFIX + self._nonce.to_bytes(8, "little")
            sealed = view[at + 2 : at + 2 + size]
            plain: bytes | memoryview
            try:
                if size < _LONG_BYTES:
                    plain = self._cipher.decrypt(nonce, sealed, None)
                else:
                    plain = self._scratch.plain[filled : filled + size - TAG_BYTES]
                    self._cipher.decrypt_into(nonce, sealed, None, plain)
                    filled += len(plain)
            except InvalidTag:
                raise SessionLost("noise message does not decrypt", transport="tcp") from None
            if plain:
                plaintexts.append(plain)
            self._nonce += 1
            at += 2 + size
        self.rest = bytes(view[at:])
        return plaintexts


class NoiseSession(SecureSession):
    """Encrypted bytes both ways for one muxer. `receive` is for one task; `put`, `flush` and `kick` for any."""

    def __init__(self, handshaken: SecureSession, carrier: Any, scratch: Scratch, unsent_bytes_max: int) -> None:
        super().__init__(
            local_peer=handshaken.local_peer,
            local_private_key=handshaken.local_private_key,
            remote_peer=handshaken.remote_peer,
            remote_permanent_pubkey=handshaken.remote_permanent_pubkey,
            is_initiator=handshaken.is_initiator,
            conn=handshaken.conn,
        )
        noise = handshaken.conn.noise_state.noise_protocol
        sending, receiving = noise.cipher_state_encrypt, noise.cipher_state_decrypt
        self.carrier = carrier
        self.lost = False
        self.corked = False  # the muxer woke several streams: their answers leave together, from `pump`
        self._scratch = scratch
        self._unsent_bytes_max = unsent_bytes_max
        self._outgoing = OutgoingCipher(bytes(sending.k), sending.n, scratch)
        self._incoming = IncomingCipher(bytes(receiving.k), receiving.n, scratch)
        self._socket: Any = plain_socket(carrier)
        self._plain: deque[bytes | memoryview] = deque()  # not yet encrypted; each part fits in one message
        self._plain_bytes = 0
        self._backlog = memoryview(b"")  # encrypted, refused by the socket for now
        self._pumping = False
        self._kicked = False
        self._kick_lot = trio.lowlevel.ParkingLot()
        self._room_lot = trio.lowlevel.ParkingLot()
        self._unread = b""

    def go_on_with(self, ahead: bytes, held: bytes) -> None:
        """The handshake read `ahead` of itself, and did not send what it `held`. Raises `SessionLost`."""
        self._unread += b"".join(self._incoming.open_all(memoryview(ahead)))
        self._backlog = memoryview(held)

    # What the negotiation of the muxer needs, before `pump` runs

    def buffered(self) -> bytes:
        """What has arrived and was not read; it stays in place."""
        return self._unread

    async def peek(self, n: int) -> bytes:
        """Wait until `n` bytes have arrived. Raises `SessionLost` at the end."""
        while len(self._unread) < n:
            self._unread += b"".join(self._incoming.open_all(await self._read_batch()))
        return self._unread

    def skip(self, n: int) -> None:
        """Drop `n` bytes that have arrived."""
        self._unread = self._unread[n:]

    # Receiving

    async def receive(self) -> list[bytes | memoryview]:
        """Wait for one read's worth of plaintexts, at least one. Views are of memory used again after an `await`.

        Raises `SessionLost` at the end of the connection.
        """
        if self._unread:
            unread, self._unread = self._unread, b""
            return [unread]
        while True:
            plaintexts = self._incoming.open_all(await self._read_batch())
            if plaintexts:
                return plaintexts

    async def _read_batch(self) -> memoryview:
        """Return the incomplete rest of the last batch and what one read adds to it, in the scratch buffer."""
        incoming, rest = self._scratch.incoming, self._incoming.rest
        start = len(rest)
        if self._socket is None:
            chunk = await self.carrier.read(BATCH_BYTES - start)
            count = len(chunk)
            incoming[start : start + count] = chunk
        else:
            count = await self._read_socket(incoming[start:])
        if count == 0:
            raise SessionLost("the peer closed the connection", transport="tcp")
        incoming[:start] = rest
        return incoming[: start + count]

    async def _read_socket(self, target: memoryview) -> int:
        sock = self._socket
        while True:
            try:
                await trio.lowlevel.wait_readable(sock)
                return readv(sock.fileno(), (target,))
            except BlockingIOError:
                continue
            except (OSError, trio.ClosedResourceError) as error:
                raise SessionLost(str(error) or "closed here", transport="tcp") from error

    async def read(self, n: int | None = None) -> bytes:
        """Read exactly `n` bytes (or what is there): only for negotiating the muxer, before `pump` runs."""
        await self.peek(1 if n is None else n)
        taken, self._unread = self._unread[:n], self._unread[len(self._unread) if n is None else n :]
        return taken

    # Sending: nothing here awaits, so no caller can be cancelled inside a message

    def has_room(self) -> bool:
        """Whether a writer may put more; control frames may be put in any case."""
        return not self._backlog and self._plain_bytes < self._unsent_bytes_max

    def put(self, *parts: bytes | memoryview) -> None:
        """Collect plaintext, a header and its payload: never to change before it is encrypted; each fits a message."""
        for part in parts:
            assert len(part) <= PLAIN_BYTES_MAX
            self._plain.append(part)
            self._plain_bytes += len(part)

    def flush(self) -> None:
        """Encrypt and write what was collected, as far as the socket takes it now; `pump` sends the rest."""
        if self.lost:
            self._plain.clear()
            self._plain_bytes = 0
            return
        if self._socket is None or self._backlog:
            self.kick()
            return
        while self._plain:
            filled, consumed = self._outgoing.seal_some(self._plain)
            self._plain_bytes -= consumed
            sent = self._write_socket(self._scratch.outgoing[:filled])
            if sent < filled:
                self._backlog = memoryview(bytes(self._scratch.outgoing[sent:filled]))
                self.kick()
                return

    def _write_socket(self, view: memoryview) -> int:
        """Write once without waiting; a dead socket swallows everything and is noticed by the reader."""
        assert self._socket is not None
        try:
            return os.write(self._socket.fileno(), view)
        except BlockingIOError:
            return 0
        except OSError:
            self._lose()
            return len(view)

    @property
    def collected_bytes(self) -> int:
        """Plaintext bytes that were put and not yet encrypted."""
        return self._plain_bytes

    def flush_if_pending(self) -> None:
        """Flush what waits for company, unless the pump is about to: called by a task that goes to sleep."""
        if self._plain and not self.corked:
            self.flush()

    def kick(self) -> None:
        """Let `pump` flush in its next turn."""
        if not self._kicked:
            self._kicked = True
            self._kick_lot.unpark()

    async def pump(self) -> None:
        """Send what `flush` could not; runs until cancelled. Raises `SessionLost`."""
        self._pumping = True
        try:
            while True:
                if not self._kicked:
                    await self._kick_lot.park()
                await trio.lowlevel.checkpoint()  # every task woken in this pass adds its frames to the same message
                self._kicked = False
                await self._drain()
                self.corked = False
        finally:
            self._pumping = False

    async def finish(self) -> None:
        """Wait until everything collected is with the kernel; the caller sets the deadline. Raises `SessionLost`."""
        if not self._pumping:
            await self._drain()
            return
        self.kick()
        while (self._backlog or self._plain) and not self.lost:
            await self._room_lot.park()

    async def _drain(self) -> None:
        # One task at a time waits for the socket: `pump`, or before it runs whoever negotiates the muxer.
        while self._backlog or self._plain:
            if self.lost:
                raise SessionLost("connection lost", transport="tcp")
            if not self._backlog:
                filled, consumed = self._outgoing.seal_some(self._plain)
                self._plain_bytes -= consumed
                if self._socket is not None:
                    sent = self._write_socket(self._scratch.outgoing[:filled])
                else:
                    sent = 0
                self._backlog = memoryview(bytes(self._scratch.outgoing[sent:filled]))
                continue
            await self._send_backlog()
        self._room_lot.unpark_all()

    async def _send_backlog(self) -> None:
        if self._socket is None:
            # The part that is being sent stays in the backlog meanwhile, so that nobody writes past it.
            try:
                await self.carrier.write(bytes(self._backlog))
            except Exception as error:  # boundary: each carrier has its own words for being gone
                self._lose()
                raise SessionLost(repr(error), transport="carrier") from error
            self._backlog = memoryview(b"")
            return
        try:
            await trio.lowlevel.wait_writable(self._socket)
        except (OSError, trio.ClosedResourceError) as error:
            self._lose()
            raise SessionLost(str(error) or "closed here", transport="tcp") from error
        rest = self._backlog[self._write_socket(self._backlog) :]
        self._backlog = rest or memoryview(b"")  # an empty slice would keep all of the sent bytes alive

    async def wait_room(self) -> None:
        """Park until `has_room()`. Raises `SessionLost`."""
        while not self.has_room() and not self.lost:
            await self._room_lot.park()
        if self.lost:
            raise SessionLost("connection lost", transport="tcp")

    async def wait_encrypted(self) -> None:
        """Park until nothing that was put is needed any more. The end of the connection is told to the next writer."""
        while self._plain and not self.lost:
            self.kick()
            await self._room_lot.park()

    async def write(self, data: bytes) -> None:
        """Send `data`: only for negotiating the muxer, before `pump` runs."""
        for start in range(0, len(data), PLAIN_BYTES_MAX):
            self.put(data[start : start + PLAIN_BYTES_MAX])
        await self.finish()

    def _lose(self) -> None:
        self.lost = True
        self._plain.clear()
        self._plain_bytes = 0
        self._backlog = memoryview(b"")
        self._room_lot.unpark_all()

    async def close(self) -> None:
        """Drop what is unsent and close the carrier."""
        self._lose()
        await self.carrier.close()


def plain_socket(carrier: Any) -> Any:
    """Return the TCP socket below `carrier`, or None when there is something else there (a relay)."""
    tcp: Any = getattr(carrier, "stream", None)
    if type(tcp) is not TrioTCPStream:
        return None
    stream = tcp.stream
    return stream.socket if isinstance(stream, trio.SocketStream) else None


def let_kernel_hold(sock: Any, near_seconds: float, unsent_bytes: int) -> None:
    """Let the kernel take so many bytes ahead of what it may send, to a peer whose round trip is shorter than that.

    Trio asks for 16 KiB, so that what is small and urgent need not wait in the kernel behind what is large: right for
    a slow line. On a fast one that refuses half of all large writes, and each refusal costs a turn of the pump.
    """
    try:
        said = tcp_info(sock, _TCP_INFO_BYTES)
        (round_trip_us,) = struct.unpack_from("=I", said, _MIN_ROUND_TRIP_AT)
        if round_trip_us < near_seconds * 1e6:
            sock.setsockopt(socket.IPPROTO_TCP, trio.socket.TCP_NOTSENT_LOWAT, unsent_bytes)
    except (OSError, AttributeError, struct.error):  # no TCP, or a system that does not say: as trio has it
        return


class KeptPattern(PatternXX):
    """The stock handshake, which signs the same words about the same key for each connection: once is enough."""

    kept: NoiseHandshakePayload | None = None

    def make_handshake_payload(self, extensions: Any = None) -> NoiseHandshakePayload:
        """Say who we are, signed."""
        if self.kept is None or extensions is not None:
            return super().make_handshake_payload(extensions)
        return self.kept


class EventNoise(NoiseTransport):
    """The stock Noise handshake, continued by a `NoiseSession`."""

    def __init__(self, key_pair: Any, noise_key: Any, limits: HostLimits) -> None:
        super().__init__(libp2p_keypair=key_pair, noise_privkey=noise_key)
        self._scratch = Scratch()
        self._limits = limits
        self._payload = self.get_pattern().make_handshake_payload()

    def get_pattern(self) -> KeptPattern:
        """How to shake hands: by XX, and with what was signed before."""
        pattern = KeptPattern(self.local_peer, self.libp2p_privkey, self.noise_privkey, self.early_data)
        pattern.kept = getattr(self, "_payload", None)
        return pattern

    async def secure_inbound(self, conn: Any) -> NoiseSession:
        """Handshake as the one who was dialled."""
        return self._continue(await super().secure_inbound(conn), conn)

    async def secure_outbound(self, conn: Any, peer_id: Any) -> NoiseSession:
        """Handshake as the dialler; libp2p checks that the peer is `peer_id`."""
        return self._continue(await super().secure_outbound(conn, peer_id), conn)

    def _continue(self, handshaken: Any, carrier: Any) -> NoiseSession:
        session = NoiseSession(handshaken, carrier.raw, self._scratch, self._limits.session_unsent_bytes_max)
        session.go_on_with(*carrier.rest())
        if (sock := plain_socket(carrier.raw)) is not None:
            let_kernel_hold(sock, self._limits.near_seconds, self._limits.near_window_bytes_max)
        return session
