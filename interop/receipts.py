"""Receipts for a foreign verifier: honest ones, damaged ones and signed lies, each with what `dim verify` says of it.

Usage: python interop/receipts.py FOLDER [MORE.dimr …]. Writes FOLDER/<number>.dimr and FOLDER/expected.json. Rule:
seeded, the same files every time; what is expected is what the Python verifier says, never written by hand.
"""

import hashlib
import json
import os
import random
import struct
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgpack

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "golden"), str(ROOT / "tests" / "unit" / "audit")]

from scene import KEY_OF_PEER, STORIES, Scene, deep_map, floats, integers, records_of, resigned, step
from test_audit_fields import others
from test_audit_lies import LIES

from dimnode.audit.redact import redact
from dimnode.audit.verifier import verify
from dimnode.consensus.recompute import Vote, encode_tally_blob, sum_counts, tally
from dimnode.consensus.tensors import weighted_average
from dimnode.errors import PeerFault
from dimnode.records.envelope import seal
from dimnode.records.receipt import parse_receipt
from dimnode.records.tensors import Tensor, encode_tensors

Named = Iterator[tuple[str, bytes]]
Payload = dict[str, Any]
PREFIX = bytes.fromhex("0181041220")
SPOILT = ("plain", "lone_refusal")
SITES = ("alba", "brio", "cara")
MORE = int(os.environ.get("DIM_INTEROP_MORE", "1"))
"""How many times as many random cases; 10 takes a quarter of an hour."""
FLIPS_PER_STORY = 6 * MORE
FIELDS_PER_STORY = 25 * MORE
COMPARISONS = 20 * MORE
SUMS = 24 * MORE
VOTES = 16 * MORE


def main(folder: Path, more: list[Path]) -> None:
    """Write the files and the expectations."""
    folder.mkdir(parents=True, exist_ok=True)
    expected = []
    for number, (label, raw) in enumerate([*corpus(), *((path.name, path.read_bytes()) for path in more)]):
        (folder / f"{number}.dimr").write_bytes(raw)
        report = verify(raw)
        checks = sorted({f"{check.outcome} {check.code} {check.subject}" for check in report.checks})
        expected.append({"label": label, "status": report.status, "checks": checks})
    (folder / "expected.json").write_text(json.dumps(expected), encoding="utf-8")
    refuted = sum(entry["status"] == 1 for entry in expected)
    print(f"{len(expected)} receipts, {refuted} of them refuted by the Python verifier")


def corpus() -> Named:
    """Everything that a verifier has to tell apart."""
    dice = random.Random("receipts for a foreign verifier")
    for name, story in STORIES.items():
        raw = story()
        yield name, raw
        yield f"{name}, redacted", redact(raw)
        yield from damaged(name, raw, dice)
        yield from surgery(name, raw)
        if name in SPOILT or MORE > 1:
            yield from malformed(name, raw)
        yield from changed_fields(name, raw, dice)
    for lie, (make, _) in LIES.items():
        yield lie, make()
    yield from compared(dice)
    yield from combined(dice)
    yield from voted(dice)


# ---- bytes


def mended(raw: bytes) -> bytes:
    """The file with a checksum that fits."""
    return raw[:-32] + hashlib.sha256(raw[:-32]).digest()


def damaged(name: str, raw: bytes, dice: random.Random) -> Named:
    """Bits turned over and ends cut off, with and without mending the checksum."""
    for _ in range(FLIPS_PER_STORY):
        place, bit = dice.randrange(len(raw)), 1 << dice.randrange(8)
        flipped = raw[:place] + bytes([raw[place] ^ bit]) + raw[place + 1 :]
        yield f"{name}, bit {bit} of byte {place}", flipped
        yield f"{name}, bit {bit} of byte {place}, mended", mended(flipped)
        cut = dice.randrange(len(raw))
        yield f"{name}, cut at {cut}", raw[:cut]
        yield f"{name}, cut at {cut}, mended", mended(raw[:cut])
    yield f"{name}, a byte after the end", raw + b"\0"


def sections_of(raw: bytes) -> list[tuple[int, bytes]]:
    """Type and content of each section of a sound file."""
    found, place = [], 43
    while raw[place]:
        size = int.from_bytes(raw[place + 1 : place + 5], "big")
        found.append((raw[place], raw[place + 5 : place + 5 + size]))
        place += 5 + size
    return found


def file_of(root: bytes, sections: list[tuple[int, bytes]]) -> bytes:
    """A file with these sections, sound or not."""
    body = b"".join(bytes([kind]) + len(content).to_bytes(4, "big") + content for kind, content in sections)
    raw = b"DIMR1\n" + root + body + b"\0"
    return raw + hashlib.sha256(raw).digest()


def surgery(name: str, raw: bytes) -> Named:
    """Sections left out, doubled, exchanged, of unknown types, with odd contents."""
    root, sections = raw[6:43], sections_of(raw)
    yield f"{name}, rebuilt", file_of(root, sections)
    for place in range(len(sections)):
        kind, content = sections[place]
        before, after = sections[:place], sections[place + 1 :]
        yield f"{name}, without section {place}", file_of(root, before + after)
        yield f"{name}, section {place} twice", file_of(root, [*before, sections[place], sections[place], *after])
        yield f"{name}, section {place} longer", file_of(root, [*before, (kind, content + b"\0"), *after])
        yield f"{name}, section {place} empty", file_of(root, [*before, (kind, b""), *after])
        if place:
            yield f"{name}, section {place} moved", file_of(root, [*before[:-1], sections[place], before[-1], *after])
    for kind, content in ((3, b"nobody asked"), (4, b"proof"), (9, b""), (2, bytes(100)), (1, b""), (1, bytes(70_000))):
        yield f"{name}, one more section {kind}", file_of(root, [*sections, (kind, content)])
    yield f"{name}, root of another kind", file_of(b"\1\x55" + root[2:], sections)
    yield f"{name}, unknown root", file_of(root[:5] + bytes(32), sections)


# ---- payloads


def packed(payload: Payload) -> bytes:
    """cmp/1 without any check."""

    def ordered(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: ordered(value[key]) for key in sorted(value, key=str)}
        return [ordered(entry) for entry in value] if isinstance(value, list) else value

    raw: bytes = msgpack.packb(ordered(payload))
    return raw


def loose(raw: bytes, patch: Callable[[str, Payload], bytes | None]) -> bytes:
    """The receipt with payloads of any form, signed again; `patch` gives other payload bytes, or None for the same."""
    receipt = parse_receipt(raw)
    renamed: dict[bytes, bytes] = {}
    envelopes: dict[bytes, bytes] = {}

    def again(identity: bytes) -> bytes:
        if identity not in receipt.records:
            return identity
        if identity not in renamed:
            record = receipt.records[identity]
            payload = deep_map(record.payload, lambda value: again(value) if type(value) is bytes else value)
            content = patch(record.kind, payload) or packed(payload)
            renamed[identity] = PREFIX + hashlib.sha256(content).digest()
            envelopes[renamed[identity]] = seal(KEY_OF_PEER[record.by], record.kind, content)
        return renamed[identity]

    root = again(bytes(receipt.root))
    records = [(1, envelopes[renamed[bytes(identity)]]) for identity in receipt.records]
    rest = [section for section in sections_of(raw) if section[0] != 1]
    return file_of(root, records + rest)


ODD: tuple[Any, ...] = (
    None,
    -1,
    0,
    1.5,
    1.0,
    2**63,
    2**64 - 1,
    "",
    "x" * 600,
    b"",
    bytes(37),
    [],
    [None],
    {},
    {"a": 1},
    True,
)


def malformed(name: str, raw: bytes) -> Named:
    """Payloads outside of their schema or encoding, properly signed."""
    for kind in sorted({record.kind for record in parse_receipt(raw).records.values()}):
        payload = records_of(raw, kind)[0].payload
        for key in payload:
            odd = (3, 4) if key in ("v", "kind", "net", "by") else range(len(ODD))
            for choice in list(odd)[hash_of(name, kind, key) % 3 :: 3]:
                yield (
                    f"{name}, {kind}.{key} is {ODD[choice]!r:.20}",
                    loose(raw, only(kind, lambda said, key=key, choice=choice: packed({**said, key: ODD[choice]}))),
                )
            yield (
                f"{name}, {kind} without {key}",
                loose(raw, only(kind, lambda said, key=key: packed({k: v for k, v in said.items() if k != key}))),
            )
        for label, spoil in SPOILED.items():
            yield f"{name}, {kind}: {label}", loose(raw, only(kind, spoil))


def hash_of(*words: str) -> int:
    """The same number in every run."""
    return hashlib.sha256(" ".join(words).encode()).digest()[0]


def only(kind: str, change: Callable[[Payload], bytes]) -> Callable[[str, Payload], bytes | None]:
    """A patch of the records of one kind."""
    return lambda found, said: change(said) if found == kind else None


def _nested(depth: int) -> Any:
    return [_nested(depth - 1)] if depth else 0


def _last_key(said: Payload, tail: bytes) -> bytes:
    """The payload with `tail` after its last key and value, and one entry more in its header."""
    content = packed(said)
    return _map_header(len(said) + 1) + content[len(_map_header(len(said))) :] + tail


def _map_header(size: int) -> bytes:
    return bytes([0x80 | size]) if size < 16 else b"\xde" + size.to_bytes(2, "big")


SPOILED: Mapping[str, Callable[[Payload], bytes]] = {
    "a key of its own": lambda said: packed({**said, "zz": 1}),
    "an x_ key": lambda said: packed({**said, "x_new": {"a": [1, None]}}),
    "an x_ key with a float": lambda said: packed({**said, "x_new": 0.5}),
    "an x_ key with a large float": lambda said: packed({**said, "x_new": 1e300}),
    "an x_ key with an integer of 64 bits": lambda said: packed({**said, "x_new": 2**64 - 1}),
    "an x_ key with the smallest integer": lambda said: packed({**said, "x_new": -(2**63)}),
    "an upper case key": lambda said: packed({**said, "X_": 1}),
    "a key that is no text": lambda said: _last_key(said, b"\xc4\x02zz\x01"),
    "a key that ends a line": lambda said: packed({**said, "x_\n": 1}),
    "a key twice": lambda said: _last_key(said, b"\xa1v\x01"),
    "keys out of order": lambda said: bytes(msgpack.packb(dict(reversed(said.items())))),
    "a key of objects": lambda said: packed({**said, "__proto__": 1}),
    "a long key": lambda said: packed({**said, "x_" + "a" * 23: 1}),
    "a long map header": lambda said: (
        b"\xde" + len(said).to_bytes(2, "big") + packed(said)[len(_map_header(len(said))) :]
    ),
    "an integer of 64 bits that is small": lambda said: _last_key(said, b"\xa3x_z\xcf" + (5).to_bytes(8, "big")),
    "a negative in the form of a positive": lambda said: _last_key(said, b"\xa3x_z\xd3" + (5).to_bytes(8, "big")),
    "a text that is no UTF-8": lambda said: _last_key(said, b"\xa3x_z\xa2\xc3\x28"),
    "a text with a surrogate": lambda said: _last_key(said, b"\xa3x_z\xa3\xed\xa0\x80"),
    "a text with a byte order mark": lambda said: _last_key(said, b"\xa3x_z\xa3\xef\xbb\xbf"),
    "an extension": lambda said: _last_key(said, b"\xa3x_z\xd4\x05\x00"),
    "a timestamp": lambda said: _last_key(said, b"\xa3x_z\xd6\xff\x00\x00\x00\x00"),
    "a reserved byte": lambda said: _last_key(said, b"\xa3x_z\xc1"),
    "a byte more": lambda said: packed(said) + b"\0",
    "a byte less": lambda said: packed(said)[:-1],
    "a list": lambda said: b"\x90",
    "nothing": lambda said: b"\xc0",
    "eight levels": lambda said: packed({**said, "x_new": _nested(7)}),
    "nine levels": lambda said: packed({**said, "x_new": _nested(8)}),
    "twenty levels": lambda said: packed({**said, "x_new": _nested(20)}),
    "512 entries": lambda said: packed({**said, "x_new": [0] * 512}),
    "513 entries": lambda said: packed({**said, "x_new": [0] * 513}),
    "5,000 entries": lambda said: packed({**said, "x_new": [[0] * 500] * 10}),
    "60,000 bytes": lambda said: packed({**said, "x_new": bytes(60_000)}),
    "70,000 bytes": lambda said: packed({**said, "x_new": bytes(65_536 - len(packed(said)))}),
}


def changed_fields(name: str, raw: bytes, dice: random.Random) -> Named:
    """One field of one record changed within its schema, and everything signed again."""
    records = list(parse_receipt(raw).records.values())
    kinds = {record.kind: bytes(record.id) for record in records}
    ids = [kinds[kind] for kind in ("spec", "lease", "answer") if kind in kinds]
    changes = [
        (record, key, other)
        for record in records
        for key, value in record.payload.items()
        if key not in ("v", "kind")
        for other in others(record.kind, key, value, ids)
        if other != value
    ]
    for record, key, other in dice.sample(changes, min(len(changes), FIELDS_PER_STORY)):

        def patch(kind: str, said: Payload, record: Any = record, key: str = key, other: Any = other) -> Payload:
            same = kind == record.kind and said["at_ms"] == record.payload["at_ms"]
            return said | {key: other} if same else said

        try:
            yield f"{name}, {record.kind}.{key} changed to {other!r:.40}", resigned(raw, patch)
        except (AssertionError, RecursionError):
            continue  # outside the schema, or a record that names itself


# ---- numbers

DTYPES = {
    "float64": "d",
    "float32": "f",
    "float16": "e",
    "int64": "q",
    "int32": "i",
    "int16": "h",
    "int8": "b",
    "uint8": "B",
    "bool": "B",
}


def numbers(dice: random.Random, name: str, dtype: str, count: int) -> Tensor:
    """Small numbers, in floats at times a NaN or an infinity, zeros of both signs and ties."""
    code = DTYPES[dtype]
    if code in "dfe":
        row = [dice.choice([dice.uniform(-3, 3), dice.choice([0.0, -0.0, 1.0, 0.5, 1e-7])]) for _ in range(count)]
        if dice.random() < 0.1:
            row[dice.randrange(count)] = dice.choice([float("nan"), float("inf"), -float("inf")])
    else:
        row = [dice.randrange(2 if dtype == "bool" else 100) for _ in range(count)]
    return Tensor(name, dtype, (count // 2, 2), struct.pack(f"<{count}{code}", *row))


def nudged(dice: random.Random, tensor: Tensor) -> Tensor:
    """Nearly the same tensor."""
    code, count = DTYPES[tensor.dtype], len(tensor.raw) // struct.calcsize(DTYPES[tensor.dtype])
    row = list(struct.unpack(f"<{count}{code}", tensor.raw))
    place = dice.randrange(count)
    if code in "dfe":
        row[place] *= 1 + dice.choice([0, 1e-6, 1e-3, 0.5, -2])
    elif dice.random() < 0.2:
        row[place] = 1 - row[place] if tensor.dtype == "bool" else (row[place] + 1) % 100
    return Tensor(tensor.name, tensor.dtype, tensor.shape, struct.pack(f"<{count}{code}", *row))


def compared(dice: random.Random) -> Named:
    """Replicas under every comparator; the owner claims that the first two agree, or all, or nobody."""
    comparators: list[Payload] = [
        {"kind": "exact"},
        *({"kind": "argmax_atol", "tensor": "p", "atol_micro": number} for number in (1, 1000, 10**6)),
        *({"kind": "rtol", "rtol_micro": number} for number in (1, 1000, 10**6)),
        *({"kind": "cosine", "min_ppm": number} for number in (999_999, 990_000, 0)),
        {"kind": "cosine"},
        {"kind": "argmax_atol", "tensor": "absent", "atol_micro": 1000},
        {"kind": "argmax_atol", "atol_micro": 1000},
        {"kind": "argmax_atol", "tensor": "p"},
    ]
    for number in range(COMPARISONS):
        comparator = dice.choice(comparators)
        scene = Scene()
        model = scene.model("triage")
        quorum = {"quorum": {"n": 3, "k": 2}, "comparator": comparator}
        tasks = [{"op": "infer", "model": model.id}]
        scene.ask("chained", tasks, [scene.tensors(floats("x", 1.0))], "quorum", **quorum)
        first = [numbers(dice, "p", dice.choice(["float64", "float32", "float16"]), 4)]
        if dice.random() < 0.4:
            first.append(numbers(dice, "z", dice.choice(list(DTYPES)), 2))
        outputs = [first, [nudged(dice, tensor) for tensor in first], [nudged(dice, tensor) for tensor in first]]
        answers = []
        names = dice.choice([("alba", "cara", "ezra"), ("alba", "cara", "cara")])
        for task, who in enumerate(names):
            lease = scene.lease(task, who, scene.spec.payload["inputs"])
            answers.append(scene.answer(lease, [scene.tensors(*outputs[task])], model=model.id))
        for agreeing in (2, 3, 0):
            chosen = sorted(answers[:agreeing], key=lambda answer: answer.id)
            label = f"replicas {number}, {comparator}, {agreeing} agree"
            branch = branched(scene)
            if chosen:
                entry = step(0, chosen, answers[agreeing:], accepted=chosen[0].id)
                yield label, branch.conclude(answers, [entry], chosen[0].payload["outputs"])
            else:
                yield label, branch.conclude(answers, [step(0, [], answers)], [], status="split")


def branched(scene: Scene) -> Scene:
    """The same job once more, to be concluded in another way."""
    other = Scene()
    other.records, other.openings, other.blobs = list(scene.records), list(scene.openings), list(scene.blobs)
    other.spec = scene.spec
    return other


def combined(dice: random.Random) -> Named:
    """Sums and averages over every dtype: what the product computes, what it refuses to compute, and a little off."""
    for number in range(SUMS):
        method = dice.choice(["sum_counts", "federated_average", "weighted_average"])
        dtype = "int64" if method == "sum_counts" and dice.random() < 0.8 else dice.choice(list(DTYPES))
        scene = Scene()
        model = scene.model("update")
        tasks = [{"op": "evaluate", "model": model.id} for _ in SITES]
        permille = [dice.randrange(1001) for _ in SITES]
        rule = {"rule": {"weights_permille": permille}} if method == "weighted_average" else {}
        scene.ask("collaborative", tasks, [], method, **rule)
        weights = permille if rule else [dice.randrange(1000) for _ in SITES]
        blobs = [encode_tensors([numbers(dice, "w", dtype, 4)]) for _ in SITES]
        answers = [
            scene.answer(scene.lease(task, who, []), [scene.blob(blobs[task])], model=model.id, weight=weights[task])
            for task, who in enumerate(SITES)
        ]
        try:
            if method == "sum_counts":
                output = sum_counts([(bytes(a.by), blob) for a, blob in zip(answers, blobs, strict=True)])
            else:
                parts = zip((bytes(a.by) for a in answers), weights, blobs, strict=True)
                output = weighted_average(list(parts))
        except PeerFault:
            output = blobs[0]
        wrong = output[:-1] + bytes([output[-1] ^ 1])
        for label, blob in (("right", output), ("a little off", wrong)):
            branch = branched(scene)
            raw = branch.conclude(answers, [step(0, answers)], [branch.blob(blob)])
            yield f"{method} {number} of {dtype} {weights}, {label}", raw


def voted(dice: random.Random) -> Named:
    """Votes with ties, weights and labels that are none."""
    for number in range(VOTES):
        weighted = dice.random() < 0.5
        scene = Scene()
        models = [scene.model(name) for name in ("forest", "boosting", "logistic")]
        permille = [dice.choice([0, 1, 500, 1000]) for _ in models]
        rule = {"rule": {"weights_permille": permille}} if weighted else {}
        tasks = [{"op": "infer", "model": model.id} for model in models]
        method = "weighted_vote" if weighted else "majority_vote"
        scene.ask("comparative", tasks, [scene.tensors(floats("x", 1.0))], method, **rule)
        labels = [
            [dice.randrange(3) if dice.random() < 0.97 else dice.choice([-1, 2000]) for _ in range(4)] for _ in models
        ]
        if dice.random() < 0.1:
            labels[0] = labels[0][:3]
        answers = []
        for task, who in enumerate(SITES):
            lease = scene.lease(task, who, scene.spec.payload["inputs"])
            output = scene.tensors(integers("label", *labels[task]))
            answers.append(scene.answer(lease, [output], model=models[task].id))
        votes = [Vote(a.by, tuple(row), bytes(a.id)) for a, row in zip(answers, labels, strict=True)]
        try:
            by_answer = {bytes(a.id): weight for a, weight in zip(answers, permille, strict=True)}
            found = tally(votes, by_answer if weighted else None)
            output, dissenting = encode_tally_blob(found), {answer for row in found.dissent for answer in row}
        except PeerFault:
            output, dissenting = encode_tensors([integers("label", 0)]), set()
        dissent = [answer for answer in answers if bytes(answer.id) in dissenting]
        for label, some in (("right", dissent), ("dissent hidden", [])):
            branch = branched(scene)
            supporters = [answer for answer in answers if answer not in some]
            raw = branch.conclude(answers, [step(0, supporters, some)], [branch.blob(output)])
            yield f"{method} {number} {labels} {permille}, {label}", raw


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
