"""The messages of circuit relay v2 and DCUtR: a varint length, then protobuf.

Rule: exactly one message is read from a stream and not a byte more, because on a circuit the next byte belongs to the
two peers and not to the relay.

Source: https://github.com/libp2p/specs/blob/master/relay/circuit-v2.md and DCUtR.md beside it.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeVar

from google.protobuf.message import DecodeError
from libp2p.relay.circuit_v2.pb.circuit_pb2 import HopMessage, Limit, Reservation, Status, StopMessage
from libp2p.relay.circuit_v2.pb.circuit_pb2 import PeerId as PeerMessage
from libp2p.relay.circuit_v2.pb.dcutr_pb2 import HolePunch
from multiaddr import Multiaddr

from dimnode.errors import PeerFault
from dimnode.limits import LIMITS
from dimnode.p2p.host.streams import Stream, StreamEnded, StreamLost

HOP: Final = "/libp2p/circuit/relay/0.2.0/hop"
STOP: Final = "/libp2p/circuit/relay/0.2.0/stop"
DCUTR: Final = "/libp2p/dcutr"

M = TypeVar("M", HopMessage, StopMessage, HolePunch)

REASONS: Final = {
    Status.RESERVATION_REFUSED: "E-net-01: the relay takes no reservation, it has given all its places away",
    Status.PERMISSION_DENIED: "E-net-02: the relay does not serve us",
    Status.NO_RESERVATION: "E-net-03: the peer has no reservation at the relay",
    Status.RESOURCE_LIMIT_EXCEEDED: "E-net-04: the relay is at its limit of circuits",
    Status.CONNECTION_FAILED: "E-net-05: the relay does not reach the peer, or the peer takes no visit",
}


async def read_message(stream: Stream, kind: type[M]) -> M:
    """Read one message. Raises `PeerFault` when it is malformed or too long, `StreamLost` when the stream ends."""
    size = shift = 0
    while True:
        byte = (await _exactly(stream, 1))[0]
        size |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            break
        if shift > 14:
            raise PeerFault("circuit: length")
    if size > LIMITS.reach.circuit_message_bytes_max:
        raise PeerFault("circuit: too long")
    message = kind()
    try:
        message.ParseFromString(await _exactly(stream, size))
    except DecodeError:
        raise PeerFault("circuit: no message") from None
    return message


async def _exactly(stream: Stream, count: int) -> bytes:
    got = b""
    while len(got) < count:
        try:
            got += await stream.read(count - len(got))
        except StreamEnded:
            raise StreamLost("the stream ended where a message was due") from None
    return got


async def write_message(stream: Stream, message: HopMessage | StopMessage | HolePunch) -> None:
    """Write one message. Raises `StreamLost`."""
    payload = message.SerializeToString()
    size = len(payload)
    prefix = bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])
    await stream.write(prefix + payload)


def hop_status(status: Any, reservation: Reservation | None = None, limit: Limit | None = None) -> HopMessage:
    """What a relay answers."""
    return HopMessage(type=HopMessage.STATUS, status=status, reservation=reservation, limit=limit)


def hop_connect(target: bytes) -> HopMessage:
    """Please connect us to `target`."""
    return HopMessage(type=HopMessage.CONNECT, peer=PeerMessage(id=target))


def stop_connect(source: bytes, limit: Limit) -> StopMessage:
    """What a relay tells the one who is visited."""
    return StopMessage(type=StopMessage.CONNECT, peer=PeerMessage(id=source), limit=limit)


def stop_status(status: Any) -> StopMessage:
    """What the one who is visited answers."""
    return StopMessage(type=StopMessage.STATUS, status=status)


def punch_connect(addresses: Sequence[Multiaddr]) -> HolePunch:
    """Where we can be seen from outside."""
    return HolePunch(type=HolePunch.CONNECT, ObsAddrs=[address.to_bytes() for address in addresses])


def read_addresses(raw: Iterable[bytes], most: int) -> list[Multiaddr]:
    """The direct TCP addresses among `raw`, at most `most`; a stranger's nonsense is left out.

    IP, port and perhaps a peer, nothing else: we pass some of them on in our own advert, where there is a bound.
    """
    found: list[Multiaddr] = []
    for each in raw:
        if len(found) >= most:
            break
        try:
            address = Multiaddr(bytes(each))
            names = [protocol.name for protocol in address.protocols()]
            host_and_port(address)
        except Exception:  # noqa: BLE001 boundary: multiaddr raises many kinds for a stranger's bytes
            continue
        if names[1:] in (["tcp"], ["tcp", "p2p"]):
            found.append(address)
    return found


def host_and_port(address: Multiaddr) -> tuple[str, int]:
    """The IP and the TCP port. Raises `ValueError` when it has none."""
    found = {protocol.name: value for protocol, value in address.items()}
    host = found.get("ip4") or found.get("ip6")
    if not host or not found.get("tcp"):
        raise ValueError(f"no IP and TCP port: {address}")
    return str(host), int(str(found["tcp"]))
