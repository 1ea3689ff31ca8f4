"""Well-formed frames with valid signatures that say what no honest peer would say.

Rule: everything comes from the random generator that is given. Most of it is nearly true, which goes deepest.
"""

import random
from collections.abc import Callable
from typing import Any

from dimnode.client import tensor_rows
from dimnode.p2p.frames import TaskFrame, read_task_frame
from dimnode.p2p.gossip import HEARTBEAT_TOPIC
from dimnode.records.codec import encode
from dimnode.records.envelope import Record, SigningKey, open_envelope, seal
from dimnode.records.ids import RECORD_PREFIX, PeerId, RecordId, blob_cid, record_id
from dimnode.records.kinds import METHODS, OPEN_SWARM_ID, OPERATIONS, PATTERNS, PRIORITIES
from dimnode.records.plan import step_of
from dimnode.records.receipt import Opening
from dimnode.records.tensors import Tensor, encode_tensors
from dimnode.wire import END, pack_frame

from .garbage import mutated, some_bytes

_HUGE = 2**62


class Liar:
    """One dishonest peer: its key, and what it knows of the node that it talks to."""

    def __init__(self, chance: random.Random, key: SigningKey, target: PeerId, models: list[bytes]) -> None:
        self.chance, self.key, self.target, self.models = chance, key, target, models
        self.specs: list[Record] = []
        self.blobs: dict[bytes, bytes] = {}
        self.leased: list[tuple[RecordId, int, int]] = []

    # ---- records

    def common(self) -> dict[str, Any]:
        """The fields of every record."""
        return {"v": 1, "net": OPEN_SWARM_ID, "by": self.key.peer, "at_ms": self.chance.choice((0, 1, _HUGE))}

    def signed(self, kind: str, body: dict[str, Any]) -> Record:
        """A record of ours, mostly as its schema wants it."""
        chance = self.chance
        payload = {**self.common(), "kind": kind, **body}
        match chance.randrange(12):
            case 0:
                payload[chance.choice(sorted(payload))] = chance.choice((0, "", b"", [], {}, None, True, _HUGE))
            case 1:
                payload.pop(chance.choice(sorted(payload)))
            case 2:
                payload["x_" + "k" * chance.randrange(1, 20)] = "v" * chance.randrange(60_000)
            case _:
                pass
        packed = encode(payload)
        envelope = seal(self.key, kind, packed)
        if not chance.randrange(15):
            envelope = mutated(chance, envelope)
        return Record(record_id(packed), kind, self.key.peer, payload, envelope)

    def opening(self, blob: bytes) -> Opening:
        """A blinded name of these bytes, which can be fetched from us."""
        cid = blob_cid(blob)
        self.blobs[cid] = blob
        return Opening.of(self.chance.randbytes(32), cid)

    def tensors(self) -> bytes:
        """Input or output bytes: right, odd, or none at all."""
        chance = self.chance
        match chance.randrange(9):
            case 0:
                return some_bytes(chance, 200)
            case 1:
                return encode_tensors([Tensor("label", "int64", (1,), (2**63 - 1).to_bytes(8, "little"))])
            case 2:
                odd = [Tensor("x", "float32", (0, 10), b""), Tensor("y", "bool", (), b"\x07")]
                return encode_tensors(odd)
            case 3:
                return tensor_rows([[chance.choice((float("nan"), float("inf"), -1e38, 0.0)) for _ in range(10)]])
            case 4:
                label = chance.choice((-1, 0, 10**6)).to_bytes(8, "little", signed=True)
                return encode_tensors([Tensor("label", "int64", (1,), label)])
            case 5:
                return encode_tensors([Tensor("counts", "int64", (2, 2), (2**62).to_bytes(8, "little") * 4)])
            case 6:
                return tensor_rows([[float(number) for number in range(chance.randrange(1, 40))]])
            case _:
                return tensor_rows([[chance.random() for _ in range(10)] for _ in range(chance.randrange(1, 5))])

    def _task(self) -> dict[str, Any]:
        chance = self.chance
        task: dict[str, Any] = {"op": chance.choice(OPERATIONS)}
        optional: dict[str, Callable[[], Any]] = {
            "model": lambda: chance.choice((*self.models, *self.models, RecordId(OPEN_SWARM_ID))),
            "peer": lambda: chance.choice((self.target, self.key.peer)),
            "cabinet": lambda: chance.choice(("patients", "none")),
            "purpose": lambda: "p",
            "where": lambda: [[chance.choice(("c0", "label", "")) or "c1", "le", chance.choice((0, _HUGE, -_HUGE))]],
            "take": lambda: [["x", chance.choice((0, 0, 1, 127)), "x", *chance.choice(((-1, -1), (0, 10), (9, 2)))]],
        }
        for name, make in optional.items():
            if chance.random() < (0.8 if name == "model" else 0.25):
                task[name] = make()
        return task

    def spec(self) -> tuple[Record, tuple[Opening, ...]]:
        """A job, mostly one that fits its schema."""
        chance = self.chance
        inputs = tuple(self.opening(self.tensors()) for _ in range(chance.choice((1, 1, 1, 0, 2))))
        body: dict[str, Any] = {
            "pattern": chance.choice(PATTERNS),
            "tasks": [self._task() for _ in range(chance.choice((1, 1, 2, 3, 64)))],
            "inputs": [opening.ref for opening in inputs],
            "tier": "signed",
            "rule": {"method": chance.choice(METHODS)},
            "deadline_ms": chance.choice((1, 300, 2000, 2**63 - 1)),
            "priority": chance.choice(PRIORITIES),
            "visibility": "swarm",
            "nonce": chance.randbytes(16),
        }
        if chance.random() < 0.6:  # what makes sense together, so that more than the intake sees it
            body["rule"]["method"] = {"chained": "first", "comparative": "majority_vote"}.get(
                body["pattern"], chance.choice(("sum_counts", "federated_average"))
            )
        if chance.random() < 0.2:
            body |= {"tier": "quorum", "quorum": {"n": chance.randrange(1, 8), "k": chance.randrange(1, 8)}}
            body |= {"pattern": "chained", "rule": {"method": "quorum"}}
        if chance.random() < 0.2:
            body["rule"]["weights_permille"] = [chance.choice((0, 1000, 1_000_000)) for _ in body["tasks"]]
        if chance.random() < 0.2:
            body["comparator"] = {"kind": chance.choice(("exact", "cosine", "rtol", "argmax_atol")), "min_ppm": 0}
        if chance.random() < 0.2:
            body["min_sites"] = chance.randrange(1, 65)
        found = self.signed("spec", body)
        self.specs = [*self.specs[-20:], found]
        return found, inputs

    def advert(self) -> list[bytes]:
        """An introduction that offers the node's own models, so that it leases tasks to us."""
        body = {
            "models": sorted(self.models),
            "cabinets": [{"name": "patients", "columns": [], "label": "", "operations": ["evaluate", "statistics"]}],
            "slots": 64,
            "runtimes": [],
            "sandbox": "",
            "agent": "liar",
            "addresses": ["/ip4/127.0.0.1/tcp/1", "nonsense"],
        }
        return [self.signed("advert", body).envelope]

    def announcement(self, topic: str) -> bytes:
        """What is gossiped: mostly a heartbeat or an event as it should be, of things that do not exist."""
        chance = self.chance
        some = RECORD_PREFIX + chance.randbytes(32)
        if topic == HEARTBEAT_TOPIC:
            load = {"free_slots": chance.choice((0, 100_000)), "load_permille": chance.choice((0, 100_000))}
            found = self.signed("heartbeat", {"advert": some, **load})
        else:
            jobs = [[some, chance.choice(("ok", "", "x" * 16))] for _ in range(chance.randrange(10))]
            found = self.signed("event", {"jobs": jobs, "verdicts": [some] * chance.randrange(10)})
        return found.envelope if chance.randrange(10) else some_bytes(chance, 1200)

    # ---- frames

    def job_request(self) -> bytes:
        """One foreign job for /dim/job/1."""
        spec, inputs = self.spec()
        blobs = [self.blobs[opening.cid] for opening in inputs]
        if not self.chance.randrange(10):
            blobs = blobs[1:]
        return pack_frame([spec.envelope, [opening.to_bytes() for opening in inputs], blobs])

    def model_question(self) -> bytes:
        """One question for /dim/model/1 about a model of the node, with a grant or a lease that we signed ourselves."""
        chance = self.chance
        model = chance.choice((*self.models, RecordId(OPEN_SWARM_ID)))
        body = {"peer": self.key.peer, "models": [model], "operations": ["infer", "fetch"]}
        grant = self.signed("grant", {**body, **chance.choice(({}, {"expires_ms": _HUGE}))}).envelope
        leased = read_task_frame(self._lease()[4:]).envelopes
        shown = chance.choice(((), (grant,), leased, (grant, *leased), (grant,) * 9))
        return pack_frame([chance.choice(("manifest", "permit", "warm")), model, list(shown)])

    def scheme(self) -> bytes:
        """One frame of the task stream that nobody asked for."""
        match self.chance.randrange(8):
            case 0 | 1 | 2:
                return self._lease()
            case 3:
                return self._answer(self._some_key(), self.chance.choice(self.specs).id if self.specs else None)
            case 4:
                return self._ruling(self._some_key())
            case 5 if not self.chance.randrange(20):
                return END
            case _:
                word = self.chance.choice(
                    ("accepted", "progress", "refused", "ack", "resume", "unknown", "cancel", "cancelled")
                )
                retry = self.chance.choice((0, 1, 5000))
                return TaskFrame(word, self._some_key(), code="E-x", text="lies", retry_after_ms=retry).to_bytes()

    def reply(self, frame: TaskFrame) -> bytes:
        """What we say to a lease."""
        lease = open_envelope(frame.envelopes[0], check_signature=False)
        spec = open_envelope(frame.envelopes[1], check_signature=False)
        self.leased = [*self.leased[-20:], frame.key]
        match self.chance.randrange(6):
            case 0:
                return b""
            case 1:
                retry = self.chance.choice((0, 1, 300))
                return TaskFrame("refused", frame.key, code="E-x", text="no", retry_after_ms=retry).to_bytes()
            case 2:
                return self._ruling(frame.key, lease.id)
            case 3:
                return b"".join(self._answer(frame.key, lease.id, lease, spec) for _ in range(3))
            case _:
                return self._answer(frame.key, lease.id, lease, spec)

    def _some_key(self) -> tuple[RecordId, int, int]:
        chance = self.chance
        if self.leased and chance.randrange(2):
            job, task, epoch = chance.choice(self.leased)
            return job, task, max(0, epoch + chance.choice((-1, 0, 0, 1)))
        job = chance.choice(self.specs).id if self.specs else RecordId(OPEN_SWARM_ID)
        return job, chance.choice((0, 0, 1, 1023)), chance.choice((0, 1, 2, 1_000_000))

    def _lease(self) -> bytes:
        chance = self.chance
        if self.specs and chance.randrange(3):
            spec, inputs = chance.choice(self.specs), (self.opening(self.tensors()),)
        else:
            spec, inputs = self.spec()
        task, epoch = chance.choice((0, 0, 0, 1, 5)), chance.choice((1, 1, 2, 3, 1_000_000))
        body = {
            "job": spec.id,
            "task": task,
            "epoch": epoch,
            "executor": chance.choice((self.target, self.target, self.target, self.key.peer)),
            "ttl_ms": chance.choice((1, 30_000, 2**63 - 1)),
            "inputs": [opening.ref for opening in inputs],
        }
        lease = self.signed("lease", body)
        blobs = tuple(self.blobs[opening.cid] for opening in inputs)
        if not chance.randrange(6):
            blobs = blobs[1:]  # to be fetched from us
        return TaskFrame("lease", (spec.id, task, epoch), (lease.envelope, spec.envelope), inputs, blobs).to_bytes()

    def _answer(
        self,
        key: tuple[RecordId, int, int],
        parent: RecordId | None,
        lease: Record | None = None,
        spec: Record | None = None,
    ) -> bytes:
        chance = self.chance
        job, task, epoch = key
        ok = chance.random() < 0.8
        output = (self.opening(self.tensors()),) if ok else ()
        body: dict[str, Any] = {
            "job": job,
            "task": task,
            "epoch": epoch,
            "inputs": list(lease.payload["inputs"]) if lease and chance.randrange(8) else [],
            "outputs": [opening.ref for opening in output],
            "runtime": {},
            "timing": {"run_us": 0, "queue_us": _HUGE},
            "usage": {"cpu_us": 0, "rss_bytes": 0},
            "sandbox": "",
            "status": "ok" if ok else chance.choice(("failed", "timeout", "crashed", "memory")),
            "parents": [parent] if parent else [],
            "weight": chance.choice((0, 1, 2**63 - 1)),
        }
        if spec is not None and "model" in spec.payload["tasks"][step_of(spec.payload, task)]:
            body["model"] = spec.payload["tasks"][step_of(spec.payload, task)]["model"]
        if not ok:
            body |= {"code": "E-lie", "error": "e" * chance.randrange(257)}
        answer = self.signed("answer", body)
        blobs = tuple(self.blobs[opening.cid] for opening in output) if chance.randrange(8) else ()
        return TaskFrame("answer", key, (answer.envelope,), output, blobs).to_bytes()

    def _ruling(self, key: tuple[RecordId, int, int], parent: RecordId | None = None) -> bytes:
        job, task, epoch = key
        body = {
            "job": job,
            "task": task,
            "epoch": epoch,
            "cabinet": "patients",
            "allowed": bool(self.chance.randrange(2)),
            "code": "E-x",
            "reason": "",
            "parents": [parent] if parent else [],
        }
        return TaskFrame("ruling", key, (self.signed("ruling", body).envelope,)).to_bytes()
