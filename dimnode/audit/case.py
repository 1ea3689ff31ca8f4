"""A receipt whose form is sound, with its records sorted by the part they play.

Rule: everything here is looked up, nothing is judged.
Pure: no I/O, no clock.
"""

from collections.abc import Mapping
from typing import Any

from dimnode.records.envelope import Record
from dimnode.records.ids import Cid, PeerId, RecordId, Ref, blob_cid, short
from dimnode.records.plan import step_of, step_sources
from dimnode.records.receipt import Receipt


class Case:
    """A job's records: `numbers` are their places in the file, from 1; `spec`, `accepted` and `counted` (answers, for
    or against) are what a verdict names; `newest` is the highest epoch of each task among the leases.

    `outside` holds blobs that were handed in beside the file, by CID, and `handed_in` those of them that are what they
    are named. `names` are those of peers.
    """

    def __init__(self, receipt: Receipt, outside: Mapping[bytes, bytes], names: Mapping[bytes, str]) -> None:
        self.receipt, self.outside, self.names = receipt, outside, names
        self.handed_in = {Cid(cid): blob for cid, blob in outside.items() if blob_cid(blob) == cid}
        self.root = receipt.records[receipt.root]
        self.numbers = {identity: place for place, identity in enumerate(receipt.records, 1)}
        self._by_kind: dict[str, list[Record]] = {}
        for record in receipt.records.values():
            self._by_kind.setdefault(record.kind, []).append(record)
        self.newest: dict[int, int] = {}
        for lease in self.of_kind("lease"):
            task, epoch = lease.payload["task"], lease.payload["epoch"]
            self.newest[task] = max(epoch, self.newest.get(task, 0))
        self.spec: Record | None = None
        self.accepted: dict[int, RecordId] = {}
        self.counted: set[RecordId] = set()
        self._good_answers: list[Record] | None = None
        if self.root.kind == "verdict":
            self._read_verdict(self.root.payload)

    def _read_verdict(self, verdict: Mapping[str, Any]) -> None:
        first = self.find(verdict["parents"][0]) if verdict["parents"] else None
        if first is not None and first.kind == "spec":
            self.spec = first
        for entry in verdict["steps"]:
            self.counted.update(entry["supporters"], entry["dissent"])
            if "accepted" in entry:
                self.accepted[entry["task"]] = entry["accepted"]
                self.counted.add(entry["accepted"])

    @property
    def terms(self) -> dict[str, Any]:
        """What the spec asks for; only of a case that has one."""
        assert self.spec is not None, "R-SPEC comes before what leans on it"
        return self.spec.payload

    def of_kind(self, kind: str) -> list[Record]:
        """All records of a kind, in file order."""
        return self._by_kind.get(kind, [])

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
        return step_of(self.terms, record.payload["task"])

    def good_answers(self) -> list[Record]:
        """Answers to the spec's steps with status ok and an output, under the newest lease of their task; by task."""
        if self._good_answers is None:
            steps, newest = len(self.terms["tasks"]), self.newest
            self._good_answers = [
                answer
                for answer in self.of_kind("answer")
                if (said := answer.payload)["status"] == "ok"
                and said["outputs"]
                and said["epoch"] >= newest.get(said["task"], 0)
                and self.step(answer) < steps
            ]
            self._good_answers.sort(key=lambda answer: (answer.payload["task"], answer.id))
        return self._good_answers

    def good_answers_to(self, step: int) -> list[Record]:
        """The good answers of one step."""
        return [answer for answer in self.good_answers() if self.step(answer) == step]

    def step_inputs(self, step: int) -> list[bytes] | None:
        """The references that a lease of this step must name; None when an earlier step has no accepted output."""
        inputs: list[bytes] = self.terms["inputs"]
        wanted = []
        for source in step_sources(self.terms, step):
            if source < len(inputs):
                wanted.append(inputs[source])
                continue
            answer = self.find(self.accepted.get(source - len(inputs), b""))
            if answer is None or not answer.payload.get("outputs"):
                return None
            wanted.append(answer.payload["outputs"][0])
        return wanted

    def cid_of(self, ref: bytes) -> Cid | None:
        """The CID that a reference opens to."""
        opening = self.receipt.openings.get(Ref(ref))
        return None if opening is None else opening.cid

    def output_of(self, record: Record) -> bytes | None:
        """The first output blob of an answer or verdict, from the file or from outside; None when it is not here."""
        outputs: list[bytes] = record.payload["outputs"]
        cid = self.cid_of(outputs[0]) if outputs else None
        return None if cid is None else self.receipt.blobs.get(cid, self.handed_in.get(cid))
