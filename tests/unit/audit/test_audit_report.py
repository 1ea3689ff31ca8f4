"""What a report says, and what it takes care not to say."""

import json

import pytest
from scene import (
    STORIES,
    TRUST,
    Scene,
    average,
    chain,
    collaborative,
    comparative,
    floats,
    lone_refusal,
    plain,
    quorum,
    refusal,
    resigned,
    step,
)

from dimnode.audit.redact import redact
from dimnode.audit.report import CODES, report_lines, report_map
from dimnode.audit.verifier import verify
from dimnode.errors import PeerFault
from dimnode.records.receipt import pack_receipt, parse_receipt


def unchecked(raw: bytes, **given: dict[bytes, bytes]) -> set[str]:
    """Codes of the checks that could not be made, but for those that this version never makes."""
    checks = verify(raw, **given).checks
    return {check.code for check in checks if check.outcome == "not-checked"} - {"R-COMMIT", "R-PROOF"}


@pytest.mark.parametrize(
    ("story", "codes"),
    [
        (plain, {"R-OPENING", "R-BLOB"}),
        (chain, {"R-OPENING", "R-BLOB"}),
        (comparative, {"R-OPENING", "R-BLOB", "R-TALLY"}),
        (collaborative, {"R-OPENING", "R-BLOB", "R-AGGREGATE"}),
        (average, {"R-OPENING", "R-BLOB", "R-AGGREGATE"}),
        (quorum, {"R-OPENING", "R-BLOB", "R-TALLY"}),
    ],
)
def test_a_redacted_receipt_is_authentic_but_incomplete(story, codes) -> None:
    small = redact(story())
    report = verify(small)
    assert report.status == 3
    assert unchecked(small) == codes
    assert len(parse_receipt(small).records) == len(parse_receipt(story()).records)
    assert redact(small) == small


def test_nothing_of_a_redacted_receipt_can_be_guessed() -> None:
    """A bare CID of an input or output would let anyone test a guess; only blinded references may remain."""
    raw = comparative()
    small = redact(raw)
    for opening in parse_receipt(raw).openings.values():
        assert opening.cid not in small
        assert opening.salt not in small


def test_a_damaged_receipt_is_not_redacted() -> None:
    with pytest.raises(PeerFault):
        redact(plain()[:-1])


def test_blobs_beside_the_file_complete_it() -> None:
    receipt = parse_receipt(comparative())
    outside = {bytes(cid): blob for cid, blob in receipt.blobs.items()}
    light = pack_receipt(receipt.root, receipt.records.values(), receipt.openings.values(), ())
    assert unchecked(light) == {"R-BLOB", "R-TALLY"}
    assert verify(light).status == 3
    assert verify(light, blobs=outside).status == 0
    forged = dict.fromkeys(outside, b"something else")
    report = verify(light, blobs=forged)
    assert report.status == 1
    assert {check.code for check in report.checks if check.outcome == "fail"} == {"R-BLOB"}


def test_a_missing_manifest_leaves_the_model_open() -> None:
    receipt = parse_receipt(plain())
    kept = [record for record in receipt.records.values() if record.kind != "manifest"]
    raw = pack_receipt(receipt.root, kept, receipt.openings.values(), receipt.blobs.values())
    assert unchecked(raw) == {"R-MODEL"}
    assert verify(raw).status == 3


def test_what_is_required_and_missing_fails() -> None:
    assert verify(plain(), require={"cosign": 2}).status == 1
    assert verify(plain(), require={"cosign": 0}).status == 0


@pytest.mark.parametrize("name", STORIES)
def test_a_report_always_says_what_no_signature_can_show(name: str) -> None:
    for report in (verify(STORIES[name]()), verify(redact(STORIES[name]())), verify(STORIES[name]()[:-1])):
        text = "\n".join(report.not_shown)
        assert "that a model really ran" in text
        assert "when it happened" in text
        assert "key" in text


def test_trusted_names_stand_in_the_place_of_keys() -> None:
    report = verify(refusal(), trust=TRUST)
    assert any(line.startswith('brio signed a refusal (E-cabinets-03: "cohort 3') for line in report.shown)
    assert any(line.startswith("nora signed the verdict: refused by sum_counts") for line in report.shown)
    assert not any("not in your list" in line for line in report.not_shown)
    assert any("1 of 3 keys are not in your list" in line for line in _without(TRUST, "sam"))


def _without(trust: dict[bytes, str], name: str) -> tuple[str, ...]:
    return verify(refusal(), trust={peer: known for peer, known in trust.items() if known != name}).not_shown


def test_a_recomputed_total_is_shown_only_when_it_was_recomputed() -> None:
    assert any("computed again" in line for line in verify(collaborative()).shown)
    assert not any("computed again" in line for line in verify(redact(collaborative())).shown)


def test_a_lone_refusal_says_that_it_carries_no_spec() -> None:
    report = verify(lone_refusal())
    assert report.status == 0
    assert any("does not carry the spec" in line for line in report.not_shown)


def test_clock_order_is_a_note_and_never_a_failure() -> None:
    late = resigned(plain(), lambda kind, payload: payload | {"at_ms": 0} if kind == "verdict" else payload)
    report = verify(late)
    assert report.status == 0
    assert any("record 1 is stamped before record 2" in line for line in report.not_shown)


def test_a_stranger_cannot_write_to_the_terminal() -> None:
    raw = resigned(refusal(), lambda kind, payload: payload | {"reason": "\x1b[2J\n"} if kind == "ruling" else payload)
    assert not any("\x1b" in line or "\n" in line for line in report_lines(verify(raw)))


def test_every_code_of_a_report_is_documented() -> None:
    for story in STORIES.values():
        assert {check.code for check in verify(story()).checks} <= CODES.keys()


def test_the_json_report_holds_what_the_text_says() -> None:
    report = verify(chain(), trust=TRUST)
    found = json.loads(json.dumps(report_map(report)))
    assert found["status"] == 0
    assert len(found["checks"]) == len(report.checks)
    text = "\n".join(report_lines(report))
    assert text.endswith("verified")
    for line in (*report.shown, *report.not_shown, *report.not_checked):
        assert line in text


def test_a_record_of_an_unknown_kind_is_never_interpreted() -> None:
    """Its id and signature are checked; as a parent of a verdict it means nothing that this version may rely on."""
    scene = Scene()
    strange = scene.sign("alba", "opinion", at_ms_too="not a time")
    model = scene.model("triage")
    scene.ask("chained", [{"op": "infer", "model": model.id}], [], "first")
    raw = scene.conclude([strange], [], [], status="failed")
    assert {check.code for check in verify(raw).checks if check.outcome == "fail"} == {"R-PARENTS"}
    assert verify(scene.pack(strange)).status == 1


@pytest.mark.parametrize("kind", ["opinion", "manifest"])
def test_a_step_that_reads_what_is_no_answer_is_refused_whatever_that_calls_its_outputs(kind: str) -> None:
    scene = Scene()
    model = scene.model("triage")
    strange = scene.sign("alba", kind, outputs=5) if kind == "opinion" else model
    tasks = [{"op": "infer", "model": model.id}] * 2
    scene.ask("chained", tasks, [scene.tensors(floats("x", 1.0, 2.0))], "first")
    answer = scene.answer(scene.lease(1, "brio", []), [], model=model.id, status="failed")
    raw = scene.conclude([answer, strange], [step(0, [strange], accepted=strange.id)], [], status="failed")
    failed = {(check.code, check.why) for check in verify(raw).checks if check.outcome == "fail"}
    assert ("R-LEASE", "the lease reads a step that has no accepted answer") in failed
