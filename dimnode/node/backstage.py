"""The node as its doors see it: the one implementation of `api.port.NodePort`.

Rule: questions are answered from the journal, the library and what the swarm was heard to say; a job is only ever
changed by an event in the inbox.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from dimnode.api.control import ControlDoor
from dimnode.api.port import Answer, ListedFile, Token
from dimnode.errors import PeerFault, Refused
from dimnode.jobs.events import CancelAsked, Submitted
from dimnode.node.answers import Answers
from dimnode.node.clock import wall_ms
from dimnode.node.composing import compose_or_refuse
from dimnode.node.httpdoor import HttpPlace
from dimnode.node.job_answers import JobAnswers
from dimnode.p2p.blobs import fetch_blob
from dimnode.p2p.host.streams import DialFailed, StreamLost
from dimnode.records.envelope import Record, open_envelope
from dimnode.records.ids import (
    RECORD_PREFIX,
    Cid,
    PeerId,
    RecordId,
    cid_bytes,
    meant_by,
    named_by,
    peer_bytes,
    peer_text,
    short,
)
from dimnode.records.manifest import Manifest

if TYPE_CHECKING:
    from dimnode.node.node import Node


class Backstage:
    """Port of one node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.me, self.net = node.me, node.net
        self._jobs = JobAnswers(node, self)
        self._answers = Answers(node, self, self._jobs)
        self.http = HttpPlace(node, self)

    def control_door(self, path: Path) -> ControlDoor:
        """The control socket's door over this port."""
        return ControlDoor(self, path, self._node.limits)

    # ---- names

    def label(self, peer: PeerId) -> str:
        """What people call a peer."""
        return self._jobs.label(peer)

    def find_model(self, name: str) -> Record:
        """See `Registry.find`."""
        return self._node.registry.find(name, self._node.library.chosen())

    def find_peer(self, name: str) -> PeerId:
        """A peer id, its last 12 letters, this node's own name, or a name that exactly one peer claims in its advert.

        Raises `Refused` E-peers-01. Nothing that gives somebody rights may ask here: `whole_peer`.
        """
        if name in ("self", self._node.config.name):
            return self.me
        try:
            return peer_bytes(name)
        except PeerFault:
            pass
        everyone = self._node.swarm.members.alive(0.0)
        claims = [member.peer for member in everyone if member.name == name or named_by(member.peer, name)]
        if len(claims) == 1:
            return claims[0]
        if not claims:
            meant = meant_by((member.peer for member in everyone), name)
            cause = f"too few letters of {meant}" if meant else "names are what peers say of themselves"
            raise Refused("E-peers-01", f"no peer has the name {name!r}", cause, "dim peers")
        ids = ", ".join(sorted(peer_text(peer) for peer in claims)[:4])
        hint = "give the id of the one that you mean, or its name in your own list: --trust peers.toml"
        raise Refused("E-peers-01", f"{len(claims)} peers claim the name {name!r}", ids, hint)

    def whole_peer(self, name: str) -> PeerId:
        """For what gives rights: a whole peer id, no name and no letters. Raises `Refused` E-peers-09."""
        try:
            return peer_bytes(name)
        except PeerFault:
            pass
        try:
            meant = f"{name!r} may be {peer_text(self.find_peer(name))}, and may be somebody who wants to pass for it"
        except Refused as no:
            meant = f"{no.complaint.what}; {no.complaint.cause}"
        hint = "ask its owner for the id (dim status there), and give it whole"
        raise Refused("E-peers-09", "rights are given to a whole peer id", meant, hint)

    def find_job(self, name: Any) -> RecordId:
        """A job by id (bytes or text) or by the last letters of its text that `dim job ls` shows."""
        if isinstance(name, bytes):
            return RecordId(name)
        try:
            raw = cid_bytes(str(name))
        except PeerFault:
            raw = b""
        if raw.startswith(RECORD_PREFIX):
            return RecordId(raw)
        found = [job for job in self._jobs.job_ids() if _ends(job, str(name))]
        if len(found) == 1:
            return found[0]
        what = "no job" if not found else f"{len(found)} jobs"
        raise Refused("E-job-13", f"{what} with the id {name!r} on this node", "", "dim job ls")

    # ---- jobs

    def compose_spec(self, body: Mapping[str, Any], inputs: Sequence[bytes], token: Token) -> Submitted:
        """Hold the inputs and compose the spec; `submit` or `abandon` must follow."""
        openings = tuple(self._node.performer.hold_blob(blob) for blob in inputs)
        common = {"net": self.net, "by": self.me, "at_ms": wall_ms()}
        full = {**body, "inputs": [opening.ref for opening in openings]}
        try:
            identity, payload = compose_or_refuse("spec", common, full, "E-job-14", "the job")
        except Refused:
            for opening in openings:
                self._node.vault.release(opening.cid)
            raise
        return Submitted(token, identity, {"v": 1, "kind": "spec", **common, **full}, payload, openings)

    def rejoin(self, job: RecordId, token: Token) -> Submitted:
        """The spec of an open job once more, from the journal; `submit` or `abandon` must follow."""
        envelope = self._node.journal.envelope(job)
        assert envelope is not None, "an open job's spec is in the journal"
        self._node.vault.hold(job, envelope)
        return Submitted(token, job, open_envelope(envelope, check_signature=False).payload, b"", ())

    async def submit(self, client: object, event: Submitted) -> None:
        """Into the doors' lane of the inbox."""
        await self._node.inbox.put_door(client, event)

    def abandon(self, event: Submitted) -> None:
        """Release what the event holds."""
        for identity in (*(() if event.payload else (event.job,)), *(opening.cid for opening in event.openings)):
            self._node.vault.release(identity)

    def known_job(self, nonce: bytes) -> RecordId | None:
        """From the journal: it outlives the verdict and the restart."""
        found = self._node.journal.job_of_nonce(self.me, nonce)
        return None if found is None else RecordId(found)

    def has_ended(self, job: RecordId) -> bool:
        """From the journal."""
        return self._node.journal.end_of(job) is not None

    async def fetch_end(self, job: RecordId) -> Answer | None:
        """See `LongReads.end`."""
        return await self._node.long_reads.end(job)

    def class_names(self, job: RecordId) -> list[str]:
        """See `JobAnswers.class_names`."""
        return self._jobs.class_names(job)

    async def fetch_receipt(self, job: RecordId) -> bytes:
        """See `LongReads.receipt`."""
        return await self._node.long_reads.receipt(job)

    def watch(self, job: RecordId, watcher: Callable[[Answer], None]) -> Callable[[], None]:
        """Live events."""
        watchers = self._node.watchers
        watchers.watch(job, watcher)
        return lambda: watchers.unwatch(job, watcher)

    def trail(self, job: RecordId, after: int, most: int) -> list[Answer]:
        """See `JobAnswers.trail`."""
        return self._jobs.trail(job, after, most)

    async def job_blob(self, job: RecordId, cid: bytes) -> bytes | None:
        """See `LongReads.blob`."""
        return await self._node.long_reads.blob(job, Cid(cid))

    async def add_model(self, card: Mapping[str, Any], files: Sequence[ListedFile]) -> Answer:
        """See `Library.add_uploads`."""
        return await self._answers.models.add_uploads(card, files)

    async def model_file(self, model: Record, name: str) -> bytes:
        """Fetched once, checked by its CID, kept in the home. Whoever asks waits `model_file_seconds_max` at most."""
        node = self._node
        file = Manifest.of(model).file(name)
        if file is None or file.size_bytes > node.limits.peers.small_file_bytes_max:
            raise Refused("E-models-05", f"the model has no small file {name!r}", "", "dim models ls")
        cid = file.root
        if (found := await trio.to_thread.run_sync(node.library.kept_file, cid)) is not None:
            return found
        alive = node.swarm.members.alive(trio.current_time())
        holders = [member.peer for member in alive if model.id in member.models and member.linked]
        found = await self._handed_out(holders[: node.limits.peers.model_holders_asked_max], cid)
        if found is None:
            what, cause = f"no peer hands out {name!r} of this model now", f"{len(holders)} linked peers offer it"
            raise Refused("E-models-01", what, cause, "a peer that offers it has to be up", 1000)
        await trio.to_thread.run_sync(node.library.keep_file, found)
        return found

    async def _handed_out(self, holders: Sequence[PeerId], cid: Cid) -> bytes | None:
        """A small file from the first of these that gives it: one that is silent leaves time for the others."""
        host, limits = self._node.host, self._node.limits.peers
        assert host is not None
        with trio.move_on_after(limits.model_file_seconds_max):
            for peer in holders:
                with trio.move_on_after(limits.model_file_peer_seconds_max):
                    try:
                        return await fetch_blob(host, peer, cid, limits.small_file_bytes_max)
                    except (PeerFault, DialFailed, StreamLost):
                        continue
        return None

    def readiness(self) -> Answer:
        """Alone is joined, too, for a node that was given nobody to join."""
        node = self._node
        stats = node.pool.stats() if node.pool is not None else None
        joined = bool(node.links.all()) or not node.config.bootstrap
        found = {
            "swarm_joined": joined,
            "workers_ready": stats is not None or not node.config.execute,
            "disk_ok": not node.space.scarce,
        }
        return {"ready": all(found.values()), **found}

    def numbers(self) -> Answer:
        """`dim status`, and what only a graph over time makes sense of."""
        node = self._node
        links = node.links.all()
        commit_ms = sorted(node.journal.commit_ms)
        most = len(commit_ms) - 1
        return {
            **self._answers.status(),
            "inbox_waiting": len(node.inbox),
            "link_bytes_in": sum(link.stream.bytes_in for link in links),
            "link_bytes_out": sum(link.stream.bytes_out for link in links),
            "commit_p50_ms": commit_ms[most // 2] if commit_ms else None,
            "commit_p99_ms": commit_ms[most * 99 // 100] if commit_ms else None,
            "disk_free_bytes": node.space.free_bytes,
        }

    def job_of_verdict(self, verdict: RecordId) -> RecordId | None:
        """From the journal."""
        found = self._node.journal.rows("SELECT job FROM records WHERE id=? AND kind='verdict'", (verdict,))
        return RecordId(found[0][0]) if found else None

    def job_rows(self, jobs: Sequence[bytes] | None, most: int, before_ms: int) -> list[Answer]:
        """See `JobAnswers.rows`."""
        return self._jobs.rows(jobs, most, before_ms, whole=True)

    async def cancel(self, job: RecordId) -> None:
        """Ask the engine to end a job."""
        await self._node.inbox.put_door(self, CancelAsked(None, job))

    async def ask(self, op: str, arguments: Mapping[str, Any]) -> Answer:
        """Answer a question or carry out a command."""
        return await self._answers.to(op, arguments)


def _ends(job: bytes, letters: str) -> bool:
    """People may name a job of this node by the last eight letters that tables show, or six of them."""
    return len(letters) >= 6 and short(job).endswith(letters)
