"""Answers to the doors' questions, and the few commands that are not jobs.

Rule: an answer is a plain map that says what is, with ids as text for people and units in the names of its keys.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psutil
import trio

from dimnode.api.port import Answer
from dimnode.cabinets.policy import ANY
from dimnode.errors import Refused
from dimnode.node.blob_answers import BLOB_ARGUMENTS, BlobAnswers
from dimnode.node.clock import wall_ms
from dimnode.node.conduct_answers import conduct_map
from dimnode.node.connecting import connect
from dimnode.node.doctor import findings
from dimnode.node.job_answers import JobAnswers
from dimnode.node.kubo_answers import KUBO_ARGUMENTS, KuboAnswers
from dimnode.node.model_answers import MODEL_ARGUMENTS, ModelAnswers
from dimnode.node.peer_answers import PeerAnswers
from dimnode.node.publishers import own_index
from dimnode.node.swarm import AGENT
from dimnode.node.swarm_answers import SWARM_ARGUMENTS, SwarmAnswers
from dimnode.records.ids import cid_text, peer_text

if TYPE_CHECKING:
    from dimnode.node.backstage import Backstage
    from dimnode.node.node import Node

_NOTHING: Final = type(None)
_ARGUMENTS: Final[Mapping[str, Mapping[str, tuple[type, ...]]]] = {
    "connect": {"address": (str,)},
    **SWARM_ARGUMENTS,
    **BLOB_ARGUMENTS,
    **KUBO_ARGUMENTS,
    "peers.block": {"target": (str,), "reason": (str, _NOTHING)},
    "peers.allow": {"target": (str,)},
    "drain": {"on": (bool,)},
    "models.load": {"model": (str,)},
    "models.bench": {"model": (str,), "batches": (list,), "free_size": (int,), "seconds": (float, int)},
    **MODEL_ARGUMENTS,
    "data.add": {
        "name": (str,),
        "path": (str,),
        "policy": (dict,),
        "label": (str, _NOTHING),
        "exclude": (list, _NOTHING),
    },
    "data.rm": {"name": (str,)},
    "rep.explain": {"peer": (str,)},
    "job.validate": {"job": (dict,)},
    "job.ls": {"most": (int, _NOTHING)},
    **{f"job.{verb}": {"job": (str, bytes)} for verb in ("show", "events", "result", "receipt", "cancel")},
}
"""What each operation has to be given, and of which type."""


class Answers:
    """One method per operation; `to` finds it."""

    def __init__(self, node: Node, backstage: Backstage, jobs: JobAnswers) -> None:
        self._node, self._backstage, self._label = node, backstage, jobs.label
        self._started = time.monotonic()
        self.models = ModelAnswers(node, backstage)
        self._operations = {
            "ping": self._ping,
            "status": self._status,
            "doctor": self._doctor,
            "connect": self._connect,
            "stop": self._stop,
            "drain": self._drain,
            "models.load": self._models_load,
            "models.bench": self._models_bench,
            "http.open": self._http_open,
            "data.add": self._cabinet_add,
            "data.ls": self._cabinets,
            "data.rm": self._cabinet_remove,
            "rep.ls": self._standing,
            "rep.explain": self._explain,
            **jobs.operations,
            **self.models.operations,
            **PeerAnswers(node, backstage).operations,
            **SwarmAnswers(node).operations,
            **BlobAnswers(node, backstage).operations,
            **KuboAnswers(node, backstage).operations,
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

    async def _ping(self, _: Mapping[str, Any]) -> Answer:
        """Clients ask whether anybody is there when something else takes long."""
        return {}

    async def _status(self, _: Mapping[str, Any]) -> Answer:
        return self.status()

    def status(self) -> Answer:
        """What the node is and has done so far."""
        node = self._node
        assert node.host is not None
        stats = node.pool.stats() if node.pool else None
        return {
            "peer": peer_text(node.me),
            "name": node.config.name,
            "swarm": node.swarm_name,
            "version": AGENT,
            "http": self._backstage.http.url,
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
            "tasks_refused": dict(stats.refused) if stats else {},
            "workers": stats.workers if stats else 0,
            "worker_pids": list(stats.worker_pids) if stats else [],
            "sandbox": node.swarm.sandbox,
            "kubo": dict(node.kubo.status()) if node.kubo.on else None,
            "models": len(node.library.models),
            "index": own_index(node),
            "cabinets": len(node.library.cabinets.by_name),
            "rss_bytes": psutil.Process().memory_info().rss,
            "cpu_seconds": time.process_time(),
            "held_bytes": node.vault.bytes_held,
            "held_entries": len(node.vault),
            "commits": node.journal.commits,
            "journal_bytes": node.journal.used_bytes(),
            "journal_bytes_max": node.upkeep.bytes_max,
            "loop_passes": node.loop.passes,
            "loop_events": node.loop.events,
            "inbox_highest": node.inbox.highest,
            "conduct": conduct_map(node.host.conduct()),
            "loop_late_p99_ms": round(node.watchers.lateness_p99_ms(), 2),
            **node.labour.status(),
        }

    async def _doctor(self, _: Mapping[str, Any]) -> Answer:
        if self._node.pool is not None:
            await self._node.pool.prove()
            self._node.labour.describe()
        return {"findings": findings(self._node)}

    async def _connect(self, arguments: Mapping[str, Any]) -> Answer:
        return await connect(self._node, arguments["address"])

    async def _http_open(self, _: Mapping[str, Any]) -> Answer:
        """A first key was made while the node ran."""
        return {"url": await self._backstage.http.open(self._node.background())}

    async def _stop(self, _: Mapping[str, Any]) -> Answer:
        self._node.stop.set()
        return {"stopping": True}

    # ---- its work for others

    async def _drain(self, arguments: Mapping[str, Any]) -> Answer:
        self._node.labour.drain(arguments["on"])
        return {"draining": self._node.labour.draining}

    async def _models_load(self, arguments: Mapping[str, Any]) -> Answer:
        return await self._node.labour.load_now(arguments["model"])

    async def _models_bench(self, arguments: Mapping[str, Any]) -> Answer:
        said = arguments
        return await self._node.labour.bench(said["model"], said["batches"], said["free_size"], float(said["seconds"]))

    # ---- what is offered

    async def _cabinet_add(self, arguments: Mapping[str, Any]) -> Answer:
        replaced = arguments["name"] in self._node.library.cabinets.by_name
        cabinet = await self._node.library.cabinets.add(
            arguments["name"],
            Path(arguments["path"]),
            arguments.get("label") or "",
            arguments.get("exclude") or [],
            arguments["policy"],
            wall_ms(),
        )
        self._node.swarm.renew_advert()
        policy = cid_text(cabinet.policy_record.id)
        return {"name": cabinet.name, "columns": list(cabinet.columns), "policy": policy, "replaced": replaced}

    async def _cabinet_remove(self, arguments: Mapping[str, Any]) -> Answer:
        await self._node.library.cabinets.remove(arguments["name"])
        self._node.swarm.renew_advert()
        return {"name": arguments["name"]}

    async def _cabinets(self, _: Mapping[str, Any]) -> Answer:
        rows = [
            {
                "name": cabinet.name,
                "path": cabinet.path,
                "label": cabinet.label,
                "exclude": list(cabinet.exclude),
                "columns": list(cabinet.columns),
                "operations": sorted(cabinet.policy.operations),
                "min_cohort": cabinet.policy.min_cohort,
                "where": sorted(cabinet.policy.where),
                "any_model": cabinet.policy.models == ANY,
                "policy": cid_text(cabinet.policy_record.id),
            }
            for cabinet in self._node.library.cabinets.by_name.values()
        ]
        return {"cabinets": rows}

    # ---- standing

    async def _standing(self, _: Mapping[str, Any]) -> Answer:
        now_ms = wall_ms()
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
        now_ms = wall_ms()
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
