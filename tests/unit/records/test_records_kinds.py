"""Ids, envelopes and the schema of each kind."""

import base64
import hashlib
from typing import Any

import pytest

from dimnode.errors import PeerFault
from dimnode.records import kinds
from dimnode.records.envelope import SigningKey, open_envelope, payload_of, seal
from dimnode.records.ids import cid_bytes, cid_text, key_of_peer, peer_bytes, peer_text, record_id, short
from dimnode.records.kinds import KINDS, OPEN_SWARM_ENVELOPE, OPEN_SWARM_ID, compose, open_record

KEY = SigningKey.from_seed(hashlib.sha256(b"unit test").digest())
RECORD = bytes.fromhex("0181041220") + bytes(32)
BLOB = bytes.fromhex("01551220") + bytes(32)
TREE = bytes.fromhex("01701220") + bytes(32)
COMMON = {"net": RECORD, "by": KEY.peer, "at_ms": 1}
RUNTIME = {"engine": "onnx", "version": "1", "os": "linux", "arch": "arm64", "accelerator": "cpu"}
SMALLEST: dict[str, dict[str, Any]] = {
    "swarm": {"name": "s", "admins": [], "threshold": 0},
    "manifest": {
        "name": "m",
        "version": "1",
        "format": "onnx",
        "files": [["model.onnx", BLOB, 1]],
        "inputs": [["x", "float32", [-1, 4]]],
        "outputs": [],
        "labels": [],
        "licence": "",
        "origin": "trained",
        "access": "public",
    },
    "advert": {
        "models": [],
        "cabinets": [{"name": "c", "columns": [], "label": "", "operations": []}],
        "slots": 1,
        "runtimes": [],
        "sandbox": "",
        "agent": "",
        "addresses": [],
    },
    "heartbeat": {"advert": RECORD, "free_slots": 0, "load_permille": 0},
    "event": {"jobs": [[RECORD, "done"]], "verdicts": []},
    "spec": {
        "pattern": "chained",
        "tasks": [{"op": "infer"}],
        "inputs": [],
        "tier": "signed",
        "rule": {"method": "first"},
        "deadline_ms": 1,
        "priority": "low",
        "visibility": "swarm",
        "nonce": bytes(16),
    },
    "lease": {"job": RECORD, "task": 0, "epoch": 1, "executor": KEY.peer, "ttl_ms": 1, "inputs": []},
    "policy": {"cabinet": "c", "operations": [], "min_cohort": 1, "output_classes": [], "queries_per_day": 0},
    "ruling": {
        "job": RECORD,
        "task": 0,
        "epoch": 1,
        "cabinet": "c",
        "allowed": True,
        "code": "",
        "reason": "",
        "parents": [],
    },
    "answer": {
        "job": RECORD,
        "task": 0,
        "epoch": 1,
        "inputs": [],
        "outputs": [bytes(32)],
        "runtime": RUNTIME,
        "timing": {"run_us": 0, "queue_us": 0},
        "usage": {"cpu_us": 0, "rss_bytes": 0},
        "sandbox": "",
        "status": "ok",
        "parents": [],
    },
    "verdict": {
        "job": RECORD,
        "status": "ok",
        "rule": "first",
        "steps": [{"task": 0, "supporters": [], "dissent": []}],
        "outputs": [],
        "checks": [],
        "unchecked": [],
        "parents": [],
    },
    "grant": {"peer": KEY.peer, "models": [RECORD], "operations": ["infer"]},
    "withdraw": {"subject": RECORD, "reason": ""},
    "invite": {"key": KEY.peer, "expires_ms": 1, "uses": 1},
    "member": {"peer": KEY.peer, "parents": []},
    "removal": {"epoch": 1},
}


def sealed(kind: str, body: dict[str, Any]) -> bytes:
    """An envelope around any body, also one that the schema forbids."""
    from dimnode.records.codec import encode

    common = {key: value for key, value in COMMON.items() if kind != "swarm" or key != "net"}
    return seal(KEY, kind, encode({"v": 1, "kind": kind, **common, **body}))


def test_every_kind_of_this_version_has_an_example_here() -> None:
    assert SMALLEST.keys() == KINDS


@pytest.mark.parametrize("kind", SMALLEST)
def test_a_smallest_record_of_each_kind_is_opened(kind: str) -> None:
    envelope = sealed(kind, SMALLEST[kind])
    record = open_record(envelope, kind=kind)
    assert record.id == record_id(payload_of(envelope))
    assert record.by == KEY.peer


@pytest.mark.parametrize("kind", SMALLEST)
def test_a_field_too_few_or_too_many_is_refused(kind: str) -> None:
    body = SMALLEST[kind]
    for key in body if kind != "event" else ():  # both fields of an event may be left out
        with pytest.raises(PeerFault, match="fields"):
            open_record(sealed(kind, {name: value for name, value in body.items() if name != key}))
    with pytest.raises(PeerFault, match="fields"):
        open_record(sealed(kind, body | {"surprise": 1}))


@pytest.mark.parametrize("kind", SMALLEST)
def test_a_field_of_another_type_is_refused(kind: str) -> None:
    for key in SMALLEST[kind]:
        with pytest.raises(PeerFault, match="fields"):
            open_record(sealed(kind, SMALLEST[kind] | {key: None}))


@pytest.mark.parametrize("kind", SMALLEST)
def test_an_experimental_field_is_kept(kind: str) -> None:
    record = open_record(sealed(kind, SMALLEST[kind] | {"x_colour": "green"}))
    assert record.payload["x_colour"] == "green"


@pytest.mark.parametrize("wrong", [True, -1, 2**63, "1", b"1"], ids=repr)
def test_an_integer_field_takes_only_integers_in_range(wrong: object) -> None:
    with pytest.raises(PeerFault):
        open_record(sealed("lease", SMALLEST["lease"] | {"ttl_ms": wrong}))


def test_an_unknown_kind_is_kept_but_its_signature_is_checked() -> None:
    envelope = sealed("opinion", {"anything": [1, {"goes": None}]})
    assert open_record(envelope).payload["anything"] == [1, {"goes": None}]
    with pytest.raises(PeerFault, match="signature"):
        open_record(envelope[:-1] + bytes([envelope[-1] ^ 1]))


def test_a_record_of_another_kind_than_expected_is_refused() -> None:
    with pytest.raises(PeerFault, match="expected lease, got event"):
        open_record(sealed("event", SMALLEST["event"]), kind="lease")


def test_a_body_of_ours_outside_the_schema_is_our_bug() -> None:
    with pytest.raises(AssertionError):
        compose("lease", COMMON, {"job": RECORD})


def test_the_open_swarm_is_a_constant_record() -> None:
    record = open_record(OPEN_SWARM_ENVELOPE, kind="swarm")
    assert record.id == OPEN_SWARM_ID
    assert record.payload["name"] == "open"


def test_signing_domains_cannot_be_taken_for_another_protocol() -> None:
    """Noise and pubsub prefixes begin with a letter; ours begin with the domain's length, which never is one."""
    from dimnode.records.envelope import _prefix

    for kind in (*KINDS, "a", "abcdefghijklmnop"):
        for version in (1, 9):
            signed, _ = _prefix(kind, version)
            assert signed[0] == len(f"dim-sig-{kind}/{version}") < 32


def test_a_signature_may_be_skipped_only_on_request() -> None:
    envelope = sealed("event", SMALLEST["event"])
    broken = envelope[:-1] + bytes([envelope[-1] ^ 1])
    assert open_envelope(broken, check_signature=False).kind == "event"
    with pytest.raises(PeerFault):
        open_envelope(broken)


def test_a_secret_key_does_not_print_itself() -> None:
    assert KEY.secret.hex() not in repr(KEY)
    assert repr(KEY.secret) not in repr(KEY)


def test_the_text_of_an_id_is_base32_whatever_its_length() -> None:
    for size in range(40):
        raw = hashlib.sha256(bytes([size])).digest() * 2
        expected = base64.b32encode(raw[:size]).decode().lower().rstrip("=")
        assert cid_text(raw[:size]) == f"b{expected}"


def test_texts_of_ids_are_read_back() -> None:
    assert peer_bytes(peer_text(KEY.peer)) == KEY.peer
    assert key_of_peer(KEY.peer) == KEY.public
    assert cid_bytes(cid_text(RECORD)) == RECORD
    assert cid_bytes(cid_text(BLOB)) == BLOB
    assert cid_bytes(cid_text(TREE)) == TREE
    assert short(KEY.peer) == peer_text(KEY.peer)[-8:]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "0OIl",
        "12D3KooW",
        peer_text(KEY.peer) + "1",
        "1" + peer_text(KEY.peer),
        " " + peer_text(KEY.peer),
        "Qm" + "1" * 44,
        "é" * 52,
    ],
)
def test_a_text_that_names_no_peer_is_refused(text: str) -> None:
    with pytest.raises(PeerFault):
        peer_bytes(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "b",
        "bé",
        cid_text(RECORD).upper(),
        cid_text(RECORD)[:-1],
        cid_text(RECORD) + "a",
        cid_text(RECORD) + "=",
        "z" + cid_text(RECORD)[1:],
        cid_text(RECORD)[:-1] + "b",
        cid_text(bytes.fromhex("01711220") + bytes(32)),
        cid_text(bytes.fromhex("01701220") + bytes(31)),
        cid_text(bytes.fromhex("0181011220") + bytes(32)),
    ],
)
def test_a_text_that_is_no_cid_of_ours_is_refused(text: str) -> None:
    with pytest.raises(PeerFault):
        cid_bytes(text)


def test_words_of_the_schema_are_the_glossarys() -> None:
    assert kinds.PATTERNS == ("chained", "comparative", "collaborative")
