"""Every field of every record is either bound by a check or listed here as a claim that its signer makes alone."""

from typing import Any

import pytest
from scene import PEERS, STORIES, resigned

from dimnode.audit.verifier import verify
from dimnode.records.kinds import METHODS, PATTERNS, VERDICT_STATUS
from dimnode.records.receipt import parse_receipt

CLAIMS = {
    # A signer's own word about itself or its run; the receipt shows who said it, not that it is so.
    *((kind, "at_ms") for kind in ("verdict", "spec", "manifest", "lease", "answer", "ruling", "policy")),
    *(("answer", key) for key in ("runtime", "timing", "usage", "sandbox")),
    *(("manifest", key) for key in ("by", "name", "version", "files", "inputs", "outputs", "labels", "licence")),
    *(("manifest", key) for key in ("origin", "access")),
    *(("policy", key) for key in ("operations", "min_cohort", "output_classes", "queries_per_day")),
    *(("ruling", key) for key in ("code", "reason")),
    # What the submitter wishes and nobody can check afterwards.
    *(("spec", key) for key in ("by", "deadline_ms", "priority", "visibility", "nonce")),
    ("lease", "ttl_ms"),
    # What the owner says about its own work.
    *(("verdict", key) for key in ("checks", "unchecked", "code", "reason")),
}
"""(kind, field) pairs whose change, signed again, no check notices in any story."""
SOMETIMES = {
    ("answer", "weight"),  # bound where an average uses it
    ("answer", "outputs"),  # only the first output of an answer is read
    ("ruling", "allowed"),  # of a ruling that nothing stands on
    ("ruling", "parents"),  # a refusal needs no policy
    ("spec", "rule"),  # an `x_` key
    ("spec", "tasks"),  # a further task, as long as enough sites contributed
    ("verdict", "abandoned"),  # a lease that led to nothing may be kept quiet
    ("verdict", "parents"),  # so may a refusal that changed nothing
    ("verdict", "status"),  # refused, failed, cancelled and expired differ only in the owner's word
    ("verdict", "outputs"),  # a reference that does not open: incomplete, never complete
    ("lease", "executor"),  # of a lease that led to nothing
    ("lease", "by"),  # of a lone refusal, which names no other owner
    ("lease", "inputs"),
}
"""Pairs whose change passes in some story only, for the reason given."""


def others(kind: str, key: str, value: Any, ids: list[bytes]) -> list[Any]:
    """Values of the same type, among them such as might break a careless verifier."""
    match value:
        case bool():
            return [not value]
        case int():
            return [value + 1, 0, 1023]
        case str() if key in ("status", "rule", "pattern"):
            return [*VERDICT_STATUS, *METHODS, *PATTERNS]
        case str():
            return ["", "low", "swarm", "imported", "private", "other"]
        case bytes() if len(value) == 38:
            return [bytes(PEERS["ezra"])]
        case bytes() if len(value) == 37:
            return [*ids, bytes.fromhex("0181041220") + bytes(32)]
        case bytes():
            return [bytes(len(value))]
        case list():
            shorter = [value[:-1], value[1:], value[::-1], []]
            return [*shorter, value + value[:1], *([*value, one] for one in ids), [bytes(32)]]
        case dict():
            return [
                {**value, "x_new": 1},
                *({**value, name: entry + 1} for name, entry in value.items() if type(entry) is int),
            ]
    return []


def survivors(name: str) -> set[tuple[str, str]]:
    """Fields of a story whose change gets past the verifier; fails when the verifier raises."""
    raw = STORIES[name]()
    records = list(parse_receipt(raw).records.values())
    kinds = {record.kind: bytes(record.id) for record in records}
    ids = [kinds[kind] for kind in ("spec", "lease", "answer") if kind in kinds]
    found = set()
    for record in records:
        for key, value in record.payload.items():
            if key in ("v", "kind"):
                continue
            for other in others(record.kind, key, value, ids):
                if other == value:
                    continue

                def patch(
                    kind: str, payload: dict[str, Any], record: Any = record, key: str = key, other: Any = other
                ) -> dict[str, Any]:
                    same = kind == record.kind and payload["at_ms"] == record.payload["at_ms"]
                    return payload | {key: other} if same else payload

                try:
                    changed = resigned(raw, patch)
                except (AssertionError, RecursionError):  # outside the schema, or a record that names itself
                    continue
                if verify(changed).status != 1:
                    found.add((record.kind, key))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", STORIES)
def test_a_changed_field_is_refused_or_is_a_listed_claim(name: str) -> None:
    assert survivors(name) <= CLAIMS | SOMETIMES
