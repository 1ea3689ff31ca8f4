"""Records about models keep their bytes, and what is no such record is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from model_vectors import FULL, models_text

from dimnode.errors import PeerFault
from dimnode.records.ids import cid_text
from dimnode.records.kinds import open_record
from dimnode.records.manifest import Manifest

TEXT = (Path(__file__).parent / "models.json").read_text(encoding="utf-8")
VECTORS: dict[str, Any] = json.loads(TEXT)


def test_the_model_vectors_are_what_the_code_says_today() -> None:
    assert models_text() == TEXT


def test_each_listed_record_is_opened_in_its_version() -> None:
    for row in VECTORS["accepted"]:
        record = open_record(bytes.fromhex(row["envelope"]), kind=row["kind"])
        assert (record.kind, record.version, cid_text(record.id)) == (row["kind"], row["version"], row["id"])


@pytest.mark.parametrize("row", VECTORS["refused"], ids=lambda row: row["why"])
def test_a_record_outside_its_schema_is_refused(row: dict[str, str]) -> None:
    with pytest.raises(PeerFault, match="fields"):
        open_record(bytes.fromhex(row["envelope"]))


def test_a_later_version_of_a_known_kind_is_kept_and_never_taken_for_it() -> None:
    record = open_record(bytes.fromhex(VECTORS["later"]["envelope"]))
    assert (record.kind, record.version, cid_text(record.id)) == ("manifest/3", 3, VECTORS["later"]["id"])
    assert record.payload["anything"] == [1, {"goes": None}]
    with pytest.raises(PeerFault, match="expected manifest, got manifest/3"):
        Manifest.of(record)
    with pytest.raises(PeerFault, match="expected manifest, got manifest/3"):
        open_record(record.envelope, kind="manifest")
    with pytest.raises(PeerFault, match="signature"):
        open_record(record.envelope[:-1] + bytes([record.envelope[-1] ^ 1]))


def test_both_versions_are_read_into_the_same_shape() -> None:
    rows = [row for row in VECTORS["accepted"] if row["kind"] == "manifest"]
    first, second, full, text = (Manifest.of(open_record(bytes.fromhex(row["envelope"]))) for row in rows)
    assert [file.role for file in first.files] == ["model"]
    same = ("title", "format", "profile", "files", "inputs", "outputs", "labels", "licence", "origin", "access")
    assert all(getattr(first, field) == getattr(second, field) for field in same)
    assert (first.previous, first.price, first.text, first.memory_bytes) == (None, None, None, 0)
    assert full.main.path == "weights/part-1.safetensors"
    assert full.size_bytes == 3_000_024
    assert full.price is not None
    assert (full.price.micro, full.price.unit) == (250, "row")
    assert full.previous == FULL["previous"]
    assert full.lineage[0] == ("fine-tuned", FULL["lineage"][0][1])
    assert full.pre == ({"kind": "rows", "name": "x", "op": "input"},)
    assert text.text is not None
    assert text.text.max_tokens == 256
