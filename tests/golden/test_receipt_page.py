"""docs/receipt.md is true: its example, its codes, and that a reader can be written from it alone."""

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from dimnode.audit.report import CODES
from dimnode.records.ids import cid_text
from dimnode.records.kinds import KINDS

FOLDER = Path(__file__).parent
DOCS = FOLDER.parents[1] / "docs"
PAGE = (DOCS / "receipt.md").read_text(encoding="utf-8")


def test_the_worked_example_stands_in_its_golden_file() -> None:
    examples = re.findall(r"```hex (\S+) (\d+)\n(.*?)```", PAGE, re.DOTALL)
    assert examples
    for name, offset, text in examples:
        wanted = bytes.fromhex("".join(line.partition("#")[0] for line in text.splitlines()))
        assert (FOLDER / name).read_bytes()[int(offset) :].startswith(wanted)
        identity, value = read_envelope(wanted[5:])
        assert value["kind"] == "lease"
        assert cid_text(identity) in PAGE


def test_every_code_is_explained() -> None:
    errors = (DOCS / "errors-verify.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(R-[A-Z]+)`", PAGE, re.MULTILINE)) == CODES.keys()
    assert set(re.findall(r"^\| `(R-[A-Z]+)`", errors, re.MULTILINE)) == CODES.keys()


def test_every_kind_is_described() -> None:
    assert set(re.findall(r"\*\*([a-z]+)\*\* (?:\(|`|\n)", PAGE)) >= KINDS


def read_value(raw: bytes, place: int) -> tuple[Any, int]:
    """One cmp/1 value, read with nothing but the msgpack specification."""
    first = raw[place]
    place += 1
    if first < 0x80:
        return first, place
    if first >= 0xE0:
        return first - 256, place
    if first in (0xC0, 0xC2, 0xC3):
        return {0xC0: None, 0xC2: False, 0xC3: True}[first], place
    if 0xCC <= first <= 0xD3:
        size = 1 << (first - 0xCC) % 4
        return int.from_bytes(raw[place : place + size], "big", signed=first >= 0xD0), place + size
    if first < 0xC0:
        kind, count = ("map", first & 15) if first < 0x90 else ("list", first & 15)
        if first >= 0xA0:
            kind, count = "text", first & 31
    else:
        kind, size = {
            **{0xC4 + n: ("bytes", 1 << n) for n in range(3)},
            **{0xD9 + n: ("text", 1 << n) for n in range(3)},
            **{0xDC + n: ("list", 2 << n) for n in range(2)},
            **{0xDE + n: ("map", 2 << n) for n in range(2)},
        }[first]
        count = int.from_bytes(raw[place : place + size], "big")
        place += size
    if kind in ("bytes", "text"):
        content = raw[place : place + count]
        return content if kind == "bytes" else content.decode(), place + count
    found = []
    for _ in range(count * (2 if kind == "map" else 1)):
        value, place = read_value(raw, place)
        found.append(value)
    return found if kind == "list" else dict(zip(found[::2], found[1::2], strict=True)), place


def read_envelope(raw: bytes) -> tuple[bytes, dict[str, Any]]:
    """Record id and payload; the signature is checked with another library than dimnode's."""
    fields, place = {}, 0
    while place < len(raw):
        tag, size, shift = raw[place], 0, 0
        while True:
            place += 1
            size |= (raw[place] & 127) << shift
            shift += 7
            if raw[place] < 128:
                break
        fields[tag] = raw[place + 1 : place + 1 + size]
        place += 1 + size
    assert list(fields) == [0x0A, 0x12, 0x1A, 0x2A]
    key, kind, payload = fields[0x0A][4:], fields[0x12][3:-2].decode(), fields[0x1A]
    domain = f"dim-sig-{kind}/1".encode()
    length = bytes([len(payload)]) if len(payload) < 128 else bytes([len(payload) & 127 | 128, len(payload) >> 7])
    signed = bytes([len(domain)]) + domain + bytes([len(fields[0x12])]) + fields[0x12] + length + payload
    Ed25519PublicKey.from_public_bytes(key).verify(fields[0x2A], signed)
    value, end = read_value(payload, 0)
    assert end == len(payload)
    assert (value["kind"], value["v"], value["by"]) == (kind, 1, bytes.fromhex("002408011220") + key)
    return bytes.fromhex("0181041220") + hashlib.sha256(payload).digest(), value


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.dimr")), ids=lambda path: path.stem)
def test_a_reader_written_from_the_page_reads_every_golden_file(path: Path) -> None:
    raw = path.read_bytes()
    assert raw[:6] == b"DIMR1\n"
    assert hashlib.sha256(raw[:-32]).digest() == raw[-32:]
    records: dict[bytes, dict[str, Any]] = {}
    opened: dict[bytes, bytes] = {}
    place = 43
    while raw[place]:
        size = int.from_bytes(raw[place + 1 : place + 5], "big")
        content = raw[place + 5 : place + 5 + size]
        match raw[place]:
            case 1:
                identity, value = read_envelope(content)
                records[identity] = value
            case 2:
                assert hashlib.sha256(b"dim-hash-ref/1" + content[32:]).digest() == content[:32]
                opened[content[:32]] = content[64:]
            case 3:
                assert bytes.fromhex("01551220") + hashlib.sha256(content).digest() in opened.values()
        place += 5 + size
    assert place == len(raw) - 33
    assert next(iter(records)) == raw[6:43]
    root = records[raw[6:43]]
    assert all(parent in records for parent in root["parents"])
    assert set(root.get("outputs", [])) <= opened.keys()
