"""Bytes that no honest peer would send, for each protocol that a node serves.

Rule: everything comes from the random generator that is given, so a seed repeats it.
"""

import random
from collections.abc import Callable
from typing import Any, Final

import msgpack
from libp2p.bitswap.pb import bitswap_pb2
from libp2p.kad_dht.pb import kademlia_pb2
from libp2p.pubsub.pb import rpc_pb2
from libp2p.relay.circuit_v2.pb.circuit_pb2 import HopMessage, StopMessage
from libp2p.relay.circuit_v2.pb.dcutr_pb2 import HolePunch

from dimnode.p2p.gossip import TOPICS
from dimnode.records.envelope import SigningKey
from dimnode.records.ids import RECORD_PREFIX
from dimnode.records.ipns import Name, routing_key, seal_name

TASK, PING, INFO, BLOB, JOB = "/dim/task/1", "/dim/ping/1", "/dim/info/1", "/dim/blob/1", "/dim/job/1"
MODEL, DIALBACK = "/dim/model/1", "/dim/dialback/1"
MESHSUB, KAD, PUSH, IDENTIFY, LIBP2P_PING = (
    "/meshsub/1.1.0",
    "/ipfs/kad/1.0.0",
    "/ipfs/id/push/1.0.0",
    "/ipfs/id/1.0.0",
    "/ipfs/ping/1.0.0",
)
HOP, STOP, DCUTR = "/libp2p/circuit/relay/0.2.0/hop", "/libp2p/circuit/relay/0.2.0/stop", "/libp2p/dcutr"
BITSWAP = "/ipfs/bitswap/1.2.0"
OURS: Final = (TASK, PING, INFO, BLOB, JOB, MODEL, DIALBACK)
THEIRS: Final = (MESHSUB, KAD, PUSH, IDENTIFY, LIBP2P_PING, HOP, STOP, DCUTR, BITSWAP)
_WORDS: Final = ("lease", "answer", "ruling", "accepted", "progress", "refused", "ack", "resume", "cancel", "unknown")


def some_bytes(chance: random.Random, most: int) -> bytes:
    """At most `most` bytes."""
    return chance.randbytes(chance.randrange(most + 1))


def mutated(chance: random.Random, body: bytes) -> bytes:
    """A few bytes changed, cut off, doubled or put in."""
    found = bytearray(body)
    for _ in range(chance.randrange(1, 4)):
        place = chance.randrange(len(found) + 1)
        match chance.randrange(4):
            case 0 if found:
                found[min(place, len(found) - 1)] = chance.randrange(256)
            case 1:
                del found[place:]
            case 2:
                found[place:place] = found[: chance.randrange(64)]
            case _:
                found[place:place] = some_bytes(chance, 8)
    return bytes(found)


# ---- frames of dimnode


def value(chance: random.Random, depth: int = 0) -> Any:
    """Anything that msgpack can say."""
    simple: tuple[Callable[[], Any], ...] = (
        lambda: None,
        lambda: bool(chance.randrange(2)),
        lambda: chance.choice((0, 1, -1, 127, 2**31, 2**63 - 1, -(2**63), 2**64 - 1)),
        lambda: chance.choice((0.0, -0.0, 1.5, float("inf"), float("-inf"), float("nan"))),
        lambda: some_bytes(chance, 80),
        lambda: chance.choice(("", "advert", "refused", "é" * 300, "\0", *_WORDS)),
        lambda: RECORD_PREFIX + chance.randbytes(32),
        lambda: msgpack.ExtType(chance.randrange(128), some_bytes(chance, 8)),
    )
    if depth > 4 or chance.random() < 0.6:
        return chance.choice(simple)()
    if chance.randrange(2):
        return [value(chance, depth + 1) for _ in range(chance.randrange(12))]
    return {str(chance.randrange(9)): value(chance, depth + 1) for _ in range(chance.randrange(6))}


def task_row(chance: random.Random) -> list[Any]:
    """Nearly a task frame: ten fields of about the right types."""
    row: list[Any] = [chance.choice(_WORDS), RECORD_PREFIX + chance.randbytes(32), chance.randrange(1024)]
    row += [chance.randrange(1_000_001), [some_bytes(chance, 300) for _ in range(chance.randrange(4))]]
    row += [[chance.randbytes(chance.choice((100, 100, 99))) for _ in range(chance.randrange(3))]]
    row += [[some_bytes(chance, 60) for _ in range(chance.randrange(3))], "E-x", "text", chance.randrange(5001)]
    if chance.randrange(2):
        row[chance.randrange(10)] = value(chance)
    if not chance.randrange(8):
        row.append(value(chance))
    return row


def model_question(chance: random.Random) -> list[Any]:
    """Nearly a question about a model."""
    word = chance.choice(("manifest", "permit", "warm", "delete"))
    shown = [some_bytes(chance, 400) for _ in range(chance.choice((0, 1, 2, 8, 9)))]
    return [word, RECORD_PREFIX + chance.randbytes(chance.choice((32, 32, 31))), shown]


def framed(body: bytes) -> bytes:
    """A frame with a true length."""
    return len(body).to_bytes(4, "big") + body


def own_frame(chance: random.Random, protocol: str) -> bytes:
    """Some bytes for a protocol of dimnode: true, lying and broken frames of wrong contents."""
    match protocol:
        case "/dim/task/1":
            said: Any = task_row(chance)
        case "/dim/info/1":
            said = chance.choice(("advert", value(chance)))
        case "/dim/blob/1":
            said = chance.choice((some_bytes(chance, 80), value(chance)))
        case "/dim/job/1":
            said = chance.choice(([some_bytes(chance, 400), [some_bytes(chance, 100)], [b"x"]], value(chance)))
        case "/dim/model/1":
            said = chance.choice((model_question(chance), value(chance)))
        case "/dim/dialback/1":
            said = chance.choice(([chance.randrange(1, 65536) for _ in range(chance.randrange(200))], value(chance)))
        case _:
            return some_bytes(chance, 100)
    body: bytes = msgpack.packb(said)
    match chance.randrange(10):
        case 0:
            return chance.randbytes(chance.randrange(1, 3000))
        case 1:  # a length that is never reached, or beyond every limit
            return chance.choice((2**32 - 1, 2 * 1024 * 1024, 5000, 16)).to_bytes(4, "big") + body
        case 2:
            return framed(mutated(chance, body))
        case 3:  # the end frame, and more after it
            return bytes(4) + framed(body)
        case 4:  # nested beyond every parser's patience
            return framed(b"\x91" * chance.choice((600, 5000, 100_000)) + b"\xc0")
        case 5:  # headers that promise billions of entries
            return framed(chance.choice((b"\xdd", b"\xdf", b"\xc6", b"\xdb", b"\xc9")) + b"\xff" * 4 + body)
        case 6:
            return b"".join(framed(body) for _ in range(chance.randrange(1, 60)))
        case _:
            return framed(body)


# ---- frames of libp2p


def varint(number: int) -> bytes:
    """As protobuf writes lengths."""
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def gossip_rpc(chance: random.Random) -> bytes:
    """Publish, subscribe or control, with nonsense in the fields."""
    rpc, topic = rpc_pb2.RPC(), chance.choice(TOPICS)
    match chance.randrange(7):
        case 0:
            rpc.publish.add(
                from_id=some_bytes(chance, 40),
                data=some_bytes(chance, 1200),
                seqno=some_bytes(chance, 12),
                topicIDs=[topic],
                signature=some_bytes(chance, 70),
                key=some_bytes(chance, 40),
            )
        case 1:
            rpc.subscriptions.add(subscribe=bool(chance.randrange(2)), topicid=chance.choice((topic, "x" * 300, "")))
        case 2:
            rpc.control.ihave.add(topicID=topic, messageIDs=[some_bytes(chance, 30) for _ in range(5)])
        case 3:
            rpc.control.iwant.add(messageIDs=[some_bytes(chance, 30) for _ in range(5)])
        case 4:
            rpc.control.graft.add(topicID=chance.choice((topic, "no")))
        case 5:
            rpc.control.prune.add(topicID=topic, backoff=chance.randrange(1 << 40))
        case _:
            rpc.senderRecord = some_bytes(chance, 200)
    return bytes(rpc.SerializeToString())


def kad_message(chance: random.Random) -> bytes:
    """A DHT request with nonsense in the fields, or a record of somebody that may even hold."""
    message = kademlia_pb2.Message()
    if chance.randrange(3) == 0:
        return kad_record(chance, message)
    message.type = chance.randrange(6)
    message.key = some_bytes(chance, 60)
    if chance.randrange(2):
        message.record.key = some_bytes(chance, 40)
        message.record.value = some_bytes(chance, 80)
        message.record.timeReceived = chance.choice(("", "x", "2026-01-01T00:00:00Z"))
    if chance.randrange(2):
        peer = message.providerPeers.add()
        peer.id = some_bytes(chance, 40)
        peer.addrs.append(some_bytes(chance, 20))
    return bytes(message.SerializeToString())


def circuit_message(chance: random.Random, protocol: str) -> bytes:
    """A relay's or hole puncher's message with nonsense in the fields."""
    if protocol == DCUTR:
        punch = HolePunch(type=chance.choice((HolePunch.CONNECT, HolePunch.SYNC)))
        punch.ObsAddrs.extend(some_bytes(chance, 40) for _ in range(chance.randrange(20)))
        return bytes(punch.SerializeToString())
    asked = HopMessage() if protocol == HOP else StopMessage()
    asked.type = chance.randrange(3 if protocol == HOP else 2)
    if chance.randrange(4):
        asked.peer.id = some_bytes(chance, 40)
        asked.peer.addrs.extend(some_bytes(chance, 40) for _ in range(chance.randrange(20)))
    return bytes(asked.SerializeToString())


def bitswap_message(chance: random.Random) -> bytes:
    """Wants, blocks and presences: of nothing, of what is there, by the thousand, beyond every bound."""

    def cid() -> bytes:
        prefix = bytes.fromhex(chance.choice(("01551220", "01701220", "1220", "01551b20")))
        return prefix + chance.randbytes(32) if chance.randrange(9) else some_bytes(chance, 300)

    message = bitswap_pb2.Message()
    message.wantlist.full = not chance.randrange(4)
    for _ in range(chance.choice((0, 1, 3, 40, 2000, 6000))):
        want = message.wantlist.entries.add(block=cid(), priority=chance.randrange(100), cancel=not chance.randrange(5))
        want.wantType, want.sendDontHave = chance.randrange(2), bool(chance.randrange(2))
    for _ in range(chance.choice((0, 0, 0, 1, 3))):
        message.payload.add(prefix=cid()[: chance.choice((4, 4, 0, 40))], data=some_bytes(chance, 90_000))
    for _ in range(chance.choice((0, 1, 50))):
        message.blockPresences.add(cid=cid(), type=chance.randrange(2))
    return bytes(message.SerializeToString())


def kad_record(chance: random.Random, message: kademlia_pb2.Message) -> bytes:
    """An IPNS record to be kept, or a question for one: true, changed, over, of any of thousands of publishers."""
    key = SigningKey.from_seed(chance.randrange(5000).to_bytes(32))
    ends_ms = chance.choice((1, 4_102_444_800_000, 253_402_300_799_999))
    raw = seal_name(key, Name(chance.choice(("/ipfs/x", "", "x" * 900)), chance.randrange(2**64), ends_ms, 0))
    message.type = chance.choice((message.PUT_VALUE, message.PUT_VALUE, message.GET_VALUE))
    message.key = routing_key(key.peer) if chance.randrange(8) else b"/ipns/" + some_bytes(chance, 60)
    message.record.key = message.key
    message.record.value = raw if chance.randrange(2) else mutated(chance, raw)
    return bytes(message.SerializeToString())


def their_frame(chance: random.Random, protocol: str) -> bytes:
    """Some bytes for a protocol of libp2p."""
    match protocol:
        case "/meshsub/1.1.0":
            body = gossip_rpc(chance)
        case "/ipfs/kad/1.0.0":
            body = kad_message(chance)
        case "/ipfs/bitswap/1.2.0":
            body = bitswap_message(chance)
        case "/ipfs/id/push/1.0.0":
            body = some_bytes(chance, 200)
        case "/libp2p/circuit/relay/0.2.0/hop" | "/libp2p/circuit/relay/0.2.0/stop" | "/libp2p/dcutr":
            body = circuit_message(chance, protocol)
        case _:
            return some_bytes(chance, 100)
    if chance.randrange(2):
        body = mutated(chance, body)
    match chance.randrange(12):
        case 0:
            return b"\xff" * 12 + body
        case 1:
            return varint(100 * 1024 * 1024) + body
        case _:
            return varint(len(body)) + body


def any_frame(chance: random.Random) -> bytes:
    """Some bytes for a protocol that nobody told us about: framed as dimnode frames, as libp2p does, or not at all."""
    match chance.randrange(6):
        case 0:
            return framed(msgpack.packb(value(chance)))
        case 1:
            return framed(mutated(chance, msgpack.packb([value(chance) for _ in range(4)])))
        case 2:
            return varint(chance.choice((100, 2**20, 2**31))) + some_bytes(chance, 500)
        case 3:
            return chance.choice((2**32 - 1, 2**21, 4096)).to_bytes(4, "big") + some_bytes(chance, 500)
        case 4:
            body = some_bytes(chance, 300)
            return varint(len(body)) + body
        case _:
            return some_bytes(chance, 3000)


def frame(chance: random.Random, protocol: str) -> bytes:
    """Some bytes for any protocol."""
    if protocol in OURS:
        return own_frame(chance, protocol)
    return their_frame(chance, protocol) if protocol in THEIRS else any_frame(chance)
