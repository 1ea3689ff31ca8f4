"""Which records a record names: the edges of a receipt's tree.

Rule: edges are followed in the order in which they stand in the payload, so the same parts give the same file.
Pure: no I/O, no clock.
"""

from dimnode.records.envelope import Record
from dimnode.records.ids import RecordId, Ref


def record_links(record: Record) -> list[RecordId]:
    """Ids of the records that this one stands on, in listed order, each once."""
    payload = record.payload
    match record.kind:
        case "answer" | "ruling":
            found = payload["parents"]
        case "verdict":
            found = payload["parents"] + payload.get("abandoned", [])
        case "spec":
            found = [task["model"] for task in payload["tasks"] if "model" in task]
        case _:
            return []
    return list(dict.fromkeys(found)) if len(found) > 1 else found


def blob_refs(record: Record) -> list[Ref]:
    """Blinded names of the blobs that this record reads or writes, in listed order; one may stand there twice."""
    if record.kind not in ("spec", "lease", "answer", "verdict"):
        return []
    found: list[Ref] = record.payload.get("inputs", []) + record.payload.get("outputs", [])
    return found
