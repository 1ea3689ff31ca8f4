"""A peer that is no node: it hands in a job that it signed, at the door for strangers."""

import os
import time
from collections.abc import Callable
from typing import Any, Final

import trio

from dimnode.p2p.host.host import open_host
from dimnode.p2p.host.streams import Stream
from dimnode.records.envelope import SigningKey, seal
from dimnode.records.ids import blob_cid, cid_bytes, peer_bytes
from dimnode.records.kinds import OPEN_SWARM_ID, compose
from dimnode.records.receipt import Opening
from dimnode.wire import FrameDecoder, pack_frame, unpack_body
from tests.e2e.harness import JOB_SECONDS, MODEL, RealNode, until

JOB: Final = "/dim/job/1"


class Stranger:
    """A peer of its own in this process, which is no node: it only knows how to hand in a job."""

    def __init__(self, owner: RealNode) -> None:
        self._node = owner
        self._owner = peer_bytes(owner.peer)
        names = owner.client.models()
        self.model = cid_bytes(next(row["model"] for row in names if row["name"].startswith(MODEL)))
        self._seed = os.urandom(32)
        # Of two connected peers the larger id waits for the other one to open a link; this one never will.
        while SigningKey.from_seed(self._seed).peer > self._owner:
            self._seed = os.urandom(32)
        self._key = SigningKey.from_seed(self._seed)

    def request(self, blob: bytes, net: bytes = OPEN_SWARM_ID, **changes: Any) -> bytes:
        """A frame for the job door."""
        opening = Opening.of(os.urandom(32), blob_cid(blob))
        body = {
            "pattern": "chained",
            "tasks": [{"op": "infer", "model": self.model}],
            "inputs": [opening.ref],
            "tier": "signed",
            "rule": {"method": "first"},
            "deadline_ms": 60_000,
            "priority": "normal",
            "visibility": "swarm",
            "nonce": os.urandom(16),
        }
        common = {"net": net, "by": self._key.peer, "at_ms": time.time_ns() // 1_000_000}
        _, payload = compose("spec", common, body | changes)
        given = [[opening.to_bytes()], [blob]] if (body | changes)["inputs"] else [[], []]
        return pack_frame([seal(self._key, "spec", payload), *given])

    def run(self, act: Callable[[Callable[[bytes], Any]], Any]) -> None:
        """Connect to the owner and act; `act` gets the function that hands in a request."""

        async def main() -> None:
            with trio.fail_after(2 * JOB_SECONDS):
                async with open_host(self._seed, [], {}, dht=False) as host:
                    peer = await host.connect(self._node.addresses[0])

                    async def ask(request: bytes) -> Any:
                        return await self._ask(await host.open_stream(peer, JOB), request)

                    await act(ask)

        trio.run(main)

    def hand_in(self, request: bytes, taken: Callable[[], bool]) -> None:
        """Send a request and hang up when it has been `taken`, without waiting for its end."""

        async def main() -> None:
            with trio.fail_after(2 * JOB_SECONDS):
                async with open_host(self._seed, [], {}, dht=False) as host:
                    stream = await host.open_stream(await host.connect(self._node.addresses[0]), JOB)
                    await stream.write(request)
                    await trio.to_thread.run_sync(until, taken, JOB_SECONDS, "the job is taken")

        trio.run(main)

    async def _ask(self, stream: Stream, request: bytes) -> list[Any]:
        await stream.write(request)
        decoder, said = FrameDecoder(), []
        while not decoder.ended:
            said += [unpack_body(body) for body in decoder.feed(await stream.read(65536))]
        word = said[0]
        if word[0] == "refused":
            return list(word)
        receipt = b"".join(said[1:])
        assert len(receipt) == word[2]
        return [word[0], word[1], receipt]
