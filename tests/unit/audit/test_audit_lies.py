"""Receipts whose every signature holds and that still lie: each is refused by the check that is there for it."""

from collections.abc import Callable
from typing import Any

import pytest
from scene import (
    PEERS,
    STORIES,
    Patch,
    Scene,
    average,
    chain,
    collaborative,
    comparative,
    floats,
    integers,
    lone_refusal,
    plain,
    quorum,
    records_of,
    refusal,
    resigned,
    step,
)

from dimnode.audit.verifier import verify
from dimnode.records.ids import blob_cid, blob_ref
from dimnode.records.receipt import pack_receipt, parse_receipt
from dimnode.records.tensors import encode_tensors

OTHER_NET = bytes.fromhex("0181041220") + bytes(32)


def failed(raw: bytes) -> set[str]:
    """Codes of the checks that failed."""
    return {check.code for check in verify(raw).checks if check.outcome == "fail"}


def change(kind: str, **fields: Any) -> Patch:
    """A patch that sets fields of every record of a kind."""
    return lambda found, payload: payload | fields if found == kind else payload


def change_task(kind: str, task: int, **fields: Any) -> Patch:
    """A patch that sets fields of the record of a kind that is about one task."""
    return lambda found, payload: payload | fields if found == kind and payload["task"] == task else payload


def change_step(place: int, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Patch:
    """A patch of one entry of the verdict's steps."""

    def patch(kind: str, payload: dict[str, Any]) -> dict[str, Any]:
        if kind == "verdict":
            payload["steps"][place] = change(payload["steps"][place])
        return payload

    return patch


@pytest.mark.parametrize("name", STORIES)
def test_signing_again_without_a_lie_changes_nothing(name: str) -> None:
    raw = STORIES[name]()
    assert resigned(raw, lambda kind, payload: payload) == raw


def with_output(raw: bytes, blob: bytes) -> bytes:
    """The receipt with another output of the verdict, opened and embedded."""
    ref = blob_ref(bytes(32), blob_cid(blob))
    return resigned(raw, change("verdict", outputs=[ref]), more_blobs=(blob,))


def without(raw: bytes, kind: str) -> bytes:
    """The receipt without the records of a kind, packed as if they had never been."""
    receipt = parse_receipt(raw)
    kept = [record for record in receipt.records.values() if record.kind != kind]
    return pack_receipt(receipt.root, kept, receipt.openings.values(), receipt.blobs.values())


LIES: dict[str, tuple[Callable[[], bytes], str]] = {
    "a lease for another executor": (
        lambda: resigned(plain(), change("lease", executor=PEERS["brio"])),
        "R-LEASE",
    ),
    "a lease by somebody who is not the owner": (
        lambda: resigned(plain(), change("lease", by=PEERS["ezra"])),
        "R-LEASE",
    ),
    "an answer by somebody who has no lease": (
        lambda: resigned(plain(), change("answer", by=PEERS["ezra"])),
        "R-LEASE",
    ),
    "an answer about another epoch": (lambda: resigned(plain(), change("answer", epoch=2)), "R-LEASE"),
    "an answer about other inputs": (lambda: resigned(plain(), change("answer", inputs=[])), "R-LEASE"),
    "a lease with other inputs": (lambda: resigned(chain(), change_task("lease", 2, inputs=[])), "R-LEASE"),
    "a lease of a task that does not exist": (lambda: resigned(plain(), change("lease", task=7)), "R-LEASE"),
    "a lease of another job": (lambda: resigned(plain(), change("lease", job=OTHER_NET)), "R-LEASE"),
    "a step done by another peer than the spec names": (
        lambda: resigned(plain(), _pin("cara")),
        "R-LEASE",
    ),
    "an answer of an older epoch accepted": (
        lambda: resigned(chain(), _stale),
        "R-EPOCH",
    ),
    "two leases of one epoch": (lambda: resigned(chain(), _same_epoch), "R-EPOCH"),
    "an answer with another model": (lambda: resigned(plain(), change("answer", model=OTHER_NET)), "R-MODEL"),
    "one record of another swarm": (lambda: resigned(plain(), change("lease", net=OTHER_NET)), "R-NET"),
    "a verdict about another job": (lambda: resigned(plain(), change("verdict", job=OTHER_NET)), "R-SPEC"),
    "a verdict without a spec": (lambda: resigned(plain(), change("verdict", parents=[])), "R-SPEC"),
    "a spec that reads what does not exist": (lambda: resigned(plain(), _read_nothing), "R-SPEC"),
    "a rule that does not fit the pattern": (
        lambda: resigned(plain(), change("spec", rule={"method": "sum_counts"})),
        "R-SPEC",
    ),
    "a verdict by another rule": (lambda: resigned(plain(), change("verdict", rule="majority_vote")), "R-RULE"),
    "a missing lease": (lambda: without(plain(), "lease"), "R-PARENTS"),
    "a missing answer": (lambda: without(plain(), "answer"), "R-PARENTS"),
    "a missing policy": (lambda: without(collaborative(), "policy"), "R-PARENTS"),
    "a parent twice": (lambda: resigned(plain(), _parents_twice), "R-PARENTS"),
    "a manifest among the verdict's parents": (lambda: resigned(plain(), _manifest_as_parent), "R-PARENTS"),
    "an ok without every step": (lambda: resigned(chain(), _drop_last_step), "R-STEPS"),
    "steps in another order": (lambda: resigned(chain(), _swap_steps), "R-STEPS"),
    "a failed answer accepted": (lambda: resigned(plain(), change("answer", status="failed")), "R-STEPS"),
    "a failure although every step has an answer": (
        lambda: resigned(plain(), change("verdict", status="failed", outputs=[])),
        "R-STEPS",
    ),
    "a failure with outputs": (lambda: resigned(plain(), change("verdict", status="failed")), "R-OUTPUT"),
    "another output than the last step's": (
        lambda: with_output(chain(), encode_tensors([integers("label", 0)])),
        "R-OUTPUT",
    ),
    "a refusal that nobody signed": (
        lambda: resigned(plain(), change("verdict", status="refused", outputs=[], steps=[])),
        "R-OUTPUT",
    ),
    "a wrong tally": (lambda: with_output(comparative(), encode_tensors([integers("label", 0, 1, 0)])), "R-TALLY"),
    "dissent hidden": (
        lambda: resigned(
            comparative(),
            change_step(0, lambda entry: entry | {"supporters": entry["supporters"] + entry["dissent"], "dissent": []}),
        ),
        "R-TALLY",
    ),
    "a vote left out of the count": (
        lambda: resigned(comparative(), change_step(0, lambda entry: entry | {"dissent": []})),
        "R-STEPS",
    ),
    "a voter counted twice": (
        lambda: resigned(
            comparative(), change_step(0, lambda entry: entry | {"supporters": entry["supporters"][:1] * 2})
        ),
        "R-STEPS",
    ),
    "one peer behind two sites": (lambda: resigned(average(), _sock_puppet), "R-STEPS"),
    "one peer behind two replicas": (lambda: resigned(quorum(), _sock_puppet), "R-STEPS"),
    "a weighted vote counted without weights": (
        lambda: resigned(comparative(), _weighted),
        "R-TALLY",
    ),
    "a wrong sum": (
        lambda: with_output(collaborative(), encode_tensors([integers("counts", 1, 2, 3, 4)])),
        "R-AGGREGATE",
    ),
    "a wrong average": (lambda: with_output(average(), encode_tensors([floats("w", 1.5, 2.0)])), "R-AGGREGATE"),
    "another weight than the sites stated": (
        lambda: resigned(average(), change("answer", weight=1)),
        "R-AGGREGATE",
    ),
    "fewer sites than the spec asks for": (
        lambda: resigned(collaborative(), change("spec", min_sites=4)),
        "R-SITES",
    ),
    "a dissenter accepted": (lambda: resigned(quorum(), _accept_dissenter), "R-TALLY"),
    "a quorum of too few": (
        lambda: resigned(quorum(), change("spec", quorum={"n": 3, "k": 3})),
        "R-TALLY",
    ),
    "a quorum larger than its replicas": (
        lambda: resigned(quorum(), change("spec", quorum={"n": 3, "k": 4})),
        "R-SPEC",
    ),
    "a ruling by another peer": (
        lambda: resigned(collaborative(), change_task("ruling", 0, by=PEERS["ezra"])),
        "R-RULING",
    ),
    "a ruling under somebody else's policy": (
        lambda: resigned(refusal(), change("policy", by=PEERS["ezra"])),
        "R-RULING",
    ),
    "a ruling about another cabinet": (
        lambda: resigned(collaborative(), change("ruling", cabinet="other")),
        "R-RULING",
    ),
    "an answer under a refusal": (
        lambda: resigned(collaborative(), change_task("ruling", 0, allowed=False)),
        "R-LEASE",
    ),
    "a cabinet opened without permission": (
        lambda: resigned(collaborative(), _without_ruling),
        "R-RULING",
    ),
    "a lone permission": (lambda: resigned(lone_refusal(), change("ruling", allowed=True)), "R-ROOT"),
    "a lone ruling about another task": (lambda: resigned(lone_refusal(), change("ruling", task=1)), "R-RULING"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_signed_lie_is_refused(lie: str) -> None:
    make, code = LIES[lie]
    assert code in failed(make())


def _pin(who: str) -> Patch:
    def patch(kind: str, payload: dict[str, Any]) -> dict[str, Any]:
        if kind == "spec":
            payload["tasks"][0]["peer"] = PEERS[who]
        return payload

    return patch


def _stale(kind: str, payload: dict[str, Any]) -> dict[str, Any]:
    """Task 1: what was lost becomes the newer lease, what was accepted the older."""
    if kind in ("lease", "answer") and payload["task"] == 1:
        payload["epoch"] = 3 - payload["epoch"]
    return payload


def _same_epoch(kind: str, payload: dict[str, Any]) -> dict[str, Any]:
    return payload | {"epoch": 1} if kind in ("lease", "answer") else payload


def _read_nothing(kind: str, payload: dict[str, Any]) -> dict[str, Any]:
    if kind == "spec":
        payload["tasks"][0]["take"] = [["x", 9, "x", 0, -1]]
    return payload


def _parents_twice(kind: str, payload: dict[str, Any]) -> dict[str, Any]:
    return payload | {"parents": payload["parents"] + payload["parents"][1:]} if kind == "verdict" else payload


def _manifest_as_parent(kind: str, payload: dict[str, Any]) -> dict[str, Any]:
    model = records_of(plain(), "manifest")[0].id
    return payload | {"parents": [*payload["parents"], model]} if kind == "verdict" else payload


def _drop_last_step(kind: str, payload: dict[str, Any]) -> dict[str, Any]:
    return payload | {"steps": payload["steps"][:-1]} if kind == "verdict" else payload


def _swap_steps(kind: str, payload: dict[str, Any]) -> dict[str, Any]:
    return payload | {"steps": payload["steps"][::-1]} if kind == "verdict" else payload


def _sock_puppet(kind: str, payload: dict[str, Any]) -> dict[str, Any]:
    """Whatever brio or cara did, alba does."""
    others = (PEERS["brio"], PEERS["cara"])
    if kind == "spec":
        payload["tasks"] = [task | ({"peer": PEERS["alba"]} if "peer" in task else {}) for task in payload["tasks"]]
    if kind == "lease" and payload["executor"] in others:
        payload["executor"] = PEERS["alba"]
    if kind == "answer" and payload["by"] in others:
        payload["by"] = PEERS["alba"]
    return payload


def _weighted(kind: str, payload: dict[str, Any]) -> dict[str, Any]:
    if kind == "spec":
        payload["rule"] = {"method": "weighted_vote", "weights_permille": [100, 900, 100]}
    return payload | {"rule": "weighted_vote"} if kind == "verdict" else payload


def _accept_dissenter(kind: str, payload: dict[str, Any]) -> dict[str, Any]:
    if kind == "verdict":
        entry = payload["steps"][0]
        liar = entry["dissent"]
        payload["steps"] = [entry | {"accepted": liar[0], "supporters": liar, "dissent": entry["supporters"]}]
    return payload


def _without_ruling(kind: str, payload: dict[str, Any]) -> dict[str, Any]:
    return payload | {"parents": payload["parents"][:1]} if kind == "answer" else payload


def test_a_retry_without_a_lie_is_no_lie() -> None:
    """A failed answer of an older epoch may stand among the parents."""
    scene = Scene()
    model = scene.model("triage")
    scene.ask("chained", [{"op": "infer", "model": model.id}], [scene.tensors(floats("x", 1.0))], "first")
    inputs = scene.spec.payload["inputs"]
    bad = scene.answer(scene.lease(0, "alba", inputs), [], status="crashed", model=model.id, code="E-exec-01")
    good = scene.answer(scene.lease(0, "brio", inputs, epoch=2), [scene.tensors(integers("label", 1))], model=model.id)
    raw = scene.conclude([good, bad], [step(0, [good], accepted=good.id)], good.payload["outputs"])
    assert verify(raw).status == 0


def test_an_expired_job_verifies() -> None:
    scene = Scene()
    model = scene.model("triage")
    scene.ask("chained", [{"op": "infer", "model": model.id}] * 2, [scene.tensors(floats("x", 1.0))], "first")
    first = scene.answer(
        scene.lease(0, "alba", scene.spec.payload["inputs"]), [scene.tensors(floats("x", 2.0))], model=model.id
    )
    open_lease = scene.lease(1, "brio", first.payload["outputs"])
    steps = [step(0, [first], accepted=first.id)]
    raw = scene.conclude([first], steps, [], status="expired", reason="deadline", abandoned=[open_lease.id])
    assert verify(raw).status == 0


def test_a_split_quorum_verifies_and_a_false_split_does_not() -> None:
    entry = {"task": 0, "supporters": [], "dissent": []}
    honest = resigned(quorum(), change("spec", quorum={"n": 3, "k": 3}))
    parents = [record.id for kind in ("spec", "answer") for record in records_of(honest, kind)]
    split = change("verdict", status="split", outputs=[], steps=[entry], parents=parents)
    assert verify(resigned(honest, split)).status == 0
    parents = [record.id for kind in ("spec", "answer") for record in records_of(quorum(), kind)]
    split = change("verdict", status="split", outputs=[], steps=[entry], parents=parents)
    assert failed(resigned(quorum(), split)) == {"R-TALLY"}


def test_one_peer_may_run_several_models_and_the_report_says_so() -> None:
    report = verify(resigned(comparative(), _sock_puppet))
    assert report.status == 0
    assert any("that the votes are independent" in line and "3 of 3" in line for line in report.not_shown)


def test_replicas_that_cannot_be_compared_are_a_split() -> None:
    """A comparator without its number compares nothing; the owner may only say that nobody agreed."""
    broken = {"quorum": {"n": 3, "k": 2}, "comparator": {"kind": "rtol"}}
    raw = resigned(quorum(), change("spec", **broken))
    assert failed(raw) == {"R-TALLY"}
    split = change_step(
        0, lambda entry: {"task": 0, "supporters": [], "dissent": entry["supporters"] + entry["dissent"]}
    )
    report = verify(resigned(resigned(raw, split), change("verdict", status="split", outputs=[])))
    assert report.status == 3
    assert any(line.startswith("R-TALLY") and "compares nothing" in line for line in report.not_checked)
    assert not any("count was repeated" in line for line in report.shown)
