"""verify, receipt show and receipt redact, on the golden receipts."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from fake_node import GOLDEN

from dimnode.audit.report import CODES
from dimnode.records.envelope import SigningKey, open_envelope, seal
from dimnode.records.ids import peer_text
from dimnode.records.kinds import OPEN_SWARM_ID, compose
from dimnode.records.receipt import pack_receipt

sys.path.insert(0, str(GOLDEN))
from scene import PEERS, plain, resigned

RECEIPTS = sorted(path.stem for path in GOLDEN.glob("*.dimr"))


@pytest.fixture
def trust(tmp_path):
    """A list of the golden peers."""
    path = tmp_path / "peers.toml"
    lines = [f'"{name}" = "{peer_text(peer)}"' for name, peer in PEERS.items()]
    path.write_text("\n".join(["[peers]", *lines]))
    return path


@pytest.mark.parametrize(
    # Averages are repeated with NumPy, whose import alone takes a quarter of a second.
    "story",
    [pytest.param(story, marks=pytest.mark.slow) if story == "average" else story for story in RECEIPTS],
)
def test_a_golden_receipt_is_verified_and_drawn(dim, trust, story):
    path = GOLDEN / f"{story}.dimr"
    verified = dim("verify", path)
    assert verified.code == 0
    assert verified.out.rstrip().endswith("verified")
    drawn = dim("receipt", "show", path, "--trust", trust)
    assert drawn.code == 0
    assert drawn.out.startswith("1 ")
    assert "signed by nora" in drawn.out


@pytest.mark.slow
def test_a_receipt_as_deep_as_it_is_long_is_drawn(dim, tmp_path):
    """A stranger's: each answer names the one before it."""
    key, records, before = SigningKey.from_seed(b"o" * 32), [], []
    common = {"net": OPEN_SWARM_ID, "by": key.peer, "at_ms": 1}
    job = compose("swarm", {"by": key.peer, "at_ms": 0}, {"name": "j", "admins": [], "threshold": 0})[0]
    body = {"job": job, "task": 0, "status": "ok", "inputs": [], "outputs": [], "runtime": {}, "sandbox": ""}
    body |= {"timing": {"run_us": 0, "queue_us": 0}, "usage": {"cpu_us": 0, "rss_bytes": 0}}
    for epoch in range(1, 1101):
        identity, payload = compose("answer", common, body | {"epoch": epoch, "parents": before})
        records.append(open_envelope(seal(key, "answer", payload), check_signature=False))
        before = [identity]
    verdict = {"job": job, "status": "ok", "rule": "first", "steps": [], "outputs": [], "checks": [], "unchecked": []}
    root, payload = compose("verdict", common, verdict | {"parents": before})
    records.append(open_envelope(seal(key, "verdict", payload), check_signature=False))
    (tmp_path / "deep.dimr").write_bytes(pack_receipt(root, records, [], []))
    drawn = dim("receipt", "show", tmp_path / "deep.dimr")
    assert drawn.code == 0
    assert "1101 records" in drawn.out


def test_a_comparison_is_drawn_with_its_tally_and_who_dissents(dim, trust):
    said = dim("receipt", "show", GOLDEN / "comparative.dimr", "--trust", trust).out
    assert "votes: 2 of 3 are with the majority on every row; not on every row: brio (boosting)" in said
    assert "tally: 3 rows, 2 unanimous" in said
    assert "row 3: benign 1, malignant 2" in said


def test_a_refusal_is_drawn_with_its_reason(dim):
    said = dim("receipt", "show", GOLDEN / "lone_refusal.dimr").out
    assert "cohort 3 is below the minimum of 10" in said
    assert "redacted" not in said


def test_a_signed_lie_is_drawn_like_any_other_receipt(dim, tmp_path):
    """R-SPEC refuses a tier that lacks its quorum; whoever looks at the tree shall see it all the same."""
    lie = tmp_path / "lie.dimr"
    lie.write_bytes(resigned(plain(), lambda kind, said: said | {"tier": "quorum"} if kind == "spec" else said))
    assert dim("verify", lie).code == 1
    assert "spec" in dim("receipt", "show", lie).out


def test_every_record_stands_in_the_json_tree_once(dim):
    document = json.loads(dim("receipt", "show", GOLDEN / "collaborative.dimr", "--json").out)
    numbers = [row["number"] for row in document["records"]]
    assert numbers == list(range(1, len(numbers) + 1))
    assert document["records"][0]["id"] == document["root"]


def test_what_an_answer_used_and_how_it_was_computed_is_shown(dim):
    assert "(CPU 1.1 ms, 47.7 MiB)" in dim("receipt", "show", GOLDEN / "plain.dimr").out
    document = json.loads(dim("receipt", "show", GOLDEN / "plain.dimr", "--json").out)
    (answer,) = (row for row in document["records"] if row["kind"] == "answer")
    assert set(answer["usage"]) == {"cpu_us", "rss_bytes"}
    assert set(answer["timing"]) == {"run_us", "queue_us"}
    assert {"engine", "version", "accelerator"} <= set(answer["runtime"])
    assert answer["sandbox"] == "seccomp"


def test_a_corrupted_receipt_is_refuted_with_exit_code_1(dim, tmp_path):
    broken = tmp_path / "broken.dimr"
    raw = bytearray((GOLDEN / "plain.dimr").read_bytes())
    raw[len(raw) // 2] ^= 1
    broken.write_bytes(raw)
    said = dim("verify", broken)
    assert said.code == 1
    assert "FAIL" in said.out
    drawn = dim("receipt", "show", broken)
    assert (drawn.code, drawn.out) == (1, "")
    assert drawn.err.startswith("error E-cli-54")


def test_of_several_files_the_worst_counts(dim, tmp_path):
    whole, redacted, junk = GOLDEN / "plain.dimr", tmp_path / "r.dimr", tmp_path / "junk.dimr"
    junk.write_bytes(b"junk")
    assert dim("receipt", "redact", whole, redacted).code == 0
    assert dim("verify", redacted).code == 3
    assert dim("verify", whole, redacted).code == 3
    assert dim("verify", redacted, junk, whole).code == 1


def test_verify_with_json_is_one_document_with_every_check(dim):
    said = dim("verify", "--json", GOLDEN / "plain.dimr", GOLDEN / "chain.dimr")
    document = json.loads(said.out)
    assert document["status"] == 0
    assert [Path(row["file"]).stem for row in document["receipts"]] == ["plain", "chain"]
    assert all(check["code"] in CODES for check in document["receipts"][0]["checks"])


def test_redacting_keeps_signatures_drops_contents_and_never_overwrites(dim, tmp_path):
    out = tmp_path / "small.dimr"
    assert dim("receipt", "redact", GOLDEN / "plain.dimr", out).code == 0
    drawn = dim("receipt", "show", out)
    assert "0 openings, 0 blobs (redacted" in drawn.out
    again = dim("receipt", "redact", GOLDEN / "plain.dimr", out)
    assert again.code == 2
    assert "E-cli-53" in again.err


@pytest.mark.parametrize(
    ("typed", "code"),
    [
        (["--require", "cosign=2"], "E-cli-52"),
        (["--require", "cosign=²"], "E-cli-51"),
        (["--require", "cosign"], "E-cli-51"),
        (["--trust", "nowhere.toml"], "E-verify-02"),
    ],
)
def test_what_verify_cannot_do_is_a_usage_error(dim, typed, code):
    said = dim("verify", GOLDEN / "plain.dimr", *typed)
    assert said.code == 2
    assert said.err.startswith(f"error {code}")


def test_a_file_that_is_not_there_is_a_usage_error(dim):
    assert dim("verify", "nowhere.dimr").code == 2


def test_verifying_needs_no_home_and_leaves_nothing_behind(dim, tmp_path):
    shutil.copy(GOLDEN / "plain.dimr", tmp_path / "p.dimr")
    before = sorted(tmp_path.iterdir())
    assert dim("verify", tmp_path / "p.dimr", "--home", tmp_path / "no-such-home").code == 0
    assert sorted(tmp_path.iterdir()) == before
