"""Names that a host looks up take no room from its own."""

import time
from typing import Any

import trio
from libp2p.kad_dht.pb.kademlia_pb2 import Message
from libp2p.peer.id import ID

from dimnode.limits import LIMITS
from dimnode.p2p.host.lookup import GET_VALUE
from dimnode.p2p.host.name_shelf import NameShelf
from dimnode.p2p.host.names import Heard, Names, with_record
from dimnode.records.envelope import SigningKey
from dimnode.records.ipns import Name, routing_key, seal_name

OWN = SigningKey.from_seed(bytes(32))


def record(key: SigningKey) -> bytes:
    return seal_name(key, Name("/ipfs/bafkrei", 1, time.time_ns() // 1_000_000 + 60_000, 0))


class Asking:
    """A lookup in which every publisher answers for itself."""

    def __init__(self, keys: list[SigningKey]) -> None:
        self._records = {key.peer: record(key) for key in keys}

    async def ask(self, peer: ID, kind: Any, key: bytes) -> Message:
        return with_record(GET_VALUE, key, self._records[peer.to_bytes()], 0)


def test_what_is_looked_up_turns_out_other_names_and_never_our_own() -> None:
    others = [SigningKey.from_seed(number.to_bytes(32, "big")) for number in range(1, 40)]
    shelf = NameShelf(LIMITS.host)
    names = Names(ID(OWN.peer), Asking(others), shelf, lambda _peer, _offence: None, LIMITS.host)  # type: ignore[arg-type]
    now_ms = time.time_ns() // 1_000_000
    shelf.put(routing_key(OWN.peer), mine := record(OWN), OWN.peer, now_ms)

    async def look_up() -> None:
        for key in others:
            heard = Heard()
            await names.get(key.peer, heard)
            assert heard.name is not None

    trio.run(look_up)
    assert (shelf.get(routing_key(OWN.peer), now_ms) or (b"",))[0] == mine
    kept = [key for key in others if shelf.get(routing_key(key.peer), now_ms)]
    assert kept == others[-LIMITS.host.dht_values_per_peer_max :]
