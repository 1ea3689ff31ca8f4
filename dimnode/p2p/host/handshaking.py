"""From a raw connection to a Noise session with few system calls and no round trip that is not needed.

Stock reads byte by byte, sends each line by itself, and waits for the echo of a proposal to which there is no other
answer than yes. Here a dialler sends its greeting, its proposal and the first message of Noise together and checks the
echo when it reads; whoever answers does so in one piece.

Rule: what was written leaves before anybody waits for the other side; what was read ahead goes to the session.

Source: https://github.com/libp2p/specs/blob/master/noise/README.md, https://github.com/multiformats/multistream-select
"""

from typing import Any, Final

from libp2p.protocol_muxer.exceptions import MultiselectError
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE_ID

from dimnode.limits import HostLimits
from dimnode.p2p.host.multistream import Unnegotiable, answer_proposals, expect, proposal

_READ_BYTES: Final = 4096
_HELLO: Final = proposal(str(NOISE_ID))


class EagerCarrier:
    """A raw connection during the handshake: reads ahead, and holds what is written until it has to wait."""

    def __init__(self, raw: Any) -> None:
        self.raw = raw
        self._ahead = b""
        self._held = bytearray()
        self._expected = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)

    def expect(self, echo: bytes) -> None:
        """The next bytes must be these; they are checked and dropped by the first read."""
        self._expected = echo

    def rest(self) -> tuple[bytes, bytes]:
        """What was read ahead and what was not sent yet: both go on in the session."""
        ahead, held = self._ahead, bytes(self._held)
        self._ahead = b""
        self._held.clear()
        return ahead, held

    def buffered(self) -> bytes:
        """What has arrived; it stays in place."""
        return self._ahead

    async def peek(self, n: int) -> bytes:
        """Wait until `n` bytes have arrived; fewer when no more will come."""
        while len(self._ahead) < n:
            await self.flush()
            chunk = await self.raw.read(_READ_BYTES)
            if not chunk:
                break
            self._ahead += chunk
        return self._ahead

    def skip(self, n: int) -> None:
        """Drop `n` bytes that have arrived."""
        self._ahead = self._ahead[n:]

    async def read(self, n: int | None = None) -> bytes:
        """Up to `n` bytes, none at the end. Raises `MultiselectError` when the echo is another one."""
        if self._expected:
            wanted, self._expected = self._expected, b""
            try:
                await expect(self, wanted)
            except Unnegotiable as error:
                raise MultiselectError(f"no agreement on Noise: {error}") from error
        there = await self.peek(1)
        taken = there if n is None else there[:n]
        self.skip(len(taken))
        return taken

    async def write(self, data: bytes) -> None:
        """Hold `data` until somebody waits."""
        self._held += data

    async def flush(self) -> None:
        """Send what is held."""
        if self._held:
            held = bytes(self._held)
            self._held.clear()
            await self.raw.write(held)


class NoiseOnly:
    """In place of libp2p's choice of a security protocol: there is one."""

    def __init__(self, noise: Any, limits: HostLimits) -> None:
        self._noise = noise
        self._limits = limits

    async def secure_inbound(self, raw: Any) -> Any:
        """As the one who was dialled. Raises `MultiselectError` and what Noise raises."""
        carrier = EagerCarrier(raw)
        try:
            await answer_proposals(carrier, (str(NOISE_ID),), self._limits, carrier.write)
        except Unnegotiable as error:
            await carrier.flush()
            raise MultiselectError(f"no agreement on Noise: {error}") from error
        return self._named(await self._noise.secure_inbound(carrier))

    async def secure_outbound(self, raw: Any, peer: Any) -> Any:
        """As the dialler; `peer` is who must answer. Raises `MultiselectError` and what Noise raises."""
        carrier = EagerCarrier(raw)
        await carrier.write(_HELLO)
        carrier.expect(_HELLO)
        return self._named(await self._noise.secure_outbound(carrier, peer))

    def _named(self, session: Any) -> Any:
        session.negotiated_security_protocol = str(NOISE_ID)
        return session
