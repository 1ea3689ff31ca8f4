"""Valid task frames with real signatures, and what a dishonest peer could make of them."""

from typing import Any

from dimnode.p2p.frames import Arrival, TaskFrame, arrival, read_task_frame
from dimnode.records.envelope import Record, SigningKey, seal
from dimnode.records.ids import RecordId, blob_cid
from dimnode.records.kinds import OPEN_SWARM_ID, compose, open_record
from dimnode.records.receipt import Opening

OWNER, EXECUTOR, STRANGER = (SigningKey.from_seed(bytes([number]) * 32) for number in (1, 2, 3))
NET = OPEN_SWARM_ID
OTHER_NET = RecordId(NET[:-1] + b"?")
INPUTS = (b"first input", b"second input")
OUTPUT = b"the output"
MODEL = RecordId(NET[:5] + b"model".ljust(32, b"."))


def opening(blob: bytes) -> Opening:
    return Opening.of(b"salt".ljust(32, b"."), blob_cid(blob))


def sign(key: SigningKey, kind: str, body: dict[str, Any], **common: Any) -> Record:
    _, payload = compose(kind, {"net": NET, "by": key.peer, "at_ms": 1} | common, body)
    return open_record(seal(key, kind, payload))


def spec_of(key: SigningKey = OWNER, net: RecordId = NET, **changes: Any) -> Record:
    body = {
        "pattern": "chained",
        "tasks": [{"op": "infer", "model": MODEL}],
        "inputs": [opening(blob).ref for blob in INPUTS],
        "tier": "signed",
        "rule": {"method": "first"},
        "deadline_ms": 1000,
        "priority": "normal",
        "visibility": "swarm",
        "nonce": bytes(16),
    }
    return sign(key, "spec", body | changes, net=net)


def lease_of(spec: Record, key: SigningKey = OWNER, net: RecordId = NET, **changes: Any) -> Record:
    body = {"job": spec.id, "task": 0, "epoch": 1, "executor": EXECUTOR.peer, "ttl_ms": 1000}
    return sign(key, "lease", body | {"inputs": [opening(blob).ref for blob in INPUTS]} | changes, net=net)


def lease_frame(spec: Record | None = None, lease: Record | None = None, **changes: Any) -> TaskFrame:
    spec = spec or spec_of()
    lease = lease or lease_of(spec)
    said = lease.payload
    parts = {
        "what": "lease",
        "key": (said["job"], said["task"], said["epoch"]),
        "envelopes": (lease.envelope, spec.envelope),
        "openings": tuple(opening(blob) for blob in INPUTS),
        "blobs": INPUTS,
    }
    return TaskFrame(**(parts | changes))


def answer_of(lease: Record, key: SigningKey = EXECUTOR, net: RecordId = NET, **changes: Any) -> Record:
    said = lease.payload
    body = {name: said[name] for name in ("job", "task", "epoch", "inputs")}
    body |= {"outputs": [opening(OUTPUT).ref], "runtime": {}, "timing": {"run_us": 1, "queue_us": 1}}
    body |= {"usage": {"cpu_us": 1, "rss_bytes": 1}, "sandbox": "", "status": "ok", "parents": [lease.id]}
    return sign(key, "answer", body | {"model": MODEL, "weight": 7} | changes, net=net)


def policy_of(key: SigningKey = EXECUTOR, cabinet: str = "patients", net: RecordId = NET) -> Record:
    body = {"operations": ["evaluate"], "min_cohort": 10, "output_classes": ["count"], "queries_per_day": 5}
    return sign(key, "policy", {"cabinet": cabinet} | body, net=net)


def ruling_of(
    lease: Record, policy: Record | None, allowed: bool, key: SigningKey = EXECUTOR, net: RecordId = NET, **changes: Any
) -> Record:
    body = {name: lease.payload[name] for name in ("job", "task", "epoch")}
    parents = [lease.id, *([policy.id] if policy else [])]
    body |= {"cabinet": "patients", "allowed": allowed, "code": "E-cabinet-06", "reason": "small", "parents": parents}
    return sign(key, "ruling", body | changes, net=net)


def answer_frame(answer: Record, *more: Record, **changes: Any) -> TaskFrame:
    said = answer.payload
    ok = said["status"] == "ok"
    parts = {
        "what": "answer",
        "key": (said["job"], said["task"], said["epoch"]),
        "envelopes": tuple(record.envelope for record in (answer, *more)),
        "openings": (opening(OUTPUT),) if ok else (),
        "blobs": (OUTPUT,) if ok else (),
    }
    return TaskFrame(**(parts | changes))


def ruling_frame(ruling: Record, *more: Record, **changes: Any) -> TaskFrame:
    said = ruling.payload
    envelopes = tuple(record.envelope for record in (ruling, *more))
    parts = {"what": "ruling", "key": (said["job"], said["task"], said["epoch"]), "envelopes": envelopes}
    return TaskFrame(**(parts | changes))


def broken(envelope: bytes) -> bytes:
    """The same record with one bit of its signature turned."""
    return envelope[:-1] + bytes([envelope[-1] ^ 1])


def taken(frame: TaskFrame, peer: SigningKey, me: SigningKey, **more: Any) -> Arrival:
    """Over the wire and through the gate, as a node does it."""
    return arrival(read_task_frame(frame.to_bytes()[4:]), peer.peer, me.peer, NET, **more)
