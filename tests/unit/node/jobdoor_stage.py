"""The job door in a room of its own: its streams are lists of bytes, and a job ends when the test says so."""

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import trio
from trio.testing import wait_all_tasks_blocked

from dimnode.errors import PeerFault
from dimnode.jobs.effects import Reply
from dimnode.jobs.events import Submitted
from dimnode.limits import LIMITS, Limits
from dimnode.node.jobdoor import JobDoor
from dimnode.node.long_reads import LongReads
from dimnode.p2p.host.streams import StreamEnded, StreamLost
from dimnode.records.envelope import SigningKey, seal
from dimnode.records.ids import PeerId, RecordId, blob_cid
from dimnode.records.kinds import OPEN_SWARM_ID, compose
from dimnode.records.receipt import Opening
from dimnode.records.tensors import Tensor, encode_tensors
from dimnode.store.journal import Journal
from dimnode.store.vault import Vault
from dimnode.wire import FrameDecoder, pack_frame, unpack_body

OWNER = SigningKey.from_seed(b"o" * 32)


class Line:
    """A stream to the door: what the peer sends, and what it heard."""

    def __init__(self, peer: PeerId, ip: str = "192.0.2.1") -> None:
        self.peer, self.comes_from = peer, ip
        self.heard = bytearray()
        self.lost = self.finished = self.over = self.deaf = False
        self.still = trio.Event()  # the door waits for what the peer says, or has left
        self._sent = bytearray()
        self._moved = trio.lowlevel.ParkingLot()

    def send(self, content: bytes) -> None:
        self._sent += content
        self._moved.unpark_all()

    def listen(self) -> None:
        """Take answers from now on."""
        self.deaf = False
        self._moved.unpark_all()

    def lose(self) -> None:
        """The connection breaks."""
        self.lost = True
        self._moved.unpark_all()

    async def read(self, n: int) -> bytes:
        while not self._sent:
            if self.lost:
                raise StreamLost("lost")
            if self.finished:
                raise StreamEnded
            self.still.set()
            await self._moved.park()
        found = bytes(self._sent[:n])
        del self._sent[:n]
        await trio.lowlevel.checkpoint()
        return found

    async def write(self, *parts: bytes) -> None:
        await trio.lowlevel.checkpoint()
        while self.deaf and not self.lost:
            self.still.set()
            await self._moved.park()
        if self.lost:
            raise StreamLost("lost")
        self.heard += b"".join(parts)

    @property
    def said(self) -> list[Any]:
        """The answer: its first frame, and the bytes of the others. Empty while it is not there as a whole."""
        decoder = FrameDecoder()
        frames = [unpack_body(body) for body in decoder.feed(bytes(self.heard))]
        return [*frames[0], b"".join(frames[1:])] if decoder.ended else []


class Stranger:
    """A peer that hands in jobs."""

    def __init__(self, number: int = 1) -> None:
        self.key = SigningKey.from_seed(bytes([number]) * 32)
        self.peer = PeerId(self.key.peer)

    def request(self, nonce: bytes | None = None, rows: int = 1) -> bytes:
        blob = encode_tensors([Tensor("x", "float32", (rows, 250), os.urandom(1000 * rows))])
        opening = Opening.of(os.urandom(32), blob_cid(blob))
        body = {
            "pattern": "chained",
            "tasks": [{"op": "infer", "model": RecordId(compose("swarm", COMMON, SWARM)[0])}],
            "inputs": [opening.ref],
            "tier": "signed",
            "rule": {"method": "first"},
            "deadline_ms": 60_000,
            "priority": "normal",
            "visibility": "swarm",
            "nonce": nonce or os.urandom(16),
        }
        _, payload = compose("spec", {"net": OPEN_SWARM_ID, "by": self.key.peer, "at_ms": 1}, body)
        return pack_frame([seal(self.key, "spec", payload), [opening.to_bytes()], [blob]])


COMMON: dict[str, Any] = {"by": OWNER.peer, "at_ms": 0}
SWARM: dict[str, Any] = {"name": "j", "admins": [], "threshold": 0}


class Room:
    """A node of which there is only what the door touches. What is submitted waits in `submitted`."""

    def __init__(self, folder: Path, nursery: trio.Nursery, limits: Limits) -> None:
        self.journal = Journal(folder / "j.db")
        self.submitted: list[Submitted] = []
        self._nursery = nursery
        node: Any = SimpleNamespace(
            limits=limits,
            net=OPEN_SWARM_ID,
            space=SimpleNamespace(scarce=False),
            vault=Vault(),
            journal=self.journal,
            registry=SimpleNamespace(manifests={}),
            inbox=SimpleNamespace(put_door=self._put),
            hear_notices=self._hear,
            long_reads=LongReads(self.journal, limits.store),
        )
        self.node = node
        self.door = JobDoor(node)

    async def _put(self, client: object, event: Submitted) -> None:
        self.submitted.append(event)

    async def _hear(self, records: Any, teller: PeerId) -> None:
        await trio.lowlevel.checkpoint()

    async def open(
        self, stranger: Stranger, content: bytes = b"", ip: str = "192.0.2.1", *, deaf: bool = False
    ) -> Line:
        """A stream to the door, and what is sent on it; returns when all is still. Who is deaf takes no answer."""
        line = Line(stranger.peer, ip)
        line.deaf = deaf
        line.send(content)

        async def serve() -> None:
            try:
                await self.door.serve(line)  # type: ignore[arg-type]
            except (StreamLost, PeerFault):
                pass
            finally:
                line.over = True
                line.still.set()

        self._nursery.start_soon(serve)
        await line.still.wait()
        await wait_all_tasks_blocked()
        return line

    async def end(self, event: Submitted, output: bytes = b"output") -> None:
        """The job has ended: first in the journal, and then for who waits."""
        opening = Opening.of(b"s" * 32, blob_cid(output))
        body: dict[str, Any] = {"job": event.job, "status": "ok", "rule": "first", "steps": [], "checks": []}
        body |= {"outputs": [opening.ref], "unchecked": [], "parents": []}
        verdict, payload = compose("verdict", {"net": OPEN_SWARM_ID, "by": OWNER.peer, "at_ms": 1}, body)
        rows: dict[str, Any] = {
            "blobs": [(opening.cid, output)],
            "records": [("verdict", verdict, event.job, 0, 0, seal(OWNER, "verdict", payload))],
            "openings": [(verdict, 0, opening.ref, opening.salt, opening.cid)],
            "nonces": [(event.spec["by"], event.spec["nonce"], event.job)],
            "ends": [(event.job, verdict, "ok")],
        }
        await self.journal.commit(rows)
        event.token.ended(Reply(event.token, event.job, "ok", verdict, (opening.cid,)), (output,))
        await wait_all_tasks_blocked()


def on_stage(
    folder: Path, act: Callable[[Room], Awaitable[None]], limits: Limits = LIMITS, clock: trio.abc.Clock | None = None
) -> None:
    """Act with a door; whoever still waits at it then is sent away."""

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            room = Room(folder, nursery, limits)
            with room.journal:
                await act(room)
                nursery.cancel_scope.cancel()

    trio.run(main, clock=clock)
