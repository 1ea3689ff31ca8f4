"""What was heard of models: grants and withdrawals outlast a restart; a stranger fills nobody's room but its own."""

from dataclasses import replace
from typing import Any

import pytest
import trio

from dimnode.errors import Refused
from dimnode.limits import LIMITS
from dimnode.node.registry import Registry, grants_in
from dimnode.records.envelope import Record, SigningKey, seal
from dimnode.records.ids import RecordId, blob_cid, cid_text, peer_text
from dimnode.records.kinds import OPEN_SWARM_ID, compose, open_record
from dimnode.store.journal import Journal

ME, PUBLISHER, STRANGER = (SigningKey.from_seed(bytes([number]) * 32) for number in (1, 2, 3))


@pytest.fixture
def journal(tmp_path):
    with Journal(tmp_path / "j.db") as opened:
        yield opened


@pytest.fixture
def registry(journal) -> Registry:
    return Registry(ME.peer, OPEN_SWARM_ID, journal)


def signed(key: SigningKey, kind: str, of_version: int = 1, net: bytes = OPEN_SWARM_ID, **body: Any) -> Record:
    _, payload = compose(kind, {"net": net, "by": key.peer, "at_ms": 1}, body, version=of_version)
    return open_record(seal(key, kind, payload, of_version), kind=kind)


def manifest(key: SigningKey = PUBLISHER, name: str = "iris", version: str = "1", access: str = "restricted") -> Record:
    body: dict[str, Any] = {"name": name, "version": version, "profile": "unixfs-v1-2025", "format": "onnx"}
    body |= {"inputs": [], "outputs": [], "labels": [], "licence": "", "origin": "trained", "access": access}
    return signed(key, "manifest", 2, **body, files=[["m.onnx", "model", blob_cid(b"m"), 1]])


def grant(model: RecordId, key: SigningKey = PUBLISHER, peer: SigningKey = ME, **more: Any) -> Record:
    return signed(key, "grant", **({"peer": peer.peer, "models": [model], "operations": ["infer"]} | more))


def withdrawal(subject: RecordId, key: SigningKey = PUBLISHER, **more: Any) -> Record:
    return signed(key, "withdraw", **({"subject": subject, "reason": "wrong"} | more))


def code_of(registry: Registry, name: str) -> str:
    with pytest.raises(Refused) as caught:
        registry.find(name)
    return caught.value.complaint.code


def test_what_was_granted_to_this_node_is_its_own_after_a_restart(journal, registry) -> None:
    model = manifest()
    registry.hear(model, PUBLISHER.peer)
    given = grant(model.id)
    assert registry.access(model.id, ME.peer, "infer", 5).code == "E-models-21"
    assert not registry.hear_notice(given, STRANGER.peer, journalled=False)  # shown where nothing is written down
    assert registry.hear_notice(given, PUBLISHER.peer)
    assert not registry.hear_notice(given, STRANGER.peer)
    trio.run(journal.commit, {"records": [("grant", given.id, b"", 0, 0, given.envelope)]})
    again = Registry(ME.peer, OPEN_SWARM_ID, journal)
    again.hear(model, PUBLISHER.peer)
    assert again.access(model.id, ME.peer, "infer", 5).allowed
    assert again.passes(ME.peer, {model.id: "infer"}, 5) == (given.envelope,)
    assert again.passes(STRANGER.peer, {model.id: "infer"}, 5) == ()


def test_a_withdrawn_model_is_not_found_by_name_nor_by_id_and_the_reason_is_said(registry) -> None:
    old, new = manifest(version="1"), manifest(version="2")
    registry.hear(old, PUBLISHER.peer)
    registry.hear(new, PUBLISHER.peer)
    registry.hear_notice(withdrawal(new.id, replacement=old.id), PUBLISHER.peer)
    assert registry.find("iris") == old
    for name in ("iris:2", cid_text(new.id), f"{peer_text(PUBLISHER.peer)}/iris:2"):
        assert code_of(registry, name) == "E-models-24"
    assert registry.access(new.id, PUBLISHER.peer, "infer", 5).code == "E-models-24"
    assert new.id in registry.manifests
    with pytest.raises(Refused) as caught:
        registry.find("iris:2")
    assert caught.value.complaint.hint == "its publisher says to take iris:1: dim models show iris:1"


def test_what_this_node_may_not_have_done_is_refused_before_anybody_is_asked(registry) -> None:
    model = manifest()
    registry.hear(model, PUBLISHER.peer)
    with pytest.raises(Refused) as caught:
        registry.require(model, "infer", 5)
    assert caught.value.complaint.code == "E-models-21"
    assert caught.value.complaint.hint == f"its publisher can: dim models grant iris:1 {peer_text(ME.peer)}"
    registry.hear_notice(given := grant(model.id), PUBLISHER.peer)
    registry.require(model, "infer", 5)
    with pytest.raises(Refused, match="E-models-25"):
        registry.require(model, "evaluate", 5)
    registry.hear_notice(withdrawal(given.id), PUBLISHER.peer)
    with pytest.raises(Refused, match="E-models-23"):
        registry.require(model, "infer", 5)


def test_nobody_withdraws_what_is_not_its_own(registry) -> None:
    model = manifest(access="public")
    registry.hear(model, PUBLISHER.peer)
    registry.hear_notice(withdrawal(model.id, STRANGER), STRANGER.peer)
    assert registry.find("iris") == model
    assert registry.access(model.id, ME.peer, "infer", 5).allowed


def test_a_withdrawal_that_comes_before_its_manifest_counts(registry) -> None:
    model = manifest()
    registry.hear_notice(withdrawal(model.id), PUBLISHER.peer)
    registry.hear(model, STRANGER.peer)
    assert code_of(registry, "iris") == "E-models-24"


def test_a_notice_of_another_swarm_is_not_taken(registry) -> None:
    model = manifest()
    registry.hear(model, PUBLISHER.peer)
    elsewhere = signed(PUBLISHER, "withdraw", net=model.id, subject=model.id, reason="")
    assert not registry.hear_notice(elsewhere, PUBLISHER.peer)
    assert registry.find("iris") == model


def test_each_peer_is_told_its_own_grants_and_everybodys_withdrawals(registry) -> None:
    model = manifest(ME)
    registry.keep(model)
    given, gone = grant(model.id, ME, STRANGER), withdrawal(model.id, ME)
    assert registry.hear_notice(given, ME.peer)
    assert registry.hear_notice(gone, ME.peer)
    assert registry.notices_for(STRANGER.peer) == [given.envelope, gone.envelope]
    assert registry.notices_for(PUBLISHER.peer) == [gone.envelope]


def test_a_stranger_who_signs_thousands_of_grants_displaces_only_its_own(journal) -> None:
    room = 16 * LIMITS.peers.notice_share_bytes_min
    limits = replace(LIMITS, peers=replace(LIMITS.peers, notices_heard_bytes_max=room))
    registry = Registry(ME.peer, OPEN_SWARM_ID, journal, limits)
    model = manifest()
    registry.hear(model, PUBLISHER.peer)
    registry.hear_notice(grant(model.id, peer=PUBLISHER), PUBLISHER.peer)
    registry.hear_notice(withdrawal(model.id, STRANGER), STRANGER.peer)
    for number in range(200):
        invented = SigningKey.from_seed(number.to_bytes(32, "big"))
        registry.hear_notice(grant(model.id, invented, STRANGER), STRANGER.peer)
    assert len(registry.grants(PUBLISHER.peer, model.id)) == 1
    assert len(registry._notices) <= 16
    assert registry.withdrawn(STRANGER.peer, model.id) is None


def test_grants_to_this_node_fill_the_journal_only_so_far(journal) -> None:
    limits = replace(LIMITS, peers=replace(LIMITS.peers, notices_kept_max=3))
    registry = Registry(ME.peer, OPEN_SWARM_ID, journal, limits)
    found = [registry.hear_notice(grant(manifest(version=str(n)).id), PUBLISHER.peer) for n in range(5)]
    assert found == [True, True, True, False, False]
    assert registry.hear_notice(grant(manifest().id, ME, STRANGER), ME.peer)  # what it signs itself it always keeps


def test_of_what_comes_with_a_lease_only_grants_that_hold_are_taken() -> None:
    good = grant(manifest().id)
    bad = good.envelope[:-1] + bytes([good.envelope[-1] ^ 1])
    assert grants_in([bad, b"", withdrawal(manifest().id).envelope, good.envelope]) == [good]
