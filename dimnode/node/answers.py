"""Answers to the doors' questions, and the few commands that are not jobs.

Rule: an answer is a plain map that says what is, with ids as text for people and units in the names of its keys.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import psutil
import trio

from dimnode.api.control import blobs_of
from dimnode.api.jobfile import compile_job, read_job
from dimnode.api.port import Answer
from dimnode.consensus.selection import Need
from dimnode.consensus.tiers import check_quorum, quote
from dimnode.errors import Refused
from dimnode.node.doctor import findings
from dimnode.node.library import ModelCard, model_label
from dimnode.node.swarm import AGENT
from dimnode.p2p.host.streams import DialFailed
from dimnode.records.envelope import Record, open_envelope
from dimnode.records.ids import Cid, RecordId, cid_text, peer_text, short

if TYPE_CHECKING:
    from dimnode.node.backstage import Backstage
    from dimnode.node.node import Node

_NOTHING: Final = type(None)
_ARGUMENTS: Final[Mapping[str, Mapping[str, tuple[type, ...]]]] = {
    "connect": {"address": (str,)},
    "models.add": {"card": (dict,), "path": (str,)},
    "data.add": {
        "name": (str,),
        "path": (str,),
        "policy": (dict,),
        "label": (str, _NOTHING),
        "exclude": (list, _NOTHING),
    },
    "rep.explain": {"peer": (str,)},
    "job.validate": {"job": (dict,)},
    "job.ls": {"most": (int, _NOTHING)},
    **{f"job.{verb}": {"job": (str, bytes)} for verb in ("show", "events", "result", "receipt", "cancel")},
}
"""What each operation has to be given, and of which type."""


class Answers:
    """One method per operation; `to` finds it."""

    def __init__(self, node: Node, backstage: Backstage) -> None:
        self._node, self._backstage = node, backstage
        self._started = time.monotonic()
        self._operations = {
            "status": self._status,
            "peers": self._peers,
            "doctor": self._doctor,
            "connect": self._connect,
            "stop": self._stop,
            "models.add": self._models_add,
            "models.ls": self._models,
            "data.add": self._data_add,
            "data.ls": self._data,
            "rep.ls": self._standing,
            "rep.explain": self._explain,
            "job.validate": self._validate,
            "job.ls": self._jobs,
            "job.show": self._job,
            "job.events": self._events,
            "job.result": self._result,
            "job.receipt": self._receipt,
            "job.cancel": self._cancel,
        }

    async def to(self, op: str, arguments: Mapping[str, Any]) -> Answer:
        """Raises `Refused` for an unknown operation or a wrong argument."""
        operation = self._operations.get(op)
        if operation is None:
            raise Refused("E-api-02", f"this node does not know {op!r}", "client and node are of different versions")
        for name, allowed in _ARGUMENTS.get(op, {}).items():
            if type(arguments.get(name)) not in allowed:
                wanted = " or ".join(found.__name__ for found in allowed if found is not _NOTHING)
                raise Refused("E-api-03", f"{op}: a wrong argument", f"{name} has to be: {wanted}")
        return await operation(arguments)

    # ---- the node

    async def _status(self, _: Mapping[str, Any]) -> Answer:
        node = self._node
        assert node.host is not None
        stats = node.pool.stats() if node.pool else None
        return {
            "peer": peer_text(node.me),
            "name": node.config.name,
            "version": AGENT,
            "addresses": node.host.addresses(),
            "up_seconds": round(time.monotonic() - self._started, 1),
            "peers_linked": len(node.links.all()),
            "peers_known": len(node.swarm.members),
            "dht_peers": len(node.host.dht_peers()),
            "jobs_open": len(node.engine.owner.book),
            "tasks_held": node.engine.executor.sizes()["works"],
            "tasks_queued": stats.queued if stats else 0,
            "tasks_running": stats.running if stats else 0,
            "tasks_finished": dict(stats.finished) if stats else {},
            "workers": stats.workers if stats else 0,
            "worker_pids": list(stats.worker_pids) if stats else [],
            "sandbox": node.swarm.sandbox,
            "models": len(node.library.models),
            "cabinets": len(node.library.cabinets),
            "rss_bytes": psutil.Process().memory_info().rss,
            "cpu_seconds": time.process_time(),
            "held_bytes": node.vault.bytes_held,
            "held_entries": len(node.vault),
            "commits": node.journal.commits,
            "loop_passes": node.loop.passes,
            "loop_events": node.loop.events,
            "inbox_highest": node.inbox.highest,
            "loop_late_p99_ms": round(node.watchers.lateness_p99_ms(), 2),
        }

    async def _doctor(self, _: Mapping[str, Any]) -> Answer:
        return {"findings": findings(self._node)}

    async def _connect(self, arguments: Mapping[str, Any]) -> Answer:
        assert self._node.host is not None
        try:
            peer = await self._node.host.connect(arguments["address"])
        except DialFailed as error:
            raise Refused("E-p2p-01", f"cannot reach {arguments['address']}", error.reason, "dim doctor") from None
        return {"peer": peer_text(peer)}

    async def _stop(self, _: Mapping[str, Any]) -> Answer:
        self._node.stop.set()
        return {"stopping": True}

    async def _peers(self, _: Mapping[str, Any]) -> Answer:
        node, now = self._node, trio.current_time()
        rows = []
        for member in node.swarm.members.alive(now):
            link = node.links.get(member.peer)
            rows.append(
                {
                    "peer": peer_text(member.peer),
                    "name": member.name,
                    "linked": link is not None,
                    "path": "direct" if link else "-",
                    "rtt_ms": round(link.rtt_ms, 2) if link and link.rtt_ms is not None else None,
                    "agent": member.agent,
                    "models": [model_label(m) for i in member.models if (m := node.library.manifests.get(i))],
                    "cabinets": {name: list(columns) for name, columns in member.columns.items()},
                    "slots": member.slots,
                    "free_slots": member.free_slots,
                    "load_percent": member.load_permille / 10,
                    "sandbox": member.sandbox,
                    "addresses": list(member.addresses),
                    "heard_seconds_ago": round(now - member.heard_mono, 1) if member.heard_mono else None,
                    "stream_bytes_in": link.stream.bytes_in if link else 0,
                    "stream_bytes_out": link.stream.bytes_out if link else 0,
                }
            )
        return {"peers": rows, "me": peer_text(node.me)}

    # ---- what is offered

    async def _models_add(self, arguments: Mapping[str, Any]) -> Answer:
        try:
            card = msgspec.convert(arguments["card"], ModelCard)
        except msgspec.ValidationError as error:
            raise Refused("E-models-07", f"the model's card is wrong: {error}", "", "docs/operator.md") from None
        record = await self._node.library.add_model(card, Path(arguments["path"]), time.time_ns() // 1_000_000)
        self._node.swarm.renew_advert()
        return {"model": cid_text(record.id), "name": model_label(record)}

    async def _models(self, _: Mapping[str, Any]) -> Answer:
        node = self._node
        holders: dict[RecordId, list[str]] = {}
        for member in node.swarm.members.alive(trio.current_time()):
            for model in member.models:
                holders.setdefault(model, []).append(member.name or short(member.peer))
        rows = []
        for record in sorted(node.library.manifests.values(), key=model_label):
            here = record.id in node.library.models
            if here or record.id in holders:
                said = record.payload
                rows.append(
                    {
                        "model": cid_text(record.id),
                        "name": model_label(record),
                        "publisher": peer_text(record.by),
                        "format": said["format"],
                        "origin": said["origin"],
                        "licence": said["licence"],
                        "summary": said.get("summary", ""),
                        "labels": said["labels"],
                        "inputs": said["inputs"],
                        "outputs": said["outputs"],
                        "bytes": sum(row[2] for row in said["files"]),
                        "here": here,
                        "peers": holders.get(record.id, []),
                    }
                )
        return {"models": rows}

    async def _data_add(self, arguments: Mapping[str, Any]) -> Answer:
        cabinet = await self._node.library.add_cabinet(
            arguments["name"],
            Path(arguments["path"]),
            arguments.get("label") or "",
            arguments.get("exclude") or [],
            arguments["policy"],
            time.time_ns() // 1_000_000,
        )
        self._node.swarm.renew_advert()
        return {"name": cabinet.name, "columns": list(cabinet.columns), "policy": cid_text(cabinet.policy_record.id)}

    async def _data(self, _: Mapping[str, Any]) -> Answer:
        rows = [
            {
                "name": cabinet.name,
                "path": cabinet.path,
                "label": cabinet.label,
                "exclude": list(cabinet.exclude),
                "columns": list(cabinet.columns),
                "operations": sorted(cabinet.policy.operations),
                "min_cohort": cabinet.policy.min_cohort,
                "policy": cid_text(cabinet.policy_record.id),
            }
            for cabinet in self._node.library.cabinets.values()
        ]
        return {"cabinets": rows}

    # ---- standing

    async def _standing(self, _: Mapping[str, Any]) -> Answer:
        now_ms = time.time_ns() // 1_000_000
        standing = self._node.engine.roster.standing
        rows = []
        for member in self._node.swarm.members.alive(trio.current_time()):
            for line in standing.explain(member.peer, now_ms):
                rows.append(
                    {
                        "peer": peer_text(member.peer),
                        "name": member.name,
                        "context": line.context,
                        "mean": round(line.mean, 4),
                        "events": len(line.events),
                        "barred_until_ms": line.barred_until_ms,
                    }
                )
        return {"standing": rows}

    async def _explain(self, arguments: Mapping[str, Any]) -> Answer:
        peer = self._backstage.find_peer(arguments["peer"])
        now_ms = time.time_ns() // 1_000_000
        lines = []
        for line in self._node.engine.roster.standing.explain(peer, now_ms):
            lines.append(
                {
                    "context": line.context,
                    "alpha": round(line.alpha, 3),
                    "beta": round(line.beta, 3),
                    "mean": round(line.mean, 4),
                    "barred_until_ms": line.barred_until_ms,
                    "events": [
                        {
                            "at_ms": event.at_ms,
                            "good": event.good,
                            "kind": event.kind,
                            "weight": event.weight_permille / 1000,
                            "record": cid_text(event.record),
                        }
                        for event in line.events[-20:]
                    ],
                }
            )
        return {"peer": peer_text(peer), "contexts": lines}

    # ---- jobs

    async def _validate(self, arguments: Mapping[str, Any]) -> Answer:
        job = read_job(arguments["job"])
        compiled = compile_job(job, self._backstage, blobs_of(arguments))
        quorum = check_quorum(job.quorum.n, job.quorum.k) if job.quorum else None
        found = quote(job.tier, quorum)
        steps = []
        for task, model in zip(compiled.body["tasks"], compiled.models, strict=True):
            need = Need(task.get("model", b""), task["op"], task.get("cabinet", ""), task.get("peer"))
            peers = [seat.peer for seat in self._node.engine.roster.capable(need)]
            steps.append(
                {
                    "op": task["op"],
                    "model": model_label(model) if model else "-",
                    "cabinet": task.get("cabinet", ""),
                    "peers": [self._label(peer) for peer in peers],
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
        """All jobs that this node owns, oldest first."""
        return [RecordId(row[0]) for row in self._node.journal.each("SELECT n.job FROM nonces n")]

    async def _jobs(self, arguments: Mapping[str, Any]) -> Answer:
        query = (
            "SELECT r.id, r.envelope, e.status FROM records r JOIN nonces n ON n.job = r.id "
            "LEFT JOIN ends e ON e.job = r.id WHERE r.kind = 'spec' ORDER BY r.seq DESC LIMIT ?"
        )
        rows = []
        most = max(1, min(arguments.get("most") or 20, 1000))
        for identity, envelope, status in self._node.journal.rows(query, (most,)):
            spec = open_envelope(envelope, check_signature=False).payload
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
        return {"jobs": rows}

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
                    "by": self._label(record.by),
                    "at_ms": record.payload["at_ms"],
                    "task": record.payload.get("task"),
                    "epoch": record.payload.get("epoch"),
                    "status": record.payload.get("status", record.payload.get("reason", "")),
                    "executor": self._label(record.payload["executor"]) if "executor" in record.payload else "",
                }
                for record in records
            ],
            "end": _without_outputs(self.end(job)),
            "frames_in": _counts(trail.bytes_in, self._label) if trail else [],
            "frames_out": _counts(trail.bytes_out, self._label) if trail else [],
        }

    async def _events(self, arguments: Mapping[str, Any]) -> Answer:
        job = self._backstage.find_job(arguments["job"])
        trail = self._node.watchers.trail(job)
        events = [dict(event) for event in trail.events] if trail else []
        for event in events:
            event["job"] = cid_text(event["job"])
            event["peer"] = self._label(event["peer"]) if event["peer"] else ""
        if not events:  # after a restart: what the records say
            for record in self._records(job):
                said = record.payload
                events.append(
                    {
                        "at_ms": said["at_ms"],
                        "job": cid_text(job),
                        "what": record.kind,
                        "task": said.get("task", 0),
                        "epoch": said.get("epoch", 0),
                        "peer": self._label(said.get("executor", record.by)),
                        "text": said.get("status", ""),
                    }
                )
        return {"events": events}

    async def _result(self, arguments: Mapping[str, Any]) -> Answer:
        job = self._backstage.find_job(arguments["job"])
        ended = self.end(job)
        if ended is None:
            raise Refused("E-job-12", "this job has no verdict yet, or is not known here", "", "dim job ls")
        return ended

    async def _receipt(self, arguments: Mapping[str, Any]) -> Answer:
        return {"receipt": self._backstage.receipt(self._backstage.find_job(arguments["job"]))}

    async def _cancel(self, arguments: Mapping[str, Any]) -> Answer:
        job = self._backstage.find_job(arguments["job"])
        await self._backstage.cancel(job)
        return {"job": cid_text(job), "cancelling": self._node.engine.owner.book.find(job) is not None}

    def end(self, job: RecordId) -> Answer | None:
        """Verdict, status and output bytes of an ended job."""
        found = self._node.journal.end_of(job)
        if found is None:
            return None
        verdict, status = found
        envelope = self._node.journal.envelope(verdict)
        assert envelope is not None
        said = open_envelope(envelope, check_signature=False).payload
        cids = {}
        query = "SELECT o.ref, o.cid FROM openings o JOIN records r ON r.id = o.record WHERE r.job=?"
        for ref, cid in self._node.journal.rows(query, (job,)):
            cids[ref] = Cid(cid)
        outputs = [self._node.journal.blob(cids[ref]) for ref in said["outputs"] if ref in cids]
        ended: Answer = {"job": job, "status": status, "verdict": verdict, "outputs": outputs}
        if "code" in said:
            ended |= {"code": said["code"], "reason": said.get("reason", "")}
        return ended

    def _label(self, peer: Any) -> str:
        """A name that the peer claims, or the end of its id."""
        if peer == self._node.me:
            return self._node.config.name or "self"
        member = self._node.swarm.members.get(peer)
        return (member.name if member else "") or short(peer)


def _without_outputs(ended: Answer | None) -> Answer | None:
    if ended is None:
        return None
    plain = {key: value for key, value in ended.items() if key != "outputs"}
    return {**plain, "job": cid_text(plain["job"]), "verdict": cid_text(plain["verdict"])}


def _counts(counted: Any, label: Any) -> list[Answer]:
    return [{"peer": label(peer), "what": what, "bytes": count} for (peer, what), count in sorted(counted.items())]
