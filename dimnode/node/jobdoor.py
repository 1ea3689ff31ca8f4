"""Jobs from other peers: `/dim/job/1`. A peer sends a spec that it signed; this node becomes the job's owner.

Rule: the stream carries one job. In: one frame [spec envelope, openings, blobs, grants]. Out: ["refused", code, text,
retry_after_ms], or ["ended", status, bytes of the receipt] and the receipt in chunks; then the explicit end of the
stream. If the stream breaks the job goes on; the same spec sent again finds it by its nonce and waits for its end.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import trio

from dimnode.api.inputs import check_inputs
from dimnode.errors import PeerFault, Refused
from dimnode.jobs.effects import Refuse, Reply
from dimnode.jobs.events import Submitted
from dimnode.jobs.intake import spec_problem
from dimnode.limits import LIMITS, Limits
from dimnode.node.registry import grants_in
from dimnode.p2p.host.streams import Stream
from dimnode.p2p.introduction import one_frame
from dimnode.records.envelope import Record
from dimnode.records.ids import PeerId, RecordId, blob_cid
from dimnode.records.kinds import open_record
from dimnode.records.receipt import Opening
from dimnode.wire import END, pack_frame, unpack_body

if TYPE_CHECKING:
    from dimnode.node.node import Node

JOB: Final = "/dim/job/1"
_CHUNK_BYTES: Final = 256 * 1024
_FIELDS_MAX: Final = 8


@dataclass(slots=True)
class Desk:
    """One peer's jobs here. A request may be large and need never be finished: few are read at a time."""

    reading: trio.CapacityLimiter
    jobs: int = 0


class JobDoor:
    """Serves one stream per foreign job."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._desks: dict[PeerId, Desk] = {}
        self._bytes = self._jobs = 0

    def handlers(self) -> dict[str, Callable[[Stream], Awaitable[None]]]:
        """For the host."""
        return {JOB: self.serve}

    async def serve(self, stream: Stream) -> None:
        """Take one job and stay until it has ended."""
        peer, limits = PeerId(stream.peer), self._node.limits.peers
        desk = self._desks.setdefault(peer, Desk(trio.CapacityLimiter(limits.foreign_requests_read_per_peer)))
        desk.jobs += 1
        self._jobs += 1
        try:
            # All strangers together leave room among the open jobs for this node's own.
            if desk.jobs > limits.foreign_jobs_per_peer or self._jobs > limits.foreign_jobs_max:
                await self._refuse(stream, "E-jobs-01", "too many open jobs of yours", 1000)
                return
            with trio.fail_after(limits.blob_seconds_max):
                async with desk.reading:
                    body = await one_frame(stream, self._node.limits.wire.frame_bytes_max)
            await self._take(stream, body)
        finally:
            self._jobs -= 1
            desk.jobs -= 1
            if not desk.jobs:
                del self._desks[peer]

    async def _take(self, stream: Stream, body: bytes) -> None:
        """The inputs of all foreign jobs together have a bound, whoever sent them."""
        size = len(body)
        if self._node.space.scarce:
            await self._refuse(stream, "E-jobs-24", "the disk of this node is nearly full", 5000)
            return
        if self._bytes + size > self._node.limits.peers.foreign_bytes_max:
            await self._refuse(stream, "E-jobs-01", "too many bytes of open jobs here", 1000)
            return
        self._bytes += size
        try:
            await self._one_job(stream, body)
        finally:
            self._bytes -= size

    async def _one_job(self, stream: Stream, body: bytes) -> None:
        node = self._node
        waiting = Foreign()
        await node.hear_notices(grants_in(_passes(body, node.limits)), PeerId(stream.peer))
        try:
            job, event = await self._read(body, PeerId(stream.peer), waiting)
        except Refused as no:
            await self._refuse(stream, no.complaint.code, no.complaint.what, no.retry_after_ms)
            return
        if event is not None:
            await node.inbox.put_door(stream.peer, event)
            await waiting.over.wait()
            job = waiting.job or job
        if (said := waiting.refusal) is not None:
            await self._refuse(stream, said.code, said.what, said.retry_after_ms)
            return
        end = node.journal.end_of(job)
        assert end is not None, "whoever waits for a job is answered after the commit that ended it"
        receipt = await node.long_reads.receipt(job)
        with trio.fail_after(node.limits.peers.blob_seconds_max):
            await stream.write(pack_frame(["ended", end[1], len(receipt)]))
            for start in range(0, len(receipt), _CHUNK_BYTES):
                await stream.write(pack_frame(receipt[start : start + _CHUNK_BYTES]))
            await stream.write(END)

    async def _refuse(self, stream: Stream, code: str, what: str, retry_after_ms: int) -> None:
        with trio.fail_after(self._node.limits.peers.blob_seconds_max):
            await stream.write(pack_frame(["refused", code, what, retry_after_ms]) + END)

    async def _read(self, body: bytes, peer: PeerId, waiting: Foreign) -> tuple[RecordId, Submitted | None]:
        """The job, and the event when it has not ended. Raises `PeerFault`, or `Refused`: nobody could run it."""
        row = unpack_body(body, self._node.limits.wire.peer_frame_containers_max)
        if type(row) is not list or not 3 <= len(row) <= _FIELDS_MAX or type(row[0]) is not bytes:
            raise PeerFault("job: form")
        envelope, openings, blobs = row[:3]  # a later version may say more
        spec = open_record(envelope, kind="spec")
        if spec.by != peer or spec.payload["net"] != self._node.net:
            raise PeerFault("job: signer or swarm")
        if (known := self._ended(spec)) is not None:
            return known, None
        opened = tuple(Opening.from_bytes(raw) for raw in _bytes_list(openings))
        held = {blob_cid(blob): blob for blob in _bytes_list(blobs)}
        if [opening.ref for opening in opened] != spec.payload["inputs"] or {o.cid for o in opened} - held.keys():
            raise PeerFault("job: inputs")
        await self._check_inputs(spec, [held[opening.cid] for opening in opened])
        if (known := self._ended(spec)) is not None:  # meanwhile: it came on another stream, too
            return known, None
        self._node.vault.hold(spec.id, envelope)
        for opening in opened:
            self._node.vault.hold(opening.cid, held[opening.cid])
        return spec.id, Submitted(waiting, spec.id, spec.payload, b"", opened)

    def _ended(self, spec: Record) -> RecordId | None:
        journal = self._node.journal
        known = journal.job_of_nonce(spec.by, spec.payload["nonce"])
        return RecordId(known) if known is not None and journal.end_of(known) is not None else None

    async def _check_inputs(self, spec: Record, blobs: list[bytes]) -> None:
        """As for jobs of this node's own (`api/compiling.py`): in a thread when the blobs are large."""
        said, manifests = spec.payload, self._node.registry.manifests
        if spec_problem(said, self._node.limits):
            return  # the engine says so
        tasks = [{key: value for key, value in task.items() if value != []} for task in said["tasks"]]
        models = [manifests.get(task.get("model", b"")) for task in tasks]
        check = partial(check_inputs, tasks, models, blobs, chained=said["pattern"] == "chained")
        if sum(map(len, blobs)) <= LIMITS.http.input_in_loop_bytes_max:
            check()
        else:
            await trio.to_thread.run_sync(check)


def _passes(body: bytes, limits: Limits) -> list[bytes]:
    """The fourth field: grants of the submitter, where it is there."""
    row = unpack_body(body, limits.wire.peer_frame_containers_max)
    found = row[3] if type(row) is list and len(row) > 3 else []
    if type(found) is not list or len(found) > limits.peers.grants_per_frame_max:
        return []
    return [entry for entry in found if type(entry) is bytes]


class Foreign:
    """The token of a foreign job."""

    def __init__(self) -> None:
        self.over = trio.Event()
        self.job: RecordId | None = None
        self.refusal: Refuse | None = None

    def ended(self, reply: Reply, outputs: tuple[bytes, ...]) -> None:
        """The job is over; its receipt is made from the journal. An earlier spec with its nonce may have begun it."""
        self.job = reply.job
        self.over.set()

    def refused(self, refuse: Refuse) -> None:
        """The job was not taken."""
        self.refusal = refuse
        self.over.set()


def _bytes_list(value: Any) -> list[bytes]:
    if type(value) is not list or len(value) > 64 or any(type(entry) is not bytes for entry in value):
        raise PeerFault("job: list")
    return value
