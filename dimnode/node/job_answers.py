"""Answers to questions about jobs: from the journal, and for recent ones from what was watched.

Rule: a job's records are its truth; byte counts and live events are remembered for a while and then only the records.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from dimnode.api.compiling import compile_aside
from dimnode.api.control import blobs_of
from dimnode.api.jobfile import read_job
from dimnode.api.port import Answer
from dimnode.consensus.selection import Need
from dimnode.consensus.tiers import check_quorum, quote
from dimnode.errors import Refused
from dimnode.node.clock import wall_ms
from dimnode.records.envelope import Record, open_envelope
from dimnode.records.ids import PeerId, RecordId, cid_text, peer_letters, peer_text
from dimnode.records.manifest import title_of

if TYPE_CHECKING:
    from dimnode.node.backstage import Backstage
    from dimnode.node.node import Node


_WHAT_OF_KIND: Final = {
    "spec": "submitted",
    "lease": "leased",
    "answer": "answered",
    "ruling": "ruled",
    "verdict": "ended",
}
"""What people call the moment at which a record of this kind was made."""


class JobAnswers:
    """The `job.` operations that change nothing but by an event."""

    def __init__(self, node: Node, backstage: Backstage) -> None:
        self._node, self._backstage = node, backstage
        self.operations: dict[str, Callable[[Mapping[str, Any]], Awaitable[Answer]]] = {
            "job.validate": self._validate,
            "job.ls": self._jobs,
            "job.show": self._job,
            "job.events": self._events,
            "job.result": self._result,
            "job.receipt": self._receipt,
            "job.cancel": self._cancel,
        }

    async def _validate(self, arguments: Mapping[str, Any]) -> Answer:
        job = read_job(arguments["job"])
        compiled = await compile_aside(job, self._backstage, blobs_of(arguments))
        quorum = check_quorum(job.quorum.n, job.quorum.k) if job.quorum else None
        found = quote(job.tier, quorum)
        steps = []
        for entry, task, model in zip(job.tasks, compiled.body["tasks"], compiled.models, strict=True):
            if model is not None:
                self._node.registry.require(model, task["op"], wall_ms())
            need = Need(task.get("model", b""), task["op"], task.get("cabinet", ""), task.get("peer"))
            peers = [seat.peer for seat in self._node.engine.roster.capable(need)]
            steps.append(
                {
                    "op": task["op"],
                    "model": title_of(model) if model else "-",
                    "publisher": self.label(model.by) if model else "",
                    "publishers": self._node.registry.publishers(entry.model) if model else 0,
                    "cabinet": task.get("cabinet", ""),
                    "peers": list(map(self.label, peers)),
                    "pinned": "peer" in task,
                }
            )
        return {
            "pattern": job.pattern,
            "tier": found.tier,
            "cost_factor": found.cost_permille / 1000,
            "residual_risk": found.residual,
            "steps": steps,
            "runnable": all(step["peers"] for step in steps),
        }

    def job_ids(self) -> list[RecordId]:
        """All jobs that this node owns, in no order."""
        return [RecordId(row[0]) for row in self._node.journal.each("SELECT n.job FROM nonces n")]

    async def _jobs(self, arguments: Mapping[str, Any]) -> Answer:
        return {"jobs": self.rows(None, max(1, min(arguments.get("most") or 20, 1000)))}

    def rows(
        self, jobs: Sequence[bytes] | None, most: int, before_ms: int = 2**63, *, whole: bool = False
    ) -> list[Answer]:
        """A line for each of these jobs, or of all that this node owns, newest first. `whole`: more than `most` when
        several share the last one's millisecond, so that what comes `before_ms` of it misses none."""
        query = (
            "SELECT r.id, r.envelope, e.status FROM records r "
            "LEFT JOIN ends e ON e.job = r.id WHERE r.kind = 'spec' "  # who keeps a spec owns its job
        )
        if jobs is not None:
            query += f"AND r.id IN ({','.join('?' * len(jobs))}) "
        rows: list[Answer] = []
        for identity, envelope, status in self._node.journal.each(query + "ORDER BY r.seq DESC", tuple(jobs or ())):
            spec = open_envelope(envelope, check_signature=False).payload
            if spec["at_ms"] >= before_ms:
                continue
            if len(rows) >= most and not (whole and spec["at_ms"] == rows[-1]["at_ms"]):
                break
            rows.append(
                {
                    "job": cid_text(identity),
                    "label": spec.get("label", ""),
                    "pattern": spec["pattern"],
                    "tier": spec["tier"],
                    "at_ms": spec["at_ms"],
                    "status": status or "open",
                }
            )
        return rows

    def _records(self, job: RecordId) -> list[Record]:
        query = "SELECT envelope FROM records WHERE job=? ORDER BY seq"
        return [open_envelope(row[0], check_signature=False) for row in self._node.journal.rows(query, (job,))]

    async def _job(self, arguments: Mapping[str, Any]) -> Answer:
        job = self._backstage.find_job(arguments["job"])
        records = self._records(job)
        if not records:
            raise Refused("E-job-13", "no such job on this node", "", "dim job ls")
        trail = self._node.watchers.trail(job)
        return {
            "job": cid_text(job),
            "records": [
                {
                    "record": cid_text(record.id),
                    "kind": record.kind,
                    "by": self.label(record.by),
                    "at_ms": record.payload["at_ms"],
                    "task": record.payload.get("task"),
                    "epoch": record.payload.get("epoch"),
                    "status": record.payload.get("status", record.payload.get("reason", "")),
                    "executor": self.label(record.payload["executor"]) if "executor" in record.payload else "",
                }
                for record in records
            ],
            "end": _without_outputs(await self._node.long_reads.whatever_is_left(job)),
            "frames_in": _counts(trail.bytes_in, self.label) if trail else [],
            "frames_out": _counts(trail.bytes_out, self.label) if trail else [],
        }

    def trail(self, job: RecordId, after: int, most: int) -> list[Answer]:
        """A job's records as events; an event's id is the record's place in the journal."""
        query = "SELECT seq, envelope FROM records WHERE job=? AND seq>? ORDER BY seq LIMIT ?"
        found = []
        for seq, envelope in self._node.journal.rows(query, (job, after, most)):
            record = open_envelope(envelope, check_signature=False)
            said = record.payload
            found.append(
                {
                    "id": seq,
                    "at_ms": said["at_ms"],
                    "what": _WHAT_OF_KIND.get(record.kind, record.kind),
                    "task": said.get("task", 0),
                    "epoch": said.get("epoch", 0),
                    "peer": peer_text(said.get("executor", record.by)),
                    "text": str(said.get("status", "") or said.get("code", "")),
                }
            )
        return found

    async def _events(self, arguments: Mapping[str, Any]) -> Answer:
        job = self._backstage.find_job(arguments["job"])
        trail = self._node.watchers.trail(job)
        events = [dict(event) for event in trail.events] if trail else []
        for event in events:
            event["job"] = cid_text(event["job"])
            event["peer"] = self.label(event["peer"]) if event["peer"] else ""
        if not events:  # after a restart: what the records say
            events = [{"job": cid_text(job), **event_of(record, self.label)} for record in self._records(job)]
        return {"events": events}

    async def _result(self, arguments: Mapping[str, Any]) -> Answer:
        job = self._backstage.find_job(arguments["job"])
        ended = await self._backstage.fetch_end(job)
        if ended is None:
            raise Refused("E-job-12", "this job has no verdict yet, or is not known here", "", "dim job ls")
        return ended

    async def _receipt(self, arguments: Mapping[str, Any]) -> Answer:
        return {"receipt": await self._backstage.fetch_receipt(self._backstage.find_job(arguments["job"]))}

    async def _cancel(self, arguments: Mapping[str, Any]) -> Answer:
        job = self._backstage.find_job(arguments["job"])
        await self._backstage.cancel(job)
        return {"job": cid_text(job), "cancelling": self._node.engine.owner.book.find(job) is not None}

    def class_names(self, job: RecordId) -> list[str]:
        """Of the last step whose model has names for its classes, as its publisher signed them."""
        envelope = self._node.journal.envelope(job)
        tasks = [] if envelope is None else open_envelope(envelope, check_signature=False).payload.get("tasks", [])
        manifests = (self._node.registry.manifests.get(task.get("model", b"")) for task in reversed(tasks))
        return next((list(found.payload["labels"]) for found in manifests if found and found.payload["labels"]), [])

    def label(self, peer: PeerId) -> str:
        """A name that it alone claims, or as many letters of its id as commands take; both if others claim it."""
        own = self._node.config.name or "self"
        if peer == self._node.me:
            return own
        member = self._node.swarm.members.get(peer)
        if member is None or not member.name:
            return peer_letters(peer)
        taken = member.name in (own, "self") or self._node.swarm.members.claims(member.name) > 1
        return f"{member.name} …{peer_letters(peer)}" if taken else member.name


def event_of(record: Record, label: Callable[[PeerId], str]) -> Answer:
    """A record of a job in the words of the live event that it made; `peer`: who was leased to, or who answered."""
    said = record.payload
    peer = said.get("executor") or (record.by if record.kind in ("answer", "ruling") else None)
    return {
        "at_ms": said["at_ms"],
        "what": _WHAT_OF_KIND.get(record.kind, record.kind),
        "task": said.get("task", 0),
        "epoch": said.get("epoch", 0),
        "peer": label(peer) if peer else "",
        "text": said.get("status", ""),
    }


def _without_outputs(ended: Answer | None) -> Answer | None:
    if ended is None:
        return None
    plain = {key: value for key, value in ended.items() if key != "outputs"}
    plain["answer_kept"] = None not in ended["outputs"]
    return {**plain, "job": cid_text(plain["job"]), "verdict": cid_text(plain["verdict"])}


def _counts(counted: Any, label: Any) -> list[Answer]:
    return [{"peer": label(peer), "what": what, "bytes": count} for (peer, what), count in sorted(counted.items())]
