"""The golden files: what they are built from, that they verify, and that every listed vector holds."""

import json
from pathlib import Path
from typing import Any

import msgpack
import msgpack.fallback
import pytest
from make_golden import vectors_text
from scene import STORIES, TRUST
from vectors import value_of

from dimnode.audit.verifier import verify
from dimnode.errors import PeerFault
from dimnode.records import codec
from dimnode.records.envelope import SigningKey, open_envelope, seal
from dimnode.records.ids import blob_cid, blob_ref, cid_bytes, cid_text, peer_text, record_id
from dimnode.records.kinds import OPEN_SWARM_ID, open_record
from dimnode.records.tensors import Tensor, decode_tensors, encode_tensors

FOLDER = Path(__file__).parent
VECTORS: dict[str, Any] = json.loads((FOLDER / "vectors.json").read_text(encoding="utf-8"))
ENVELOPE = VECTORS["envelope"]
BOTH = pytest.mark.parametrize("packer", ["compiled", "pure Python"])


@pytest.fixture
def msgpack_of(packer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the codec use one of msgpack's two implementations."""
    if packer == "pure Python":

        class Fallback:
            exceptions = msgpack.exceptions
            unpackb = staticmethod(msgpack.fallback.unpackb)

        monkeypatch.setattr(codec, "msgpack", Fallback)
        monkeypatch.setattr(codec, "_pack", msgpack.fallback.Packer().pack)


@pytest.mark.parametrize("name", STORIES)
def test_a_story_always_gives_the_same_bytes_and_they_verify(name: str) -> None:
    raw = (FOLDER / f"{name}.dimr").read_bytes()
    assert STORIES[name]() == raw
    report = verify(raw, trust=TRUST)
    assert report.status == 0, [check for check in report.checks if check.outcome == "fail"]


def test_the_vectors_are_what_the_code_says_today() -> None:
    assert (FOLDER / "vectors.json").read_text(encoding="utf-8") == vectors_text()


@BOTH
@pytest.mark.usefixtures("msgpack_of")
def test_every_listed_value_has_its_listed_bytes() -> None:
    for vector in VECTORS["cmp1_accepted"]:
        value, payload = value_of(vector["value"]), bytes.fromhex(vector["hex"])
        assert codec.encode(value) == payload
        assert codec.decode(payload) == value


@BOTH
@pytest.mark.parametrize("vector", VECTORS["cmp1_rejected"], ids=lambda vector: vector["why"])
@pytest.mark.usefixtures("msgpack_of")
def test_bytes_outside_cmp1_are_refused(vector: dict[str, str]) -> None:
    with pytest.raises(PeerFault):
        codec.decode(bytes.fromhex(vector["hex"]))


def test_the_envelope_vector_is_sealed_and_opened() -> None:
    key = SigningKey.from_seed(bytes.fromhex(ENVELOPE["seed"]))
    payload, envelope = bytes.fromhex(ENVELOPE["payload"]), bytes.fromhex(ENVELOPE["envelope"])
    assert key.public.hex() == ENVELOPE["public_key"]
    assert peer_text(key.peer) == ENVELOPE["peer"]
    assert seal(key, ENVELOPE["kind"], payload) == envelope
    record = open_record(envelope, kind=ENVELOPE["kind"])
    assert cid_text(record.id) == ENVELOPE["id"]
    assert record.payload == codec.decode(payload)


@pytest.mark.parametrize("vector", ENVELOPE["rejected"], ids=lambda vector: vector["why"])
def test_another_spelling_of_an_envelope_is_refused(vector: dict[str, str]) -> None:
    with pytest.raises(PeerFault):
        open_envelope(bytes.fromhex(vector["hex"]))


def test_listed_tensors_have_their_listed_bytes() -> None:
    for vector in VECTORS["tensors1"]["accepted"]:
        tensors = [
            Tensor(name, dtype, tuple(shape), bytes.fromhex(raw)) for name, dtype, shape, raw in vector["tensors"]
        ]
        assert encode_tensors(reversed(tensors)).hex() == vector["hex"]
        assert list(decode_tensors(bytes.fromhex(vector["hex"]))) == tensors


@pytest.mark.parametrize("vector", VECTORS["tensors1"]["rejected"], ids=lambda vector: vector["why"])
def test_bytes_outside_tensors1_are_refused(vector: dict[str, str]) -> None:
    with pytest.raises(PeerFault):
        decode_tensors(bytes.fromhex(vector["hex"]))


def test_ids_and_references_are_as_listed() -> None:
    ids = VECTORS["ids"]
    cid = blob_cid(bytes.fromhex(ids["blob"]))
    assert record_id(bytes.fromhex(ids["payload"])).hex() == ids["record_id"]
    assert cid_bytes(ids["record_id_text"]).hex() == ids["record_id"]
    assert cid.hex() == ids["blob_cid"]
    assert cid_bytes(ids["blob_cid_text"]) == cid
    assert blob_ref(bytes.fromhex(ids["salt"]), cid).hex() == ids["ref"]
    assert cid_text(OPEN_SWARM_ID) == VECTORS["open_swarm"]["id"]
    assert open_record(bytes.fromhex(VECTORS["open_swarm"]["envelope"])).id == OPEN_SWARM_ID
