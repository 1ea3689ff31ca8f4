"""The record kinds of this version and the schema of each.

Rule: a record of a known kind and version has exactly the keys listed here (and any `x_` key); a record of an unknown
kind or version is kept with its id and signature checked and is never interpreted. New meaning is a new type
(`/manifest/2`), never a new reading.
Pure: no I/O, no clock. Field by field in docs/receipt.md.
"""

from typing import Any, Final

from dimnode.errors import PeerFault
from dimnode.records.codec import encode, in_order, pack_ordered
from dimnode.records.envelope import VERSION, Record, SigningKey, open_envelope, seal
from dimnode.records.ids import (
    PEER_ID_BYTES,
    PEER_PREFIX,
    RECORD_ID_BYTES,
    RECORD_PREFIX,
    REF_BYTES,
    RecordId,
    record_id,
)
from dimnode.records.manifest_kinds import manifest_schemas
from dimnode.records.membership_kinds import membership_schemas
from dimnode.records.shapes import (
    Check,
    any_of,
    boolean,
    exact_bytes,
    fields,
    integer,
    list_of,
    list_of_bytes,
    one_of,
    row,
    text,
)

ADDRESSES_MAX: Final = 16
ADDRESS_CHARACTERS_MAX: Final = 256
"""Of an advert; an invitation holds no longer addresses either."""
PATTERNS: Final = ("chained", "comparative", "collaborative")
PRIORITIES: Final = ("low", "normal", "high")
OPERATIONS: Final = ("infer", "evaluate", "statistics")
COMPARISONS: Final = ("eq", "ne", "lt", "le", "gt", "ge")
ANSWER_STATUS: Final = ("ok", "failed", "timeout", "crashed", "memory")
VERDICT_STATUS: Final = ("ok", "failed", "refused", "cancelled", "expired", "split")
METHODS: Final = (
    "first",
    "quorum",
    "sum_counts",
    "federated_average",
    "weighted_average",
    "majority_vote",
    "weighted_vote",
)

peer = exact_bytes(PEER_ID_BYTES, prefix=PEER_PREFIX)
record = exact_bytes(RECORD_ID_BYTES, prefix=RECORD_PREFIX)
_name = text(128, 1)
_refs = list_of_bytes(REF_BYTES, longest=64)
_records = list_of_bytes(RECORD_ID_BYTES, prefix=RECORD_PREFIX)
_take = row(_name, integer(0, 127), _name, integer(-1, 2**31 - 1), integer(-1, 2**31 - 1))
_condition = row(_name, one_of(*COMPARISONS), integer(-(2**62), 2**62))
_comparator = fields(
    {"kind": one_of("exact", "argmax_atol", "rtol", "cosine")},
    {"tensor": _name, "atol_micro": integer(), "rtol_micro": integer(), "min_ppm": integer(0, 1_000_000)},
)
_task = fields(
    {"op": one_of(*OPERATIONS)},
    {
        "model": record,
        "peer": peer,
        "cabinet": _name,
        "take": list_of(_take, 32),
        "where": list_of(_condition, 8),
        "purpose": text(256),
    },
)
_rule = fields({"method": one_of(*METHODS)}, {"weights_permille": list_of(integer(0, 1_000_000), 64)})
_quorum = fields({"n": integer(1, 7), "k": integer(1, 7)})
_runtime = fields(
    {"engine": text(64), "version": text(64), "os": text(32), "arch": text(32), "accelerator": text(64)},
    {"isa": text(64), "dtype": text(32), "quantisation": text(32), "determinism": text(64), "batch": integer()},
)
_step = fields({"task": integer(0, 127), "supporters": _records, "dissent": _records}, {"accepted": record})

_COMMON: Final[dict[str, Check]] = {
    "v": integer(VERSION, VERSION),
    "kind": text(16, 1),
    "net": record,
    "by": peer,
    "at_ms": integer(),
}

_FIRST: Final[dict[str, Check]] = {
    "swarm": fields(
        {key: check for key, check in _COMMON.items() if key != "net"}
        | {"name": _name, "admins": list_of(peer, 16), "threshold": integer(0, 16)},
    ),
    "advert": fields(
        _COMMON
        | {
            "models": list_of(record, 256),
            "cabinets": list_of(
                fields(
                    {
                        "name": _name,
                        "columns": list_of(text(64), 256),
                        "label": text(64),
                        "operations": list_of(text(16), 8),
                    },
                    {"min_cohort": integer()},
                ),
                64,
            ),
            "slots": integer(0, 100_000),
            "runtimes": list_of(text(32), 16),
            "sandbox": text(128),
            "agent": text(64),
            "addresses": list_of(text(ADDRESS_CHARACTERS_MAX), ADDRESSES_MAX),
        },
        {"jobs_per_second": integer(), "name": text(64)},
    ),
    "heartbeat": fields(
        _COMMON | {"advert": record, "free_slots": integer(0, 100_000), "load_permille": integer(0, 100_000)}
    ),
    "event": fields(_COMMON, {"jobs": list_of(row(record, text(16, 1)), 16), "verdicts": list_of(record, 16)}),
    "spec": fields(
        _COMMON
        | {
            "pattern": one_of(*PATTERNS),
            "tasks": list_of(_task, 64, 1),
            "inputs": _refs,
            "tier": one_of("signed", "quorum"),
            "rule": _rule,
            "deadline_ms": integer(1),
            "priority": one_of(*PRIORITIES),
            "visibility": one_of("swarm", "participants"),
            "nonce": exact_bytes(16),
        },
        {"quorum": _quorum, "comparator": _comparator, "min_sites": integer(1, 64), "label": text(128)},
    ),
    "lease": fields(
        _COMMON
        | {
            "job": record,
            "task": integer(0, 1023),
            "epoch": integer(1, 1_000_000),
            "executor": peer,
            "ttl_ms": integer(1),
            "inputs": _refs,
        },
    ),
    "policy": fields(
        _COMMON
        | {
            "cabinet": _name,
            "operations": list_of(one_of(*OPERATIONS), 8),
            "min_cohort": integer(1),
            "output_classes": list_of(text(16), 8),
            "queries_per_day": integer(0),
        },
        {"submitters": list_of(peer), "models": _records, "expires_ms": integer(), "purpose": text(256)},
    ),
    "ruling": fields(
        _COMMON
        | {
            "job": record,
            "task": integer(0, 1023),
            "epoch": integer(1),
            "cabinet": _name,
            "allowed": boolean,
            "code": text(32),
            "reason": text(256),
            "parents": _records,
        },
    ),
    "answer": fields(
        _COMMON
        | {
            "job": record,
            "task": integer(0, 1023),
            "epoch": integer(1),
            "inputs": _refs,
            "outputs": _refs,
            "runtime": any_of(_runtime, fields({})),
            "timing": fields({"run_us": integer(), "queue_us": integer()}),
            "usage": fields({"cpu_us": integer(), "rss_bytes": integer()}),
            "sandbox": text(128),
            "status": one_of(*ANSWER_STATUS),
            "parents": _records,
        },
        {"model": record, "weight": integer(), "error": text(256), "code": text(32)},
    ),
    "verdict": fields(
        _COMMON
        | {
            "job": record,
            "status": one_of(*VERDICT_STATUS),
            "rule": one_of(*METHODS),
            "steps": list_of(_step, 64),
            "outputs": _refs,
            "checks": list_of(text(64), 32),
            "unchecked": list_of(text(128), 32),
            "parents": _records,
        },
        {"reason": text(256), "code": text(32), "abandoned": _records},
    ),
    **membership_schemas(_COMMON),
}
_SCHEMAS: Final[dict[tuple[str, int], Check]] = {
    **{(kind, VERSION): schema for kind, schema in _FIRST.items()},
    **manifest_schemas(_COMMON),
}

KINDS: Final = frozenset(kind for kind, _ in _SCHEMAS)


def check_schema(kind: str, payload: dict[str, Any]) -> None:
    """Raises `PeerFault` when a known kind's payload has a wrong, missing or unknown field."""
    schema = _SCHEMAS.get((kind, payload.get("v", VERSION)))
    if schema is not None and not schema(in_order(payload)):
        raise PeerFault(f"{kind}: fields")


def compose(
    kind: str, common: dict[str, Any], body: dict[str, Any], *, by_hand: bool = False, version: int = VERSION
) -> tuple[RecordId, bytes]:
    """Id and payload bytes of a record of ours. A body outside the schema is our own bug (assertion).

    `by_hand`: a person wrote what is in it, so that it raises `PeerFault` instead.
    """
    payload = in_order({"v": version, "kind": kind, **common, **body})
    schema = _SCHEMAS.get((kind, version))
    if schema is None:
        packed = encode(payload)
        return record_id(packed), packed
    fits = schema(payload)
    if by_hand and not fits:
        raise PeerFault(f"{kind}: fields")
    assert fits, f"{kind} does not fit its schema: {payload}"
    packed = pack_ordered(payload)
    return record_id(packed), packed


def open_record(envelope: bytes, *, kind: str = "", check_signature: bool = True) -> Record:
    """Open, verify and check the schema. Raises `PeerFault`; with `kind`, also when it is of another kind."""
    found = open_envelope(envelope, schemas=_SCHEMAS, check_signature=check_signature)
    if kind and found.kind != kind:
        raise PeerFault(f"expected {kind}, got {found.kind}")
    return found


def _open_swarm() -> tuple[RecordId, bytes]:
    # Its key is published here: nobody administers the open swarm, the record only gives it a name.
    key = SigningKey.from_seed(b"dimnode open swarm, key is public"[:32])
    identity, payload = compose("swarm", {"by": key.peer, "at_ms": 0}, {"name": "open", "admins": [], "threshold": 0})
    return identity, seal(key, "swarm", payload)


OPEN_SWARM_ID, OPEN_SWARM_ENVELOPE = _open_swarm()
"""The constant record that every node of the open swarm names as its `net`."""
