"""Task frames: valid ones become the event that they mean; every lie about one is caught, by name."""

from dataclasses import replace

import pytest
from frame_stage import (
    EXECUTOR,
    INPUTS,
    MODEL,
    OTHER_NET,
    OUTPUT,
    OWNER,
    STRANGER,
    answer_frame,
    answer_of,
    broken,
    lease_frame,
    lease_of,
    opening,
    policy_of,
    ruling_frame,
    ruling_of,
    spec_of,
    taken,
)

from dimnode.errors import PeerFault
from dimnode.jobs.events import AnswerReceived, LeaseReceived, RulingReceived, Told
from dimnode.p2p.frames import WORDS, RecordFault, TaskFrame, read_task_frame
from dimnode.records.ids import blob_cid
from dimnode.wire import pack_frame

SPEC = spec_of()
LEASE = lease_of(SPEC)
POLICY = policy_of()
PERMISSION = ruling_of(LEASE, POLICY, True)
REFUSAL = ruling_of(LEASE, POLICY, False)
KEY = (SPEC.id, 0, 1)


def permitted(**changes):
    return answer_of(LEASE, parents=[LEASE.id, PERMISSION.id], **changes)


# ---- what is true passes


def test_a_lease_becomes_its_event_and_holds_both_records_and_the_inputs() -> None:
    found = taken(lease_frame(SPEC, LEASE), OWNER, EXECUTOR)
    openings = tuple(opening(blob) for blob in INPUTS)
    assert found.event == LeaseReceived(OWNER.peer, LEASE.id, SPEC.id, 0, 1, 1000, SPEC.payload, openings)
    blobs = [(bytes(blob_cid(blob)), blob) for blob in INPUTS]
    assert list(found.held) == [(LEASE.id, LEASE.envelope), (SPEC.id, SPEC.envelope), *blobs]


def test_blobs_that_came_another_way_count_as_well() -> None:
    frame = lease_frame(SPEC, LEASE, blobs=INPUTS[:1])
    assert frame.missing() == (opening(INPUTS[1]),)
    found = taken(frame, OWNER, EXECUTOR, fetched={blob_cid(INPUTS[1]): INPUTS[1]})
    assert len(found.held) == 4


def test_equal_inputs_are_held_once_for_each_mention() -> None:
    refs = [opening(INPUTS[0]).ref] * 2
    spec = spec_of(inputs=refs)
    frame = lease_frame(spec, lease_of(spec, inputs=refs), openings=(opening(INPUTS[0]),) * 2, blobs=INPUTS[:1])
    assert [identity for identity, _ in taken(frame, OWNER, EXECUTOR).held].count(blob_cid(INPUTS[0])) == 2


def test_a_spec_of_a_third_party_passes_with_its_own_signature() -> None:
    spec = spec_of(STRANGER)
    assert taken(lease_frame(spec, lease_of(spec)), OWNER, EXECUTOR).event.spec["by"] == STRANGER.peer


def test_an_answer_becomes_its_event_and_holds_its_record_and_output() -> None:
    answer = answer_of(LEASE, sandbox="landlock")
    found = taken(answer_frame(answer), EXECUTOR, OWNER)
    inputs = tuple(opening(blob).ref for blob in INPUTS)
    said = (EXECUTOR.peer, answer.id, KEY, LEASE.id, "ok", "", "", 7, (), opening(OUTPUT), (), inputs, MODEL, ())
    assert found.event == AnswerReceived(*said, walls=frozenset({"landlock"}))
    assert list(found.held) == [(answer.id, answer.envelope), (blob_cid(OUTPUT), OUTPUT)]


def test_a_failed_answer_has_no_output() -> None:
    answer = answer_of(LEASE, status="failed", outputs=[], code="E-run-01", error="it broke")
    event = taken(answer_frame(answer), EXECUTOR, OWNER).event
    assert (event.status, event.code, event.error, event.output) == ("failed", "E-run-01", "it broke", None)


def test_an_answer_under_a_policy_names_and_holds_permission_and_policy() -> None:
    found = taken(answer_frame(permitted(), PERMISSION, POLICY), EXECUTOR, OWNER)
    assert (found.event.rulings, found.event.policies) == ((PERMISSION.id,), (POLICY.id,))
    held = [identity for identity, _ in found.held]
    assert held == [found.event.answer, *found.event.rulings, *found.event.policies, blob_cid(OUTPUT)]


def test_a_refusal_becomes_its_event_with_or_without_a_policy() -> None:
    event = taken(ruling_frame(REFUSAL, POLICY), EXECUTOR, OWNER).event
    assert event == RulingReceived(
        EXECUTOR.peer, REFUSAL.id, KEY, "E-cabinet-06", "small", (POLICY.id,), LEASE.id, "patients"
    )
    bare = ruling_of(LEASE, None, False)
    found = taken(ruling_frame(bare), EXECUTOR, OWNER)
    assert found.event.policies == ()
    assert [identity for identity, _ in found.held] == [bare.id]


@pytest.mark.parametrize("word", sorted(WORDS))
def test_a_word_becomes_its_event_and_holds_nothing(word) -> None:
    found = taken(TaskFrame(word, KEY, code="E-x-01", text="why", retry_after_ms=250), EXECUTOR, OWNER)
    assert found.event == Told(EXECUTOR.peer, word, KEY, "E-x-01", "why", 250)
    assert found.held == ()


def test_a_long_message_of_ours_is_cut_to_what_a_frame_carries() -> None:
    sent = TaskFrame("refused", KEY, code="E" * 99, text="x" * 999, retry_after_ms=10**6)
    event = taken(sent, EXECUTOR, OWNER).event
    assert (len(event.code), len(event.text), event.retry_after_ms) == (32, 256, 5000)


# ---- what is false does not


def other_lease(**changes):
    return lease_frame(SPEC, lease_of(SPEC, **changes))


def other_spec(**changes):
    spec = spec_of(**changes)
    return lease_frame(spec, lease_of(spec))


def pinned(key):
    return other_spec(tasks=[{"op": "infer", "model": MODEL, "peer": key.peer}])


QUORUM_WITHOUT_NUMBERS = other_spec(tier="quorum")
THIRD_PARTY = spec_of(STRANGER)

LEASE_LIES = {
    "signed by somebody else": lease_frame(SPEC, lease_of(SPEC, STRANGER)),
    "for another executor": other_lease(executor=STRANGER.peer),
    "for another epoch": lease_frame(SPEC, LEASE, key=(SPEC.id, 0, 2)),
    "for another task": lease_frame(SPEC, LEASE, key=(SPEC.id, 1, 1)),
    "for another job": lease_frame(SPEC, LEASE, key=(MODEL, 0, 1)),
    "of another spec": lease_frame(spec_of(label="another"), LEASE),
    "of another swarm": other_lease(net=OTHER_NET),
    "with a spec of another swarm": other_spec(net=OTHER_NET),
    "for a task that the spec lacks": other_lease(task=1),
    "for fewer inputs than the spec's": lease_frame(
        SPEC, lease_of(SPEC, inputs=[opening(INPUTS[0]).ref]), openings=(opening(INPUTS[0]),), blobs=INPUTS[:1]
    ),
    "with a missing blob": lease_frame(SPEC, LEASE, blobs=INPUTS[:1]),
    "with a wrong blob": lease_frame(SPEC, LEASE, blobs=(INPUTS[0], b"wrong")),
    "with an extra opening": lease_frame(
        SPEC, LEASE, openings=tuple(map(opening, (*INPUTS, OUTPUT))), blobs=(*INPUTS, OUTPUT)
    ),
    "with a missing opening": lease_frame(SPEC, LEASE, openings=(opening(INPUTS[0]),)),
    "with openings in another order": lease_frame(SPEC, LEASE, openings=tuple(map(opening, reversed(INPUTS)))),
    "pinned to another peer": pinned(STRANGER),
    "with records in another order": lease_frame(SPEC, LEASE, envelopes=(SPEC.envelope, LEASE.envelope)),
    "without its spec": lease_frame(SPEC, LEASE, envelopes=(LEASE.envelope,)),
    "with a record too many": lease_frame(SPEC, LEASE, envelopes=(LEASE.envelope, SPEC.envelope, SPEC.envelope)),
    "with a broken signature": lease_frame(SPEC, LEASE, envelopes=(broken(LEASE.envelope), SPEC.envelope)),
    "with a third party's spec badly signed": lease_frame(
        THIRD_PARTY, envelopes=(lease_of(THIRD_PARTY).envelope, broken(THIRD_PARTY.envelope))
    ),
    "with a quorum that has no numbers": QUORUM_WITHOUT_NUMBERS,
    "with numbers of no quorum": other_spec(quorum={"n": 3, "k": 2}),
    "with garbage for records": lease_frame(SPEC, LEASE, envelopes=(b"", b"x")),
}

FAILED = {"status": "failed", "outputs": []}
ANSWER_LIES = {
    "signed by somebody else": answer_frame(answer_of(LEASE, STRANGER)),
    "for another epoch": answer_frame(answer_of(LEASE), key=(SPEC.id, 0, 2)),
    "for another task": answer_frame(answer_of(LEASE), key=(SPEC.id, 1, 1)),
    "of another swarm": answer_frame(answer_of(LEASE, net=OTHER_NET)),
    "without a lease": answer_frame(answer_of(LEASE, parents=[])),
    "good without an output": answer_frame(answer_of(LEASE, outputs=[]), openings=(), blobs=()),
    "failed with an output": answer_frame(answer_of(LEASE, status="failed"), openings=(opening(OUTPUT),)),
    "failed with an opening": answer_frame(answer_of(LEASE, **FAILED), openings=(opening(OUTPUT),), blobs=(OUTPUT,)),
    "with two outputs": answer_frame(
        answer_of(LEASE, outputs=[opening(OUTPUT).ref] * 2), openings=(opening(OUTPUT),) * 2
    ),
    "with a missing blob": answer_frame(answer_of(LEASE), blobs=()),
    "with another opening": answer_frame(answer_of(LEASE), openings=(opening(INPUTS[0]),), blobs=(INPUTS[0],)),
    "with a broken signature": answer_frame(answer_of(LEASE), envelopes=(broken(answer_of(LEASE).envelope),)),
    "that is a lease": answer_frame(answer_of(LEASE), envelopes=(LEASE.envelope,)),
    "without its permission": answer_frame(permitted()),
    "with a permission that it does not name": answer_frame(answer_of(LEASE), PERMISSION, POLICY),
    "with a permission but no policy": answer_frame(permitted(), PERMISSION),
    "with policy before permission": answer_frame(permitted(), POLICY, PERMISSION),
    "with a policy too many": answer_frame(permitted(), PERMISSION, POLICY, POLICY),
    "with a lone policy": answer_frame(answer_of(LEASE), POLICY),
    "with the policy of another cabinet": answer_frame(permitted(), PERMISSION, policy_of(cabinet="others")),
    "with the policy of somebody else": answer_frame(permitted(), PERMISSION, policy_of(STRANGER)),
    "with a refusal as permission": answer_frame(answer_of(LEASE, parents=[LEASE.id, REFUSAL.id]), REFUSAL, POLICY),
    "with a broken permission": answer_frame(
        permitted(), envelopes=(permitted().envelope, broken(PERMISSION.envelope), POLICY.envelope)
    ),
}


def under(ruling, policy=POLICY):
    return answer_frame(answer_of(LEASE, parents=[LEASE.id, ruling.id]), ruling, policy)


ANSWER_LIES |= {
    "with the permission of somebody else": under(ruling_of(LEASE, POLICY, True, STRANGER)),
    "with a permission for another lease": under(ruling_of(LEASE, POLICY, True, parents=[MODEL, POLICY.id])),
    "with a permission for another task": under(ruling_of(LEASE, POLICY, True, task=1)),
    "with a permission of another swarm": under(ruling_of(LEASE, POLICY, True, net=OTHER_NET)),
    "with a permission without a policy": answer_frame(
        answer_of(LEASE, parents=[LEASE.id, ruling_of(LEASE, None, True).id]), ruling_of(LEASE, None, True)
    ),
    "with a permission for another cabinet than its policy": under(ruling_of(LEASE, POLICY, True, cabinet="others")),
}

RULING_LIES = {
    "a permission": ruling_frame(PERMISSION, POLICY),
    "two refusals": ruling_frame(ruling_of(LEASE, None, False), ruling_of(LEASE, None, False, reason="again")),
    "the same refusal twice": ruling_frame(ruling_of(LEASE, None, False), ruling_of(LEASE, None, False)),
    "no record": ruling_frame(REFUSAL, envelopes=()),
    "only a policy": ruling_frame(REFUSAL, envelopes=(POLICY.envelope,)),
    "without its policy": ruling_frame(REFUSAL),
    "with a policy that it does not name": ruling_frame(ruling_of(LEASE, None, False), POLICY),
    "without a lease": ruling_frame(ruling_of(LEASE, None, False, parents=[])),
    "signed by somebody else": ruling_frame(ruling_of(LEASE, None, False, STRANGER)),
    "of another swarm": ruling_frame(ruling_of(LEASE, None, False, net=OTHER_NET)),
    "for another epoch": ruling_frame(REFUSAL, POLICY, key=(SPEC.id, 0, 9)),
    "with a broken signature": ruling_frame(REFUSAL, envelopes=(broken(REFUSAL.envelope), POLICY.envelope)),
    "an answer": ruling_frame(REFUSAL, envelopes=(answer_of(LEASE).envelope,)),
}


@pytest.mark.parametrize("lie", LEASE_LIES)
def test_a_false_lease_yields_no_event(lie) -> None:
    with pytest.raises(RecordFault):
        taken(LEASE_LIES[lie], OWNER, EXECUTOR)


@pytest.mark.parametrize("lie", ANSWER_LIES)
def test_a_false_answer_yields_no_event(lie) -> None:
    with pytest.raises(RecordFault):
        taken(ANSWER_LIES[lie], EXECUTOR, OWNER)


@pytest.mark.parametrize("lie", RULING_LIES)
def test_a_false_ruling_yields_no_event(lie) -> None:
    with pytest.raises(RecordFault):
        taken(RULING_LIES[lie], EXECUTOR, OWNER)


ROW = ["lease", bytes(SPEC.id), 0, 1, [], [], [], "", "", 0]
WORD = ["ack", *ROW[1:]]
MALFORMED = [
    *([*ROW[:place], wrong, *ROW[place + 1 :]] for place in range(10) for wrong in ([], {}, None, -1, b"", "", 2**63)),
    *([*ROW[:place], [wrong], *ROW[place + 1 :]] for place in (4, 5, 6) for wrong in (None, 1, "x", [])),
    [*ROW[:4], [b""] * 9, *ROW[5:]],
    [*ROW[:5], [b""], *ROW[6:]],
    [*ROW[:5], [opening(OUTPUT).to_bytes()[:-1] + b"?"], *ROW[6:]],
    [*ROW[:2], True, *ROW[3:]],
    [*ROW[:2], 1024, *ROW[3:]],
    [*ROW[:7], "x" * 33, *ROW[8:]],
    [*ROW[:8], "x" * 257, *ROW[9:]],
    [*ROW[:9], 5001],
    ROW[:9],
    [*ROW, *[0] * 7],
    [],
    ["x" * 17, *ROW[1:]],
    [*WORD[:4], [LEASE.envelope], *WORD[5:]],
    [*WORD[:5], [opening(OUTPUT).to_bytes()], *WORD[6:]],
    [*WORD[:6], [OUTPUT], *WORD[7:]],
]
FINE = ([4, []], [5, []], [6, []], [7, ""], [8, ""])
MALFORMED = [row for row in MALFORMED if row not in [[*ROW[:p], fine, *ROW[p + 1 :]] for p, fine in FINE]]


@pytest.mark.parametrize("row", MALFORMED, ids=lambda row: str(row)[:60])
def test_a_malformed_frame_is_the_peers_fault(row) -> None:
    with pytest.raises(PeerFault):
        read_task_frame(pack_frame(row)[4:])


def test_a_frame_to_oneself_needs_no_signature_check_but_everything_else() -> None:
    frame = lease_frame(SPEC, lease_of(SPEC, executor=OWNER.peer))
    assert taken(frame, OWNER, OWNER, trusted=True).event.peer == OWNER.peer
    with pytest.raises(RecordFault):
        taken(replace(frame, blobs=()), OWNER, OWNER, trusted=True)
