"""A stage for one engine: the test plays its peers, clients and pool, and counts what the engine holds."""

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from hashlib import sha256
from typing import Any, TypeVar

from dimnode.jobs.effects import Append, Effect, Forget, Release, Remember, Reply, Send
from dimnode.jobs.engine import Engine
from dimnode.jobs.events import (
    AdvertHeard,
    AnswerReceived,
    Event,
    Key,
    LeaseReceived,
    Now,
    PeerUp,
    Ruled,
    RulingReceived,
    RunFinished,
    RunRefused,
    Submitted,
    Told,
)
from dimnode.jobs.replay import JournalRow
from dimnode.limits import LIMITS, Limits
from dimnode.records.codec import decode
from dimnode.records.ids import Cid, PeerId, RecordId, blob_cid, peer_of_key, record_id
from dimnode.records.kinds import OPEN_SWARM_ID, compose
from dimnode.records.receipt import Opening

Kind = TypeVar("Kind")

MODEL, OTHER_MODEL, THIRD_MODEL = record_id(b"one"), record_id(b"two"), record_id(b"three")
MODELS = {MODEL: "mlp", OTHER_MODEL: "mlp", THIRD_MODEL: "mlp"}
CABINET = "patients"
WALL_MS = 1_700_000_000_000


def peer(name: str) -> PeerId:
    """A peer id, from a name."""
    return peer_of_key(sha256(name.encode()).digest())


ME, A, B, C, D, E, F, ABSENT_PEER = (peer(name) for name in ("me", "a", "b", "c", "d", "e", "f", "absent"))


def opening(blob: bytes, salt: str) -> Opening:
    """The opening of a blob under a salt."""
    return Opening.of(sha256(salt.encode()).digest(), blob_cid(blob))


def of(kind: type[Kind], effects: Iterable[object]) -> list[Kind]:
    """The effects of one kind."""
    return [effect for effect in effects if isinstance(effect, kind)]


def sent(what: str, effects: Iterable[Effect]) -> list[Send]:
    """The frames with this word."""
    return [effect for effect in of(Send, effects) if effect.what == what]


def appended(kind: str, effects: Iterable[Effect]) -> list[Append]:
    """The appended records of this kind."""
    return [effect for effect in of(Append, effects) if effect.kind == kind]


def body(append: Append) -> dict[str, Any]:
    """What an own record says."""
    return decode(append.payload)


class Stage:
    """An engine, its clock, its journal rows, and holds by id. `peers` are linked and offer everything."""

    def __init__(self, peers: Iterable[PeerId] = (A, B, C), limits: Limits = LIMITS, me: PeerId = ME) -> None:
        self.me, self.limits = me, limits
        self.now = Now(1000.0, WALL_MS)
        self.holds: Counter[RecordId | Cid] = Counter()
        self.rows: dict[RecordId, JournalRow] = {}
        self.payloads: dict[RecordId, dict[str, Any]] = {}
        self.forgotten: set[Key] = set()
        self.evidence: list[Remember] = []
        self.count = 0
        self.engine = Engine(me, OPEN_SWARM_ID, random.Random(7), limits)
        for other in peers:
            self.link(other)

    # ---- events in, effects out

    def do(self, event: Event) -> list[Effect]:
        """Handle an event; every blob and record that effects append, hold or release is accounted for."""
        return self.note(self.engine.handle(event, self.now))

    def note(self, effects: list[Effect]) -> list[Effect]:
        for effect in effects:
            match effect:
                case Append():
                    self._append(effect)
                case Forget(key):
                    self.forgotten.add(key)
                case Remember():
                    self.evidence.append(effect)
                case Release():
                    self.holds.subtract((*effect.records, *effect.blobs))
                    assert min(self.holds.values(), default=0) >= 0, "released what nobody holds"
        return effects

    def _append(self, row: Append) -> None:
        if row.payload:
            self.holds[row.id] += 1
            self.payloads[row.id] = decode(row.payload)
        before = self.rows.get(row.id)
        accepted = bool(row.accepted) or (before is not None and before.accepted)
        openings = before.openings if before is not None and before.openings else row.openings
        payload = self.payloads[row.id]
        self.rows[row.id] = JournalRow(row.kind, row.id, row.key, payload["by"], payload, openings, accepted)

    @property
    def held(self) -> int:
        """How many holds there are."""
        return sum(self.holds.values())

    def later(self, seconds: float) -> None:
        """Let time pass; nothing is told to the engine."""
        self.now = Now(self.now.mono + seconds, self.now.wall_ms + int(seconds * 1000))

    def restarted(self) -> "Stage":
        """The same node after a crash: a new engine from the journal. `first` are the effects of the restore."""
        again = Stage((), self.limits, self.me)
        again.now, again.rows, again.payloads = self.now, dict(self.rows), dict(self.payloads)
        again.forgotten, again.count = set(self.forgotten), self.count + 1000
        effects, held = again.engine.restore(list(again.rows.values()), again.forgotten, again.now)
        again.holds.update((*held.records, *held.blobs))
        again.first = again.note(effects)
        return again

    first: list[Effect]

    # ---- peers

    def link(self, other: PeerId, **offer: Any) -> list[Effect]:
        """A peer comes up and says what it offers."""
        effects = [] if other == self.me else self.do(PeerUp(other))
        return effects + self.offer(other, **offer)

    def offer(
        self, other: PeerId, models: Iterable[RecordId] = MODELS, cabinets: Iterable[str] = (CABINET,), slots: int = 4
    ) -> list[Effect]:
        """A peer says what it offers."""
        return self.do(AdvertHeard(other, dict.fromkeys(models, "mlp"), frozenset(cabinets), slots))

    def told(self, other: PeerId, what: str, key: Key, **more: Any) -> list[Effect]:
        """A peer says a word."""
        return self.do(Told(other, what, key, **more))

    # ---- the client

    def spec(self, **changes: Any) -> dict[str, Any]:
        """A plain job of one step, with changes."""
        self.count += 1
        spec: dict[str, Any] = {
            "net": OPEN_SWARM_ID,
            "by": self.me,
            "at_ms": self.now.wall_ms,
            "pattern": "chained",
            "tasks": [{"op": "infer", "model": MODEL}],
            "inputs": [],
            "tier": "signed",
            "rule": {"method": "first"},
            "deadline_ms": 600_000,
            "priority": "normal",
            "visibility": "swarm",
            "nonce": self.count.to_bytes(16, "big"),
        }
        return spec | changes

    def submission(self, blobs: tuple[bytes, ...] = (b"input",), token: Any = None, **changes: Any) -> Submitted:
        """A submission; its input blobs are held for it."""
        spec = self.spec(**changes)
        openings = tuple(opening(blob, f"{self.count} {number}") for number, blob in enumerate(blobs))
        spec["inputs"] = [found.ref for found in openings]
        common = {key: spec.pop(key) for key in ("net", "by", "at_ms")}
        job, payload = compose("spec", common, spec)
        self.holds.update(found.cid for found in openings)
        return Submitted(token or f"client {self.count}", job, {**common, **spec}, payload, openings)

    def submit(self, **changes: Any) -> list[Effect]:
        """Submit a job."""
        return self.do(self.submission(**changes))

    # ---- executors, as the owner hears them

    def answer(self, lease: Send, blob: bytes = b"output", status: str = "ok", **more: Any) -> AnswerReceived:
        """What the executor of this lease answers; the event's record and blob are held."""
        self.count += 1
        ok = status == "ok"
        output = opening(blob, f"output {self.count}") if ok else None
        rulings = tuple(self.ruling(lease, True).ruling for _ in range(more.pop("rulings", 0)))
        said: dict[str, Any] = {
            "job": lease.key[0],
            "task": lease.key[1],
            "epoch": lease.key[2],
            "inputs": [found.ref for found in lease.openings],
            "outputs": [output.ref] if output else [],
            "runtime": {},
            "timing": {"run_us": self.count, "queue_us": 0},
            "usage": {"cpu_us": 0, "rss_bytes": 0},
            "sandbox": "none",
            "status": status,
            "weight": 1,
            "parents": [lease.records[0], *rulings],
        }
        if not ok:
            said |= {"code": "E-exec-40", "error": "it failed"}
        answer = self._foreign("answer", lease.peer, said)
        self.holds.update([output.cid] if output else [])
        code, error = said.get("code", ""), said.get("error", "")
        event = AnswerReceived(lease.peer, answer, lease.key, lease.records[0], status, code, error, 1, rulings, output)
        return replace(event, **more)

    def ruling(self, lease: Send, allowed: bool) -> RulingReceived:
        """What the cabinet of this lease's executor says; the record is held."""
        self.count += 1
        said = {
            "job": lease.key[0],
            "task": lease.key[1],
            "epoch": lease.key[2],
            "cabinet": CABINET,
            "allowed": allowed,
            "code": "" if allowed else "E-cabinets-03",
            "reason": f"rule {self.count}",
            "parents": [lease.records[0]],
        }
        ruling = self._foreign("ruling", lease.peer, said)
        return RulingReceived(lease.peer, ruling, lease.key, said["code"], said["reason"])  # type: ignore[arg-type]

    def _foreign(self, kind: str, by: PeerId, said: dict[str, Any]) -> RecordId:
        identity, payload = compose(kind, {"net": OPEN_SWARM_ID, "by": by, "at_ms": self.now.wall_ms}, said)
        self.payloads[identity] = decode(payload)
        self.holds[identity] += 1
        return identity

    def run_jobs(self, count: int) -> list[Reply]:
        """So many plain jobs from submission to reply."""
        replies = []
        for _ in range(count):
            lease = sent("lease", self.submit())[0]
            replies += of(Reply, self.do(self.answer(lease)))
        return replies

    # ---- both at once

    def lease_to_self(self, lease: Send) -> LeaseReceived:
        """A lease of ours to ourselves, as its frame arrives."""
        job, task, epoch = lease.key
        self.holds.update([*lease.records, *(found.cid for found in lease.openings)])
        return LeaseReceived(self.me, lease.records[0], job, task, epoch, 30_000, self.payloads[job], lease.openings)

    def answer_from_self(self, answer: Send) -> AnswerReceived:
        """An answer of ours to ourselves, as its frame arrives."""
        said = self.payloads[answer.records[0]]
        output = answer.openings[0] if answer.openings else None
        self.holds.update([*answer.records, *(found.cid for found in answer.openings)])
        return AnswerReceived(
            self.me, answer.records[0], answer.key, said["parents"][0], said["status"], "", "", 1, (), output
        )

    # ---- owners and the pool, as the executor hears them

    def lease(
        self,
        owner: PeerId = A,
        task: int = 0,
        epoch: int = 1,
        blobs: tuple[bytes, ...] = (b"input",),
        ttl_ms: int = 30_000,
        **changes: Any,
    ) -> LeaseReceived:
        """A lease from another owner; its records and input blobs are held. The spec's nonce stays the same."""
        self.count += 1
        openings = tuple(opening(blob, f"in {number}") for number, blob in enumerate(blobs))
        spec = {**self.spec(nonce=b"\1" * 16, by=owner, at_ms=WALL_MS), **changes}
        spec["inputs"] = [found.ref for found in openings]
        common = {key: spec.pop(key) for key in ("net", "by", "at_ms")}
        job = self._foreign_spec(common, spec)
        said = {"job": job, "task": task, "epoch": epoch, "executor": self.me, "ttl_ms": ttl_ms}
        lease = self._foreign("lease", owner, {**said, "inputs": spec["inputs"]})
        self.holds.update(found.cid for found in openings)
        return LeaseReceived(owner, lease, job, task, epoch, ttl_ms, {**common, **spec}, openings)

    def _foreign_spec(self, common: dict[str, Any], spec: dict[str, Any]) -> RecordId:
        identity, payload = compose("spec", common, spec)
        self.payloads[identity] = decode(payload)
        self.holds[identity] += 1
        return identity

    def finished(self, key: Key, blob: bytes = b"output", status: str = "ok") -> RunFinished:
        """What the pool says of a run; its output is held."""
        self.count += 1
        output = opening(blob, f"run {self.count}") if status == "ok" else None
        self.holds.update([output.cid] if output else [])
        code = "" if status == "ok" else "E-exec-40"
        return RunFinished(key, status, code, "", output, 10, 500, 20, 400, 1000, {}, "none")

    def ruled(self, key: Key, allowed: bool) -> Ruled:
        """What our own policy says."""
        return Ruled(key, CABINET, allowed, "" if allowed else "E-cabinets-03", "because", record_id(b"policy"))

    def busy(self, key: Key, retry_after_ms: int = 100) -> RunRefused:
        """The pool is full."""
        return RunRefused(key, "E-exec-01", "the queue is full", retry_after_ms)


def idle(stage: Stage) -> bool:
    """Nothing is held, nothing is waited for."""
    return stage.held == 0 and stage.engine.due() is None and not any(stage.engine.sizes().values())


def key_of(event: LeaseReceived) -> Key:
    """The key of a lease."""
    return (event.job, event.task, event.epoch)
