"""Jobs from other peers: `/dim/job/1`. A peer sends a spec that it signed; this node becomes the job's owner.

Rule: the stream carries one job. In: one frame [spec envelope, openings, blobs, grants]. Out: ["refused", code, text,
retry_after_ms], or ["ended", status, bytes of the receipt] and the receipt in chunks; then the explicit end of the
stream. If the stream breaks the job goes on; the same spec sent again finds it by its nonce and waits for its end. What
a job holds here it holds until it is over (`foreign.py`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import trio

from dimnode.api.inputs import check_inputs
from dimnode.errors import PeerFault, Refused
from dimnode.jobs.effects import Refuse
from dimnode.jobs.events import Submitted
from dimnode.jobs.intake import spec_problem
from dimnode.limits import LIMITS, Limits
from dimnode.node.foreign import Desk, Foreign, Shares
from dimnode.node.foreign_receipts import ForeignReceipts
from dimnode.node.registry import grants_in
from dimnode.p2p.blob_places import group_of
from dimnode.p2p.host.streams import Stream
from dimnode.p2p.introduction import one_frame
from dimnode.records.envelope import Record
from dimnode.records.ids import Cid, PeerId, RecordId, blob_cid
from dimnode.records.kinds import open_record
from dimnode.records.receipt import Opening
from dimnode.wire import END, pack_frame, unpack_body

if TYPE_CHECKING:
    from dimnode.node.node import Node

JOB: Final = "/dim/job/1"
_CHUNK_BYTES: Final = 256 * 1024
_FIELDS_MAX: Final = 8


class JobDoor:
    """Serves the streams of foreign jobs: some for each job, few of which may be broken and not known to be."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._desks: dict[PeerId, Desk] = {}
        limits = node.limits.peers
        self._bytes = Shares(limits.foreign_bytes_max - limits.foreign_reading_bytes_max, limits)
        self._reading = Shares(limits.foreign_reading_bytes_max, limits)
        self._receipts = ForeignReceipts(node)
        self._streams = self._jobs = 0

    def handlers(self) -> dict[str, Callable[[Stream], Awaitable[None]]]:
        """For the host."""
        return {JOB: self.serve}

    @property
    def held(self) -> tuple[int, int, int]:
        """Streams, jobs and bytes of all peers together, these with what is being read and sent."""
        return self._streams, self._jobs, self._bytes.held + self._reading.held + self._receipts.held

    async def serve(self, stream: Stream) -> None:
        """Take one job and stay until it has ended."""
        peer, limits = PeerId(stream.peer), self._node.limits.peers
        desk = self._desks.setdefault(peer, Desk(trio.CapacityLimiter(limits.foreign_requests_read_per_peer)))
        desk.streams += 1
        self._streams += 1
        try:
            if desk.streams > limits.foreign_streams_per_peer or self._streams > limits.foreign_streams_max:
                raise _later("too many open streams of yours")
            found = await self._ask(stream, peer, desk)
            await self._tell(stream, found if isinstance(found, bytes) else await self._end_of(found, stream))
        except Refused as no:
            with trio.fail_after(limits.blob_seconds_max):
                said = no.complaint
                await stream.write(pack_frame(["refused", said.code, said.what, no.retry_after_ms]) + END)
        finally:
            self._streams -= 1
            desk.streams -= 1
            self._tidy(peer)

    async def _ask(self, stream: Stream, peer: PeerId, desk: Desk) -> RecordId | Foreign:
        """The job that has ended, or the token of the open one: an earlier stream's, or a new one that was handed in.

        Raises `PeerFault`, or `Refused`: nobody could run it. The body is not held any longer than this takes, and
        counts apart from those of open jobs: a peer that has its share of these may still ask for them again.
        """
        group = group_of(stream.comes_from)
        with self._reading.while_here(peer, group) as take:

            def room(size: int) -> None:
                if not take(size):
                    raise _later("too many bytes are being read here")

            with trio.fail_after(self._node.limits.peers.blob_seconds_max):
                async with desk.reading:
                    body = await one_frame(stream, self._node.limits.wire.frame_bytes_max, room)
            row, spec = self._open(body, peer)
            if (known := self._ended(spec)) is not None:
                return known
            if (token := desk.jobs.get(spec.payload["nonce"])) is None:
                opened, held = _inputs_of(row, spec)
                token = self._new(peer, group, desk, spec.payload["nonce"], len(body))
                await self._hand_in(token, row, spec, opened, held)
            return token

    def _new(self, peer: PeerId, group: str, desk: Desk, nonce: bytes, size: int) -> Foreign:
        """The token of a new job. Raises `Refused` when there is no room for it."""
        limits = self._node.limits.peers
        if self._node.space.scarce:
            raise Refused("E-jobs-24", "the disk of this node is nearly full", retry_after_ms=5000)
        # All strangers together leave room among the open jobs for this node's own.
        if len(desk.jobs) >= limits.foreign_jobs_per_peer or self._jobs >= limits.foreign_jobs_max:
            raise _later("too many open jobs of yours")
        if not self._bytes.take(peer, group, size):
            raise _later("too many bytes of open jobs here")

        def let_go() -> None:
            self._bytes.leave(peer, group, size)
            self._jobs -= 1
            del desk.jobs[nonce]
            self._tidy(peer)

        self._jobs += 1
        token = desk.jobs[nonce] = Foreign(limits.foreign_streams_per_job, let_go)
        return token

    def _tidy(self, peer: PeerId) -> None:
        desk = self._desks.get(peer)
        if desk is not None and not desk.streams and not desk.jobs:
            del self._desks[peer]

    async def _hand_in(
        self, token: Foreign, row: list[Any], spec: Record, opened: tuple[Opening, ...], held: dict[Cid, bytes]
    ) -> None:
        """Whatever comes of it, whoever waits with this token hears of it."""
        no: Refused | None = _later("the job was not taken")
        try:
            await self._submit(token, row, spec, opened, held)
            no = None
        except Refused as found:
            no = found
        finally:
            if no is not None:
                said = no.complaint
                token.refused(Refuse(token, spec.id, said.code, said.what, retry_after_ms=no.retry_after_ms))

    async def _submit(
        self, token: Foreign, row: list[Any], spec: Record, opened: tuple[Opening, ...], held: dict[Cid, bytes]
    ) -> None:
        node = self._node
        await node.hear_notices(grants_in(_passes(row, node.limits)), PeerId(spec.by))
        await self._check_inputs(spec, [held[opening.cid] for opening in opened])
        if (known := self._ended(spec)) is not None:  # meanwhile: a job that an earlier run of this node had taken
            token.is_known(known)
            return
        node.vault.hold(spec.id, row[0])
        for opening in opened:
            node.vault.hold(opening.cid, held[opening.cid])
        await node.inbox.put_door(spec.by, Submitted(token, spec.id, spec.payload, b"", opened))

    async def _end_of(self, token: Foreign, stream: Stream) -> RecordId:
        """The job of a token, when it is over. Raises `Refused`."""
        if not await token.wait(stream):
            raise Refused("E-jobs-12", "newer streams wait for this job", retry_after_ms=1000)
        if (said := token.refusal) is not None:
            raise Refused(said.code, said.what, retry_after_ms=said.retry_after_ms)
        assert token.job is not None
        return token.job

    async def _tell(self, stream: Stream, job: RecordId) -> None:
        """How it ended, and the receipt. Raises `Refused`: later."""
        end = self._node.journal.end_of(job)
        assert end is not None, "whoever waits for a job is answered after the commit that ended it"
        async with self._receipts.of(job, PeerId(stream.peer), group_of(stream.comes_from)) as receipt:
            with trio.fail_after(self._node.limits.peers.blob_seconds_max):
                await stream.write(pack_frame(["ended", end[1], len(receipt)]))
                for start in range(0, len(receipt), _CHUNK_BYTES):
                    await stream.write(pack_frame(receipt[start : start + _CHUNK_BYTES]))
                await stream.write(END)

    def _open(self, body: bytes, peer: PeerId) -> tuple[list[Any], Record]:
        """The fields of a request, and the spec that this peer signed. Raises `PeerFault`."""
        row = unpack_body(body, self._node.limits.wire.peer_frame_containers_max)
        if type(row) is not list or not 3 <= len(row) <= _FIELDS_MAX or type(row[0]) is not bytes:
            raise PeerFault("job: form")  # a later version may say more
        spec = open_record(row[0], kind="spec")
        if spec.by != peer or spec.payload["net"] != self._node.net:
            raise PeerFault("job: signer or swarm")
        return row, spec

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


def _later(what: str) -> Refused:
    return Refused("E-jobs-01", what, retry_after_ms=1000)


def _inputs_of(row: list[Any], spec: Record) -> tuple[tuple[Opening, ...], dict[Cid, bytes]]:
    """The openings of a spec's inputs, and the blobs that they name. Raises `PeerFault`."""
    opened = tuple(Opening.from_bytes(raw) for raw in _bytes_list(row[1]))
    held = {blob_cid(blob): blob for blob in _bytes_list(row[2])}
    if [opening.ref for opening in opened] != spec.payload["inputs"] or {o.cid for o in opened} - held.keys():
        raise PeerFault("job: inputs")
    return opened, held


def _passes(row: list[Any], limits: Limits) -> list[bytes]:
    """The fourth field: grants of the submitter, where it is there."""
    found = row[3] if len(row) > 3 else []
    if type(found) is not list or len(found) > limits.peers.grants_per_frame_max:
        return []
    return [entry for entry in found if type(entry) is bytes]


def _bytes_list(value: Any) -> list[bytes]:
    if type(value) is not list or len(value) > 64 or any(type(entry) is not bytes for entry in value):
        raise PeerFault("job: list")
    return value
