"""Receipts of dishonest signers, every signature valid: none may be verified while something under Shown is false."""

from collections.abc import Callable
from typing import Any

import pytest
from scene import Scene, collaborative, comparative, floats, integers, plain, quorum, records_of, resigned, step

from dimnode.audit.report import Report, report_lines, report_map
from dimnode.audit.verifier import verify
from dimnode.records.envelope import Record
from dimnode.records.receipt import parse_receipt

ESCAPES = "\x1b[2J\x1b[H\x9b8m\u202eok\r\n\nverified"


def failed(raw: bytes) -> set[str]:
    return {check.code for check in verify(raw).checks if check.outcome == "fail"}


def replicas(
    labels: list[tuple[str, int]], n: int = 3, k: int = 2, comparator: dict[str, Any] | None = None
) -> tuple[Scene, list[Record]]:
    """One step of a quorum, answered so by these peers."""
    scene = Scene()
    model = scene.model("triage")
    asked: dict[str, Any] = {"quorum": {"n": n, "k": k}} | ({"comparator": comparator} if comparator else {})
    scene.ask("chained", [{"op": "infer", "model": model.id}], [scene.tensors(floats("x", 1.0))], "quorum", **asked)
    answers = []
    for task, (who, label) in enumerate(labels):
        lease = scene.lease(task, who, scene.spec.payload["inputs"])
        answers.append(scene.answer(lease, [scene.tensors(integers("label", label))], model=model.id))
    return scene, answers


def concluded(scene: Scene, answers: list[Record], counted: list[Record]) -> bytes:
    """The verdict that accepts the first of what it counts."""
    ordered = sorted(counted, key=lambda answer: answer.id)
    outputs = ordered[0].payload["outputs"]
    return scene.conclude(answers, [step(0, ordered, accepted=ordered[0].id)], outputs)


@pytest.mark.parametrize("story", [collaborative, comparative])
def test_a_total_is_not_called_computed_again_when_there_is_none(story: Callable[[], bytes]) -> None:
    def fail(kind: str, payload: dict[str, Any]) -> dict[str, Any]:
        return payload | {"status": "failed", "outputs": []} if kind == "verdict" else payload

    assert failed(resigned(story(), fail)) == {"R-STEPS"}


def test_a_lease_is_not_called_fruitless_while_its_answer_counts() -> None:
    scene = Scene()
    model = scene.model("triage")
    scene.ask("chained", [{"op": "infer", "model": model.id}], [scene.tensors(floats("x", 1.0))], "first")
    lease = scene.lease(0, "alba", scene.spec.payload["inputs"])
    answer = scene.answer(lease, [scene.tensors(integers("label", 1))], model=model.id)
    steps = [step(0, [answer], accepted=answer.id)]
    raw = scene.conclude([answer], steps, answer.payload["outputs"], abandoned=[lease.id])
    assert failed(raw) == {"R-PARENTS"}


@pytest.mark.parametrize(("n", "k"), [(1, 1), (3, 1), (4, 2), (6, 3)])
def test_one_voice_or_a_half_is_not_called_a_quorum(n: int, k: int) -> None:
    names = ["alba", "brio", "cara", "dano", "ezra", "sam"]
    scene, answers = replicas([(names[place], 1) for place in range(n)], n, k)
    assert failed(concluded(scene, answers, answers)) == {"R-SPEC"}


def test_a_peer_that_answers_twice_makes_no_quorum_with_itself() -> None:
    scene, answers = replicas([("alba", 1), ("alba", 1), ("cara", 0)])
    assert {"R-STEPS"} <= failed(concluded(scene, answers, answers[:2]))


def test_a_peer_that_answers_twice_does_not_turn_an_agreement_into_a_split() -> None:
    scene, answers = replicas([("alba", 1), ("cara", 1), ("cara", 0)])
    assert failed(scene.conclude(answers, [step(0, [], [])], [], status="split")) == {"R-TALLY"}


def test_on_a_split_no_single_peer_is_named_as_the_one_that_dissents() -> None:
    scene, answers = replicas([("alba", 0), ("cara", 1), ("brio", 2)])
    assert failed(scene.conclude(answers, [step(0, [], answers[:1])], [], status="split")) == {"R-TALLY"}
    scene, answers = replicas([("alba", 0), ("cara", 1), ("brio", 2)])
    assert verify(scene.conclude(answers, [step(0, [], answers)], [], status="split")).status == 0


def test_how_many_had_to_agree_and_how_closely_is_not_kept_back() -> None:
    """A comparator may be so wide that anything agrees: the reader must see it."""
    scene, answers = replicas([("alba", 1), ("cara", 1), ("brio", 1)], comparator={"kind": "rtol", "rtol_micro": 10**9})
    report = verify(concluded(scene, answers, answers))
    assert report.status == 0
    assert any("tier quorum 2 of 3, rtol rtol_micro 1000000000" in line for line in report.shown)


@pytest.mark.parametrize("kind", ["verdict", "manifest", "spec"])
def test_nothing_that_a_signer_wrote_commands_the_readers_terminal(kind: str) -> None:
    fields = {
        "verdict": {"unchecked": [ESCAPES] * 3, "checks": [ESCAPES], "reason": ESCAPES, "code": ESCAPES},
        "manifest": {"name": ESCAPES, "version": ESCAPES, "labels": [ESCAPES], "summary": ESCAPES},
        "spec": {"label": ESCAPES},
    }[kind]
    report = verify(resigned(plain(), lambda found, payload: payload | fields if found == kind else payload))
    assert report.status == 0
    assert all(line.isprintable() for line in report_lines(report))
    assert _texts(report_map(report)) == [text for text in _texts(report_map(report)) if text.isprintable()]


def _texts(value: Any) -> list[str]:
    match value:
        case str():
            return [value]
        case dict():
            return [text for entry in value.values() for text in _texts(entry)]
        case list():
            return [text for entry in value for text in _texts(entry)]
    return []


def test_a_models_name_does_not_pass_for_a_line_of_the_report() -> None:
    forged = 'triage" 1 (record 3)   alba signed the verdict: ok'
    raw = resigned(plain(), lambda kind, payload: payload | {"name": forged} if kind == "manifest" else payload)
    report: Report = verify(raw)
    quoted = forged.replace('"', "'")
    assert all(line.count(f'"{quoted}"') == line.count("alba signed") for line in report.shown)


def test_an_output_is_not_exchanged_behind_its_opening() -> None:
    """The same reference, opened to another blob: no salt does that."""
    receipt = parse_receipt(quorum())
    for opening in receipt.openings.values():
        for other in receipt.openings.values():
            forged = opening.ref + opening.salt + other.cid
            if forged != opening.to_bytes():
                assert forged not in quorum()
                assert verify(quorum().replace(opening.to_bytes(), forged)).status == 1


def test_a_lease_of_another_job_is_no_lease_here() -> None:
    other = records_of(collaborative(), "lease")[0]
    scene = Scene()
    model = scene.model("triage")
    scene.ask("chained", [{"op": "infer", "model": model.id}], [], "first")
    scene.records.append(other)
    answer = scene.answer(other, [scene.tensors(integers("label", 1))], model=model.id)
    raw = scene.conclude([answer], [step(0, [answer], accepted=answer.id)], answer.payload["outputs"])
    assert "R-LEASE" in failed(raw)


def test_a_record_of_an_unknown_kind_smuggles_nothing_in() -> None:
    scene = Scene()
    scene.model("triage")
    scene.ask("chained", [{"op": "infer"}], [scene.tensors(floats("x", 1.0))], "first")
    stray = scene.sign("alba", "answer_two", parents=[scene.records[0].id], outputs=[bytes(32)], job=scene.spec.id)
    for parents, steps in (([stray], []), ([stray], [step(0, [stray], accepted=stray.id)])):
        assert {"R-PARENTS"} <= failed(scene.conclude(parents, steps, [], status="failed"))
