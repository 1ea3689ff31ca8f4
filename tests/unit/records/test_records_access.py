"""Who may do what with a model: only the publisher speaks for it, and each no has its own code."""

import hashlib
from typing import Any

import pytest

from dimnode.records.access import Access, judge
from dimnode.records.envelope import Record, SigningKey, seal
from dimnode.records.ids import PeerId, RecordId, blob_cid
from dimnode.records.kinds import OPEN_SWARM_ID, compose, open_record
from dimnode.records.manifest import Manifest

PUBLISHER, FRIEND, STRANGER = (SigningKey.from_seed(hashlib.sha256(name).digest()) for name in (b"p", b"f", b"s"))
NOW_MS = 1_000
PRICE = {"unit": "answer", "micro": 5, "currency": "EUR"}


def signed(key: SigningKey, kind: str, of_version: int = 1, **body: Any) -> Record:
    _, payload = compose(kind, {"net": OPEN_SWARM_ID, "by": key.peer, "at_ms": 1}, body, version=of_version)
    return open_record(seal(key, kind, payload, of_version), kind=kind)


def manifest(
    access: str = "restricted", key: SigningKey = PUBLISHER, name: str = "m", sizes: tuple[int, ...] = (1,)
) -> Manifest:
    body: dict[str, Any] = {"name": name, "version": "1", "profile": "unixfs-v1-2025", "format": "onnx", "inputs": []}
    body |= {"outputs": [], "labels": [], "licence": "", "origin": "trained", "access": access}
    body |= {"files": [[f"{place}.onnx", "model", blob_cid(b"m"), size] for place, size in enumerate(sizes)]}
    body |= {"price": PRICE} if access == "pay-per-use" else {}
    return Manifest.of(signed(key, "manifest", 2, **body))


MODEL = manifest()


def grant(key: SigningKey = PUBLISHER, peer: PeerId = FRIEND.peer, model: RecordId = MODEL.id, **more: Any) -> Record:
    return signed(key, "grant", **({"peer": peer, "models": [model], "operations": ["infer"]} | more))


def asked(
    model: Manifest = MODEL, peer: PeerId = FRIEND.peer, operation: str = "infer", *grants: Record, gone: Any = ()
) -> Access:
    """`gone`: withdrawals, as somebody may have sent them."""
    withdrawn = {(record.by, record.payload["subject"]): record for record in gone}
    return judge(model, peer, operation, grants, lambda by, subject: withdrawn.get((by, subject)), NOW_MS)


def test_a_public_model_is_everybodys_and_a_private_one_its_publishers_alone() -> None:
    assert asked(manifest("public"), STRANGER.peer).allowed
    assert asked(manifest("private"), PUBLISHER.peer).allowed
    private = manifest("private")
    assert asked(private, FRIEND.peer, "infer", grant(model=private.id)).code == "E-models-20"


@pytest.mark.parametrize("access", ["restricted", "pay-per-use"])
def test_a_grant_opens_a_restricted_model_to_its_peer_for_its_operations(access: str) -> None:
    model = manifest(access)
    given = grant(model=model.id)
    assert asked(model, FRIEND.peer, "infer").code == "E-models-21"
    assert asked(model, FRIEND.peer, "infer", given) == Access(True, grant=given)
    assert asked(model, FRIEND.peer, "fetch", given).code == "E-models-25"
    assert asked(model, STRANGER.peer, "infer", given).code == "E-models-21"
    assert asked(model, PUBLISHER.peer, "fetch").allowed


def test_a_grant_that_somebody_else_signed_means_nothing() -> None:
    for key in (FRIEND, STRANGER):
        assert asked(MODEL, FRIEND.peer, "infer", grant(key)).code == "E-models-21"


def test_a_grant_of_another_model_means_nothing() -> None:
    other = manifest(name="another")
    assert asked(MODEL, FRIEND.peer, "infer", grant(model=other.id)).code == "E-models-21"


def test_a_grant_ends_at_the_millisecond_that_it_names() -> None:
    assert asked(MODEL, FRIEND.peer, "infer", grant(expires_ms=NOW_MS + 1)).allowed
    assert asked(MODEL, FRIEND.peer, "infer", grant(expires_ms=NOW_MS)).code == "E-models-22"


def test_a_grant_is_taken_back_by_its_signer_and_by_nobody_else() -> None:
    given = grant()
    taken = signed(PUBLISHER, "withdraw", subject=given.id, reason="")
    forged = signed(STRANGER, "withdraw", subject=given.id, reason="")
    assert asked(MODEL, FRIEND.peer, "infer", given, gone=[taken]).code == "E-models-23"
    assert asked(MODEL, FRIEND.peer, "infer", given, gone=[forged]).allowed


def test_a_model_is_withdrawn_by_its_publisher_and_by_nobody_else() -> None:
    gone = signed(PUBLISHER, "withdraw", subject=MODEL.id, reason="it was wrong")
    forged = signed(STRANGER, "withdraw", subject=MODEL.id, reason="")
    for peer in (FRIEND.peer, PUBLISHER.peer):
        refused = asked(MODEL, peer, "infer", grant(), gone=[gone])
        assert (refused.code, "it was wrong" in refused.cause) == ("E-models-24", True)
    assert asked(MODEL, FRIEND.peer, "infer", grant(), gone=[forged]).allowed


def test_of_several_grants_one_that_holds_suffices_and_the_closest_says_why_not() -> None:
    ended, other, good = grant(expires_ms=1), grant(operations=["fetch"]), grant(expires_ms=NOW_MS + 9)
    assert asked(MODEL, FRIEND.peer, "infer", ended, other, good).grant == good
    assert asked(MODEL, FRIEND.peer, "infer", ended, other).code == "E-models-25"
    assert asked(MODEL, FRIEND.peer, "infer", ended, grant(STRANGER)).code == "E-models-22"


def test_the_bytes_of_all_files_are_a_number_that_any_message_can_hold() -> None:
    assert manifest(sizes=(1, 2, 3)).size_bytes == 6
    assert manifest(sizes=(2**63 - 1,) * 3).size_bytes == 2**63 - 1
