"""A receipt whose form is sound, with its records sorted by the part they play.

Rule: everything here is looked up, nothing is judged.
Pure: no I/O, no clock.
"""

from collections.abc import Callable, Mapping
from typing import Any

from dimnode.records.envelope import Record
from dimnode.records.ids import Cid, PeerId, RecordId, Ref, blob_cid, short
from dimnode.records.plan import replicas_per_step, step_sources
from dimnode.records.receipt import Receipt


class Case:
    """A job's records. `find` gives the one with an id, `numbers` are their places in the file, from 1.

    `spec`, `accepted` and `counted` (answers, for or against) are what a verdict names, `terms` what the spec asks for,
    `replicas` how many tasks it has for each step; `newest` is the highest epoch of each task among the leases.
    `outside` holds blobs that were handed in beside the file, by CID, and `handed_in` those of them that are what they
    are named. `names` are those of peers.
    """

    def __init__(self, receipt: Receipt, outside: Mapping[bytes, bytes], names: Mapping[bytes, str]) -> None:
        self.receipt, self.outside, self.names = receipt, outside, names
        self.handed_in = {Cid(cid): blob for cid, blob in outside.items() if blob_cid(blob) == cid}
        self.find: Callable[[Any], Record | None] = receipt.records.get
        self.root = receipt.records[receipt.root]
        self.numbers: dict[RecordId, int] = {}
        self.leases: list[Record] = []
        self.answers: list[Record] = []
        self.rulings: list[Record] = []
        by_kind = {"lease": self.leases, "answer": self.answers, "ruling": self.rulings}
        for place, (identity, record) in enumerate(receipt.records.items(), 1):
            self.numbers[identity] = place
            if record.kind in by_kind:
                by_kind[record.kind].append(record)
        self.newest: dict[int, int] = {}
        for lease in self.leases:
            task, epoch = lease.payload["task"], lease.payload["epoch"]
            if epoch > self.newest.get(task, 0):
                self.newest[task] = epoch
        self.spec: Record | None = None
        self.terms: dict[str, Any] = {}
        self.replicas = 1
        self.accepted: dict[int, RecordId] = {}
        self.counted: set[RecordId] = set()
        self._good_answers: list[Record] | None = None
        if self.root.kind == "verdict":
            self._read_verdict(self.root.payload)

    def _read_verdict(self, verdict: Mapping[str, Any]) -> None:
        first = self.find(verdict["parents"][0]) if verdict["parents"] else None
        if first is not None and first.kind == "spec":
            self.spec, self.terms = first, first.payload
            self.replicas = replicas_per_step(first.payload)
        for entry in verdict["steps"]:
            self.counted.update(entry["supporters"], entry["dissent"])
            if "accepted" in entry:
                self.accepted[entry["task"]] = entry["accepted"]
                self.counted.add(entry["accepted"])

    def place(self, record: Record) -> str:
        """What a check calls a record."""
        return f"record {self.numbers[record.id]}"

    def name(self, peer: bytes) -> str:
        """The trusted name of a peer, else the end of its id."""
        return self.names.get(peer) or f"peer …{short(PeerId(peer))}"

    def step(self, record: Record) -> int:
        """The step that a lease, answer or ruling belongs to."""
        task: int = record.payload["task"]
        return task // self.replicas

    def good_answers(self) -> list[Record]:
        """Answers to the spec's steps with status ok and an output, under the newest lease of their task; by task."""
        if self._good_answers is None:
            tasks, newest = len(self.terms["tasks"]) * self.replicas, self.newest
            good = self._good_answers = []
            for answer in self.answers:
                said = answer.payload
                task = said["task"]
                if said["status"] == "ok" and said["outputs"] and said["epoch"] >= newest.get(task, 0) and task < tasks:
                    good.append(answer)
            good.sort(key=lambda answer: (answer.payload["task"], answer.id))
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
            answer = self.find(self.accepted.get(source - len(inputs)))
            if answer is None or answer.kind != "answer" or not answer.payload["outputs"]:
                return None
            wanted.append(answer.payload["outputs"][0])
        return wanted

    def cid_of(self, ref: bytes) -> Cid | None:
        """The CID that a reference opens to."""
        opening = self.receipt.openings.get(Ref(ref))
        return None if opening is None else opening.cid

    def blob_of(self, ref: bytes) -> bytes | None:
        """The bytes behind a reference, from the file or from outside; None when they are not here."""
        cid = self.cid_of(ref)
        return None if cid is None else self.receipt.blobs.get(cid, self.handed_in.get(cid))

    def output_of(self, record: Record) -> bytes | None:
        """The first output blob of an answer or verdict; None when it is not here."""
        outputs: list[bytes] = record.payload["outputs"]
        return self.blob_of(outputs[0]) if outputs else None
