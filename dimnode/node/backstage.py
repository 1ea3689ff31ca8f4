"""The node as its doors see it: the one implementation of `api.port.NodePort`.

Rule: questions are answered from the journal, the library and what the swarm was heard to say; a job is only ever
changed by an event in the inbox.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dimnode.api.control import ControlDoor
from dimnode.api.port import Answer, Token
from dimnode.errors import PeerFault, Refused
from dimnode.jobs.events import CancelAsked, Submitted
from dimnode.node.answers import Answers
from dimnode.node.job_answers import JobAnswers
from dimnode.node.library import compose_or_refuse
from dimnode.node.receipts import make_receipt
from dimnode.records.envelope import Record, open_envelope
from dimnode.records.ids import RECORD_PREFIX, PeerId, RecordId, cid_bytes, peer_bytes, short

if TYPE_CHECKING:
    from dimnode.node.node import Node


class Backstage:
    """Port of one node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.me, self.net = node.me, node.net
        self._jobs = JobAnswers(node, self)
        self._answers = Answers(node, self, self._jobs)

    def control_door(self, path: Path) -> ControlDoor:
        """The control socket's door over this port."""
        return ControlDoor(self, path, self._node.limits)

    # ---- names

    def find_model(self, name: str) -> Record:
        """See `Library.find`."""
        return self._node.library.find(name)

    def find_peer(self, name: str) -> PeerId:
        """A peer id, this node's own name, or a name that exactly one peer claims in its advert."""
        if name in ("self", self._node.config.name):
            return self.me
        try:
            return peer_bytes(name)
        except PeerFault:
            pass
        everyone = self._node.swarm.members.alive(0.0)
        claims = [member.peer for member in everyone if member.name == name or _ends(member.peer, name)]
        if len(claims) == 1:
            return claims[0]
        what = "no peer has" if not claims else f"{len(claims)} peers claim"
        raise Refused("E-peers-01", f"{what} the name {name!r}", "names are what peers say of themselves", "dim peers")

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
        common = {"net": self.net, "by": self.me, "at_ms": time.time_ns() // 1_000_000}
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

    def job_end(self, job: RecordId) -> Answer | None:
        """How a job ended, with its outputs."""
        return self._jobs.end(job)

    def receipt(self, job: RecordId) -> bytes:
        """See `receipts.make_receipt`."""
        return make_receipt(self._node.journal, job)

    def watch(self, job: RecordId, watcher: Callable[[Answer], None]) -> Callable[[], None]:
        """Live events."""
        watchers = self._node.watchers
        watchers.watch(job, watcher)
        return lambda: watchers.unwatch(job, watcher)

    async def cancel(self, job: RecordId) -> None:
        """Ask the engine to end a job."""
        await self._node.inbox.put_door(self, CancelAsked(None, job))

    async def ask(self, op: str, arguments: Mapping[str, Any]) -> Answer:
        """Answer a question or carry out a command."""
        return await self._answers.to(op, arguments)


def _ends(identity: bytes, letters: str) -> bool:
    """People may name a thing by the last eight letters that tables show."""
    return len(letters) >= 6 and short(identity).endswith(letters)
