"""A stage for receipts: fixed keys, salts and clocks, so that the same story always gives the same bytes.

Rule: nothing here is random. `Scene` builds honest receipts; `resigned` takes one apart, lets a test change what a
record says, and signs everything again with the right keys: what only a dishonest peer could do.
"""

import hashlib
import struct
from collections.abc import Callable
from typing import Any

from dimnode.consensus.recompute import Vote, encode_tally_blob, labels_of, sum_counts, tally
from dimnode.records.envelope import Record, SigningKey, seal
from dimnode.records.ids import Ref, blob_cid
from dimnode.records.kinds import OPEN_SWARM_ID, compose, open_record
from dimnode.records.receipt import Opening, Receipt, pack_receipt, parse_receipt
from dimnode.records.tensors import Tensor, encode_tensors

START_MS = 1_790_000_000_000
NAMES = ("sam", "nora", "alba", "brio", "cara", "dano", "ezra")
KEYS = {name: SigningKey.from_seed(hashlib.sha256(f"dimnode golden {name}".encode()).digest()) for name in NAMES}
PEERS = {name: key.peer for name, key in KEYS.items()}
TRUST = {bytes(peer): name for name, peer in PEERS.items()}
KEY_OF_PEER = {bytes(key.peer): key for key in KEYS.values()}


def floats(name: str, *numbers: float) -> Tensor:
    """A float32 vector."""
    return Tensor(name, "float32", (len(numbers),), struct.pack(f"<{len(numbers)}f", *numbers))


def integers(name: str, *numbers: int) -> Tensor:
    """An int64 vector."""
    return Tensor(name, "int64", (len(numbers),), struct.pack(f"<{len(numbers)}q", *numbers))


class Scene:
    """Collects the records, openings and blobs of one job; the owner is `nora`, the submitter as given."""

    def __init__(self, submitter: str = "nora") -> None:
        self.submitter = submitter
        self.records: list[Record] = []
        self.openings: list[Opening] = []
        self.blobs: list[bytes] = []
        self.spec: Record

    def sign(self, who: str, kind: str, **body: Any) -> Record:
        """A record of this peer, one millisecond after the one before."""
        common = {"net": OPEN_SWARM_ID, "by": PEERS[who], "at_ms": START_MS + len(self.records)}
        _, payload = compose(kind, common, body)
        record = open_record(seal(KEYS[who], kind, payload))
        self.records.append(record)
        return record

    def blob(self, content: bytes) -> Ref:
        """Keep a blob under a fresh, but always the same, salt; its blinded reference."""
        opening = Opening.of(hashlib.sha256(f"golden salt {len(self.openings)}".encode()).digest(), blob_cid(content))
        self.openings.append(opening)
        self.blobs.append(content)
        return opening.ref

    def tensors(self, *tensors: Tensor) -> Ref:
        """A blob of tensors."""
        return self.blob(encode_tensors(tensors))

    def model(self, name: str, publisher: str = "nora") -> Record:
        """A manifest; its file is named, not kept."""
        return self.sign(
            publisher,
            "manifest",
            name=name,
            version="1",
            format="onnx",
            files=[["model.onnx", blob_cid(name.encode()), 1000]],
            inputs=[["x", "float32", [-1, 2]]],
            outputs=[["label", "int64", [-1]]],
            labels=["benign", "malignant"],
            licence="Apache-2.0",
            origin="trained",
            access="public",
        )

    def ask(self, pattern: str, tasks: list[dict[str, Any]], inputs: list[Ref], method: str, **more: Any) -> Record:
        """The spec."""
        body = {
            "pattern": pattern,
            "tasks": tasks,
            "inputs": inputs,
            "tier": "quorum" if "quorum" in more else "signed",
            "rule": {"method": method} | more.pop("rule", {}),
            "deadline_ms": 120_000,
            "priority": "normal",
            "visibility": "participants",
            "nonce": b"golden nonce 16b",
        }
        self.spec = self.sign(self.submitter, "spec", **body, **more)
        return self.spec

    def lease(self, task: int, executor: str, inputs: list[Ref], epoch: int = 1) -> Record:
        """The owner's offer."""
        return self.sign(
            "nora",
            "lease",
            job=self.spec.id,
            task=task,
            epoch=epoch,
            executor=PEERS[executor],
            ttl_ms=30_000,
            inputs=inputs,
        )

    def answer(self, lease: Record, outputs: list[Ref], rulings: tuple[Record, ...] = (), **more: Any) -> Record:
        """What the lease's executor returns."""
        said = lease.payload
        return self.sign(
            TRUST[said["executor"]],
            "answer",
            job=said["job"],
            task=said["task"],
            epoch=said["epoch"],
            inputs=said["inputs"],
            outputs=outputs,
            runtime={"engine": "onnx", "version": "1.31.0", "os": "linux", "arch": "x86_64", "accelerator": "cpu"},
            timing={"run_us": 1200, "queue_us": 30},
            usage={"cpu_us": 1100, "rss_bytes": 50_000_000},
            sandbox="seccomp",
            status=more.pop("status", "ok"),
            parents=[lease.id, *(ruling.id for ruling in rulings)],
            **more,
        )

    def policy(self, who: str, cabinet: str = "patients") -> Record:
        """The rules of a data owner."""
        return self.sign(
            who,
            "policy",
            cabinet=cabinet,
            operations=["evaluate"],
            min_cohort=10,
            output_classes=["count"],
            queries_per_day=100,
        )

    def ruling(self, lease: Record, policy: Record, code: str = "", reason: str = "") -> Record:
        """A permission, or with a code a refusal."""
        said = lease.payload
        return self.sign(
            TRUST[said["executor"]],
            "ruling",
            job=said["job"],
            task=said["task"],
            epoch=said["epoch"],
            cabinet=policy.payload["cabinet"],
            allowed=not code,
            code=code,
            reason=reason,
            parents=[lease.id, policy.id],
        )

    def conclude(self, parents: list[Record], steps: list[dict[str, Any]], outputs: list[Ref], **more: Any) -> bytes:
        """The verdict, and the receipt around it."""
        verdict = self.sign(
            "nora",
            "verdict",
            job=self.spec.id,
            status=more.pop("status", "ok"),
            rule=self.spec.payload["rule"]["method"],
            steps=steps,
            outputs=outputs,
            checks=["signature", "lease", "epoch", "input", "output"],
            unchecked=["that a model really ran"],
            parents=[self.spec.id, *(parent.id for parent in parents)],
            **more,
        )
        return self.pack(verdict)

    def pack(self, root: Record) -> bytes:
        """The receipt of what this record stands on."""
        return pack_receipt(root.id, self.records, self.openings, self.blobs)


def step(task: int, supporters: list[Record], dissent: list[Record] = (), **more: Any) -> dict[str, Any]:
    """An entry of a verdict's `steps`."""
    return {"task": task, "supporters": [a.id for a in supporters], "dissent": [a.id for a in dissent], **more}


def plain() -> bytes:
    """One model, one input, one peer."""
    scene = Scene()
    model = scene.model("triage")
    scene.ask("chained", [{"op": "infer", "model": model.id}], [scene.tensors(floats("x", 1.0, 2.0))], "first")
    lease = scene.lease(0, "alba", scene.spec.payload["inputs"])
    answer = scene.answer(lease, [scene.tensors(integers("label", 1))], model=model.id)
    return scene.conclude([answer], [step(0, [answer], accepted=answer.id)], answer.payload["outputs"])


def chain() -> bytes:
    """Three steps on three peers; the first executor of the second step was lost."""
    scene = Scene("sam")
    models = [scene.model(name) for name in ("triage", "diagnosis", "referral")]
    tasks = [{"op": "infer", "model": model.id} for model in models]
    scene.ask("chained", tasks, [scene.tensors(floats("x", 0.5, -0.25))], "first")
    first = scene.answer(
        scene.lease(0, "cara", scene.spec.payload["inputs"]),
        [scene.tensors(floats("p", 0.81, 0.19))],
        model=models[0].id,
    )
    lost = scene.lease(1, "dano", first.payload["outputs"])
    second = scene.answer(
        scene.lease(1, "alba", first.payload["outputs"], epoch=2),
        [scene.tensors(floats("p", 0.97, 0.03))],
        model=models[1].id,
    )
    third = scene.answer(
        scene.lease(2, "brio", second.payload["outputs"]),
        [scene.tensors(integers("label", 1))],
        model=models[2].id,
    )
    answers = [first, second, third]
    steps = [step(place, [answer], accepted=answer.id) for place, answer in enumerate(answers)]
    return scene.conclude(answers, steps, third.payload["outputs"], abandoned=[lost.id])


def comparative() -> bytes:
    """Three models vote on three rows; one dissents on one row."""
    scene = Scene()
    models = [scene.model(name) for name in ("forest", "boosting", "logistic")]
    tasks = [{"op": "infer", "model": model.id} for model in models]
    scene.ask("comparative", tasks, [scene.tensors(floats("x", 1.0, 2.0, 3.0))], "majority_vote")
    answers = []
    for task, (who, labels) in enumerate([("alba", (0, 1, 1)), ("brio", (0, 1, 0)), ("cara", (0, 1, 1))]):
        lease = scene.lease(task, who, scene.spec.payload["inputs"])
        answers.append(scene.answer(lease, [scene.tensors(integers("label", *labels))], model=models[task].id))
    blobs = dict(zip((opening.ref for opening in scene.openings), scene.blobs, strict=True))
    votes = [Vote(a.by, labels_of(blobs[a.payload["outputs"][0]]), a.id) for a in answers]
    output = scene.blob(encode_tally_blob(tally(votes)))
    steps = [step(0, [answers[0], answers[2]], [answers[1]])]
    return scene.conclude([answers[0], answers[2], answers[1]], steps, [output])


def collaborative() -> bytes:
    """Three sites count their own patients, each under a ruling of its own policy; one more site refuses."""
    scene = Scene("sam")
    model = scene.model("classifier")
    tasks = [
        {"op": "evaluate", "model": model.id, "cabinet": "patients", "peer": PEERS[who], "purpose": "evaluation"}
        for who in ("alba", "brio", "cara", "dano")
    ]
    scene.ask("collaborative", tasks, [], "sum_counts", min_sites=3)
    answers, rulings, counts = [], [], []
    for task, who in enumerate(("alba", "brio", "cara")):
        lease = scene.lease(task, who, [])
        rulings.append(scene.ruling(lease, scene.policy(who)))
        blob = encode_tensors([integers("counts", 70 + task, 5, 110, 5 + task)])
        counts.append((PEERS[who], blob))
        answers.append(scene.answer(lease, [scene.blob(blob)], (rulings[-1],), model=model.id, weight=190))
    lease = scene.lease(3, "dano", [])
    rulings.append(scene.ruling(lease, scene.policy("dano"), "E-cabinets-03", "cohort 3 is below the minimum of 10"))
    output = scene.blob(sum_counts(counts))
    return scene.conclude([*answers, *rulings], [step(0, answers)], [output])


def average() -> bytes:
    """Two sites, federated average: (1 × 1.0 + 3 × 2.0) / 4 = 1.75 and (1 × 0.0 + 3 × 4.0) / 4 = 3.0."""
    scene = Scene()
    model = scene.model("update")
    tasks = [{"op": "evaluate", "model": model.id, "peer": PEERS[who]} for who in ("alba", "brio")]
    scene.ask("collaborative", tasks, [], "federated_average")
    parts = [("alba", 1, (1.0, 0.0)), ("brio", 3, (2.0, 4.0))]
    answers = [
        scene.answer(scene.lease(task, who, []), [scene.tensors(floats("w", *row))], model=model.id, weight=weight)
        for task, (who, weight, row) in enumerate(parts)
    ]
    return scene.conclude(answers, [step(0, answers)], [scene.tensors(floats("w", 1.75, 3.0))])


def quorum() -> bytes:
    """Three executors, two must agree; the third says something else."""
    scene = Scene()
    model = scene.model("triage")
    asked = {"quorum": {"n": 3, "k": 2}, "comparator": {"kind": "exact"}}
    tasks = [{"op": "infer", "model": model.id}]
    scene.ask("chained", tasks, [scene.tensors(floats("x", 1.0, 2.0))], "quorum", **asked)
    answers = [
        scene.answer(
            scene.lease(task, who, scene.spec.payload["inputs"]),
            [scene.tensors(integers("label", label))],
            model=model.id,
        )
        for task, (who, label) in enumerate([("alba", 1), ("cara", 1), ("ezra", 0)])
    ]
    agreeing = sorted(answers[:2], key=lambda answer: answer.id)
    steps = [step(0, agreeing, [answers[2]], accepted=agreeing[0].id)]
    return scene.conclude([*agreeing, answers[2]], steps, agreeing[0].payload["outputs"])


def refusal() -> bytes:
    """The only site refuses, and so the job is refused."""
    scene = Scene("sam")
    ruling = _refused_ruling(scene)
    reason = ruling.payload["reason"]
    return scene.conclude([ruling], [], [], status="refused", code="E-cabinets-03", reason=reason)


def lone_refusal() -> bytes:
    """A refusal that stands alone."""
    scene = Scene("sam")
    return scene.pack(_refused_ruling(scene))


def _refused_ruling(scene: Scene) -> Record:
    model = scene.model("classifier")
    task = {"op": "evaluate", "model": model.id, "cabinet": "patients", "peer": PEERS["brio"]}
    scene.ask("collaborative", [task], [], "sum_counts")
    lease = scene.lease(0, "brio", [])
    return scene.ruling(lease, scene.policy("brio"), "E-cabinets-03", "cohort 3 is below the minimum of 10")


STORIES: dict[str, Callable[[], bytes]] = {
    "plain": plain,
    "chain": chain,
    "comparative": comparative,
    "collaborative": collaborative,
    "average": average,
    "quorum": quorum,
    "refusal": refusal,
    "lone_refusal": lone_refusal,
}

Patch = Callable[[str, dict[str, Any]], dict[str, Any] | None]


def resigned(
    raw: bytes, patch: Patch, more_records: tuple[Record, ...] = (), more_blobs: tuple[bytes, ...] = ()
) -> bytes:
    """The receipt after a conspiracy of all signers: each payload goes through `patch` and is signed again.

    Ids that changed are replaced wherever they are named. `patch(kind, payload)` returns the payload to sign, or None
    to leave the record out. Every new blob is opened with a salt of zeros.
    """
    receipt = parse_receipt(raw)
    originals = {**receipt.records, **{record.id: record for record in more_records}}
    renamed: dict[bytes, bytes] = {}
    kept: list[Record] = []

    def sign_again(record: Record) -> bytes:
        if record.id not in renamed:
            payload = patch(record.kind, deep_map(record.payload, follow))
            if payload is None:
                renamed[record.id] = bytes(record.id)
            else:
                common = {key: payload.pop(key) for key in ("net", "by", "at_ms")}
                kind = payload.pop("kind")
                payload.pop("v")
                identity, packed = compose(kind, common, payload)
                kept.append(open_record(seal(KEY_OF_PEER[common["by"]], kind, packed)))
                renamed[record.id] = bytes(identity)
        return renamed[record.id]

    def follow(value: Any) -> Any:
        return sign_again(originals[value]) if type(value) is bytes and value in originals else value

    root = sign_again(receipt.records[receipt.root])
    openings = [*receipt.openings.values(), *(Opening.of(bytes(32), blob_cid(blob)) for blob in more_blobs)]
    return pack_receipt(root, kept, openings, [*receipt.blobs.values(), *more_blobs])


def deep_map(value: Any, change: Callable[[Any], Any]) -> Any:
    """A copy of a payload with every scalar changed."""
    if type(value) is dict:
        return {key: deep_map(entry, change) for key, entry in value.items()}
    if type(value) is list:
        return [deep_map(entry, change) for entry in value]
    return change(value)


def records_of(raw: bytes, kind: str) -> list[Record]:
    """The records of a kind in a receipt, in file order."""
    receipt: Receipt = parse_receipt(raw)
    return [record for record in receipt.records.values() if record.kind == kind]
