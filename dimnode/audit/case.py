"""A receipt whose form is sound, with its records sorted by the part they play.

Rule: everything here is looked up, nothing is judged.
Pure: no I/O, no clock.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from dimnode.records.envelope import Record
from dimnode.records.ids import Cid, PeerId, RecordId, Ref, blob_cid, short
from dimnode.records.plan import step_of, step_sources
from dimnode.records.receipt import Receipt


@dataclass(frozen=True)
class Case:
    """A job's records. `outside` holds blobs that were handed in beside the file, by CID."""

    receipt: Receipt
    outside: Mapping[bytes, bytes]
    names: Mapping[bytes, str]

    @cached_property
    def root(self) -> Record:
        """The record that the receipt is about."""
        return self.receipt.records[self.receipt.root]

    @cached_property
    def numbers(self) -> dict[RecordId, int]:
        """Each record's place in the file, from 1."""
        return {identity: place for place, identity in enumerate(self.receipt.records, 1)}

    @cached_property
    def spec(self) -> Record | None:
        """The job's spec: the first parent of a verdict."""
        parents = self.root.payload.get("parents", []) if self.root.kind == "verdict" else []
        found = self.find(parents[0]) if parents else None
        return found if found is not None and found.kind == "spec" else None

    @cached_property
    def counted(self) -> set[RecordId]:
        """Ids of the answers that the verdict counts, for or against."""
        steps = self.root.payload.get("steps", [])
        kept = {step["accepted"] for step in steps if "accepted" in step}
        return kept.union(*(step["supporters"] + step["dissent"] for step in steps))

    def of_kind(self, kind: str) -> list[Record]:
        """All records of a kind, in file order."""
        return [record for record in self.receipt.records.values() if record.kind == kind]

    def find(self, identity: bytes) -> Record | None:
        """The record with this id."""
        return self.receipt.records.get(RecordId(identity))

    def place(self, record: Record) -> str:
        """What a check calls a record."""
        return f"record {self.numbers[record.id]}"

    def name(self, peer: bytes) -> str:
        """The trusted name of a peer, else the end of its id."""
        return self.names.get(peer) or f"peer …{short(PeerId(peer))}"

    def step(self, record: Record) -> int:
        """The step that a lease, answer or ruling belongs to."""
        assert self.spec is not None
        return step_of(self.spec.payload, record.payload["task"])

    @cached_property
    def newest(self) -> dict[int, int]:
        """The highest epoch of each task among the leases that are here."""
        epochs: dict[int, int] = {}
        for lease in self.of_kind("lease"):
            task, epoch = lease.payload["task"], lease.payload["epoch"]
            epochs[task] = max(epoch, epochs.get(task, 0))
        return epochs

    def is_superseded(self, answer: Record) -> bool:
        """True when a newer lease of its task is here."""
        return bool(answer.payload["epoch"] < self.newest.get(answer.payload["task"], 0))

    def is_good(self, answer: Record) -> bool:
        """Status ok, with an output, under the newest lease of its task."""
        payload = answer.payload
        return payload["status"] == "ok" and bool(payload["outputs"]) and not self.is_superseded(answer)

    def good_answers(self, step: int | None = None) -> list[Record]:
        """The good answers of one step, or of all steps that the spec has, in the order of their tasks."""
        assert self.spec is not None
        steps = range(len(self.spec.payload["tasks"])) if step is None else (step,)
        good = [answer for answer in self.of_kind("answer") if self.is_good(answer) and self.step(answer) in steps]
        return sorted(good, key=lambda answer: (answer.payload["task"], answer.id))

    def step_inputs(self, step: int) -> list[bytes] | None:
        """The references that a lease of this step must name; None when an earlier step has no accepted output."""
        assert self.spec is not None
        inputs: list[bytes] = self.spec.payload["inputs"]
        accepted = {entry["task"]: entry.get("accepted", b"") for entry in self.root.payload["steps"]}
        wanted = []
        for source in step_sources(self.spec.payload, step):
            if source < len(inputs):
                wanted.append(inputs[source])
                continue
            answer = self.find(accepted.get(source - len(inputs), b""))
            if answer is None or not answer.payload.get("outputs"):
                return None
            wanted.append(answer.payload["outputs"][0])
        return wanted

    def cid_of(self, ref: bytes) -> Cid | None:
        """The CID that a reference opens to."""
        opening = self.receipt.openings.get(Ref(ref))
        return None if opening is None else opening.cid

    @cached_property
    def handed_in(self) -> dict[Cid, bytes]:
        """The blobs from outside that are what they are named, each hashed once however many references open to it."""
        return {Cid(cid): blob for cid, blob in self.outside.items() if blob_cid(blob) == cid}

    def blob_of(self, ref: bytes) -> bytes | None:
        """The bytes behind a reference, from the file (whose parser hashed them) or from outside."""
        cid = self.cid_of(ref)
        if cid is None:
            return None
        return self.receipt.blobs[cid] if cid in self.receipt.blobs else self.handed_in.get(cid)

    def output_of(self, record: Record) -> bytes | None:
        """The first output blob of an answer or verdict, None when it is not here."""
        outputs: list[Any] = record.payload["outputs"]
        return self.blob_of(outputs[0]) if outputs else None
