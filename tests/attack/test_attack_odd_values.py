"""One odd value in a valid message ends no node, spoils nothing that it keeps, and nothing that it shows.

Rule: each kind of message is given as an honest peer or client would write it; `odd_values` makes it odd. Afterwards
nothing has escaped, no handler failed by a mistake of ours, people are answered, and the next start reads the home.
"""

import json
import logging
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from itertools import count, islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import msgpack
import pytest
import trio

from dimnode.errors import PeerFault, Refused
from dimnode.node.node import Node
from dimnode.node.private_swarm import InviteWish, PrivateSwarm
from dimnode.p2p.conduct import Judgement, Offence
from dimnode.p2p.frames import TaskFrame
from dimnode.p2p.gossip import HEARTBEAT_TOPIC, JOBS_TOPIC, RESULTS_TOPIC
from dimnode.p2p.host.streams import DialFailed, StreamEnded, StreamLost
from dimnode.p2p.invitation import read_invitation
from dimnode.records.codec import in_order
from dimnode.records.envelope import Record, SigningKey, seal
from dimnode.records.ids import blob_cid, cid_text, peer_text
from dimnode.records.kinds import OPEN_SWARM_ID, open_record
from dimnode.wire import HEADER_BYTES
from tests.attack.attacker import Attacker, opening
from tests.attack.odd_stage import Control, node_in
from tests.attack.odd_values import RECORD, many_at_once, mutants

QUICK, DEEP = 151, 7
"""Every how manieth mutant is tried: primes, so that over a table all kinds of change come up."""
SEED: Final = bytes(range(32))
KEY: Final = SigningKey.from_seed(SEED)
NET, ME, FILE = bytes(OPEN_SWARM_ID), bytes(KEY.peer), bytes(blob_cid(b"x"))
_REFUSED_SHOWN: Final = 5

ADVERT: Final = {
    "models": [RECORD],
    "cabinets": [{"name": "c", "columns": ["a"], "label": "a", "operations": ["infer"], "min_cohort": 1}],
    "slots": 1,
    "runtimes": ["onnx"],
    "sandbox": "landlock",
    "agent": "attacker",
    "addresses": ["/ip4/127.0.0.1/tcp/1"],
    "jobs_per_second": 1,
    "name": "n",
    "x_fetch_bytes": 1,
    "x_extras": ["text"],
    "x_devices": {"onnx": "cpu"},
}
MANIFEST: Final = {
    "v": 2,
    "name": "m",
    "version": "1.0",
    "profile": "unixfs-v1-2025",
    "format": "onnx",
    "files": [["m.onnx", "model", FILE, 10], ["w", "weights", FILE, 10], ["c.json", "tokenizer", FILE, 10]],
    "inputs": [["x", "float32", [-1, 10]]],
    "outputs": [["y", "float32", [-1]]],
    "labels": ["a"],
    "licence": "l",
    "origin": "trained",
    "access": "pay-per-use",
    "summary": "s",
    "price": {"unit": "row", "micro": 1, "currency": "EUR"},
    "previous": RECORD,
    "lineage": [["of", RECORD]],
    "memory_bytes": 1,
    "max_batch": 1,
    "pre": [{"op": "input", "name": "x", "kind": "text", "columns": ["a"]}, {"op": "later", "file": "z", "name": "q"}],
    "post": [{"op": "label_text", "name": "y", "into": "z", "file": "c.json"}, {"op": "later", "into": "q"}],
    "x_text": {"tokenizer": "c.json", "max_tokens": 10},
    "x_columns": ["a"],
}
TOLD: Final = {
    "advert": ADVERT,
    "manifest": MANIFEST,
    "grant": {"peer": ME, "models": [RECORD], "operations": ["infer"], "expires_ms": 2**41, "terms": "t"},
    "withdraw": {"subject": RECORD, "reason": "r", "replacement": RECORD},
}
"""What a peer says in its introduction: bodies of records."""
SPOKEN: Final = {
    HEARTBEAT_TOPIC: ("heartbeat", {"advert": RECORD, "free_slots": 1, "load_permille": 1}),
    JOBS_TOPIC: ("event", {"jobs": [[RECORD, "submitted"]], "verdicts": []}),
    RESULTS_TOPIC: ("event", {"jobs": [], "verdicts": [RECORD]}),
}
SPEC: Final = {
    "pattern": "chained",
    "tasks": [{"op": "infer", "model": RECORD, "take": [["x", 0, "x", -1, -1]], "purpose": "p"}],
    "inputs": [],
    "tier": "signed",
    "rule": {"method": "first"},
    "deadline_ms": 1000,
    "priority": "normal",
    "visibility": "swarm",
    "label": "x",
    "nonce": bytes(16),
}
FRAMES: Final[tuple[tuple[str, Any], ...]] = (
    ("/dim/info/1", "offers"),
    ("/dim/blob/1", ["open", FILE]),
    ("/dim/model/1", ["manifest", RECORD, []]),
    ("/dim/model/1", ["permit", RECORD, [b"grant"]]),
    ("/dim/model/1", ["warm", RECORD, [b"manifest", b"grant"]]),
    ("/dim/dialback/1", [4710]),
    ("/dim/member/1", ["chain", NET, [b"invite"], bytes(32)]),
    ("/dim/member/1", ["no", "E-swarm-04", "words", [b"removal"]]),
)
"""First frames of streams."""
JOB: Final = {"tasks": [{"model": "m"}], "input": {"x": [[1.0]]}, "deadline_seconds": 1, "rule": {"method": "first"}}
QUESTIONS: Final[dict[str, dict[str, Any]]] = {
    "connect": {"address": "/ip4/127.0.0.1/tcp/1"},
    "blobs.pin": {"blob": cid_text(blob_cid(b"x")), "reason": "r"},
    "blobs.gc": {"bytes": 1},
    "peers.block": {"target": "x", "reason": "r"},
    "models.add": {"card": {"name": "m", "inputs": [["x", "float32", [1]]], "pre": [{"op": "input"}]}, "path": "/x"},
    "models.show": {"model": "m"},
    "models.bench": {"model": "m", "batches": [1], "free_size": 1, "seconds": 0.1},
    "models.grant": {"model": "m", "peer": peer_text(KEY.peer), "operations": ["infer"], "expires_ms": 1},
    "data.add": {"name": "c", "path": "/x", "policy": {"operations": ["evaluate"]}, "label": "l", "exclude": ["a"]},
    "rep.explain": {"peer": "x"},
    "job.validate": {"job": JOB},
    "job.submit": {"job": JOB, "blobs": [b"x"], "nonce": bytes(16), "wait": True, "receipt": True},
    "job.ls": {"most": 3},
    "job.show": {"job": b"x" * 36},
    "job.events": {"job": "x"},
}
SHOWN: Final = ("peers", "models.ls", "rep.ls", "job.ls", "status", "swarm.show")


def record_of(kind: str, body: dict[str, Any], at_ms: int = 1_790_000_000_000) -> dict[str, Any]:
    return {"v": 1, "kind": kind, "net": NET, "by": ME, "at_ms": at_ms, **body}


def signed(payload: Any, kind: str, version: int = 1, key: SigningKey = KEY) -> tuple[bytes, Record | None]:
    """The envelope, whatever is in it, and the record if every node takes it for one."""
    try:
        envelope = seal(key, kind, msgpack.packb(in_order(payload)), version)
        return envelope, open_record(envelope)
    except (TypeError, OverflowError, ValueError):  # cannot be said in msgpack at all
        return b"", None
    except PeerFault:
        return envelope, None


class Trial:
    """A node under attack, and how far it is."""

    def __init__(self, node: Node, control: Control, attacker: Attacker, every: int) -> None:
        self._node, self._control, self._attacker, self._every = node, control, attacker, every
        self._refused = count()
        self.admitted = self.tried = 0
        self.last = ""

    def _odd(self, what: str, message: Any) -> Iterator[Any]:
        some = islice(mutants(message), self.tried % self._every, None, self._every)
        for changed, mutant in (*some, *islice(many_at_once(message), 0, None, max(1, self._every // 30))):
            self.last = f"{what}: {changed}"
            self.tried += 1
            yield mutant

    def _records(self, kind: str, payload: dict[str, Any]) -> Iterator[tuple[bytes, Record | None]]:
        """All that hold, and some that do not."""
        for number, mutant in enumerate(self._odd(kind, payload)):
            if isinstance(mutant, dict) and mutant.get("nonce") == SPEC["nonce"]:
                mutant["nonce"] = number.to_bytes(16)  # with the same one it would be the same job
            envelope, record = signed(mutant, kind, payload["v"])
            if record is not None or (envelope and next(self._refused) % _REFUSED_SHOWN == 0):
                self.admitted += record is not None
                yield envelope, record

    async def _ask(self, op: str, arguments: dict[str, Any]) -> None:
        with trio.fail_after(60):
            reply = await self._control.ask(op, arguments)
        assert reply.get("error", {}).get("code") != "E-api-99", f"{op} after {self.last}"
        json.dumps(reply, default=repr)

    async def show(self, *models: Record) -> None:
        """What people look at."""
        for op in SHOWN:
            await self._ask(op, {})
        for model in models:
            await self._ask("models.show", {"model": cid_text(model.id)})

    async def introductions(self) -> None:
        for kind, body in TOLD.items():
            for envelope, record in self._records(kind, record_of(kind, body)):
                of_it = [record.id] if record is not None and kind == "manifest" else []
                advert, _ = signed(record_of("advert", {**ADVERT, "models": of_it}), "advert")
                self._attacker.advert = [envelope] if kind == "advert" else [advert, envelope]
                await self._node.swarm._fetch(KEY.peer)
                if record is not None:
                    await self.show(*([record] if kind == "manifest" else []))

    async def gossip(self) -> None:
        for topic, (kind, body) in SPOKEN.items():
            now_ms = time.time_ns() // 1_000_000
            for envelope, _ in self._records(kind, record_of(kind, body, now_ms)):
                if self._node.swarm.validate(topic, ME, envelope) is Judgement.ACCEPT:
                    self._node.swarm.hear(topic, ME, envelope)
        await self.show()

    async def frames(self) -> None:
        for protocol, message in FRAMES:
            for mutant in self._odd(protocol, message):
                await self._send(protocol, mutant)

    async def jobs(self) -> None:
        """Specs for this node to own, with one input."""
        held = opening(b"input")
        for envelope, _ in self._records("spec", record_of("spec", {**SPEC, "inputs": [held.ref]})):
            await self._send("/dim/job/1", [envelope, [held.ref + held.salt + held.cid], [b"input"], [b"grant"]])
        await self.show()

    async def leases(self) -> None:
        """Over the link, each with a spec; and leases of one spec."""
        held, executor = opening(b"input"), bytes(self._node.me)
        spec = record_of("spec", {**SPEC, "inputs": [held.ref]})
        envelope, record = signed(spec, "spec")
        assert record is not None
        lease = {"job": bytes(record.id), "task": 0, "epoch": 1, "executor": executor, "ttl_ms": 1000}
        pairs = [
            (signed(record_of("lease", {**lease, "job": bytes(odd.id), "inputs": [held.ref]}), "lease"), found)
            for found, odd in self._records("spec", spec)
            if odd is not None
        ]
        odd_leases = self._records("lease", record_of("lease", {**lease, "inputs": [held.ref]}))
        for (leased, said), of_spec in (*pairs, *((found, envelope) for found in odd_leases)):
            if said is not None:
                key = said.payload["job"], said.payload["task"], said.payload["epoch"]
                frame = TaskFrame("lease", key, (leased, of_spec), (held,), (b"input",))
                self._attacker.send(self._node.me, frame)
                await self._attacker.word("refused", key)

    async def questions(self) -> None:
        for op, arguments in QUESTIONS.items():
            for mutant in self._odd(op, arguments):
                if isinstance(mutant, dict) and all(type(key) is str for key in mutant) and _packed(mutant):
                    await self._ask(op, mutant)

    async def _send(self, protocol: str, message: Any) -> None:
        body = _packed(message)
        host = self._attacker.host
        with trio.fail_after(60):
            try:
                stream = await host.open_stream(self._node.me, protocol)
                await stream.write(len(body).to_bytes(HEADER_BYTES, "big"), body, bytes(HEADER_BYTES))
                await stream.read(1)
                await stream.reset()
            except (DialFailed, StreamEnded, StreamLost):
                pass


def _packed(message: Any) -> bytes:
    try:
        packed: bytes = msgpack.packb(message)
    except (TypeError, OverflowError, ValueError):
        return b""
    return packed


async def attack(home: Path, every: int) -> tuple[int, int]:
    attacker = Attacker(SEED)
    async with AsyncExitStack() as stack:
        node, ready, control = await stack.enter_async_context(node_in(home))
        place: Any = SimpleNamespace(addresses=list(ready.addresses))
        await stack.enter_async_context(attacker.attached(place))
        trial = Trial(node, control, attacker, every)
        for part in (trial.introductions, trial.gossip, trial.frames, trial.jobs, trial.leases, trial.questions):
            await part()
        await trial.show()
        assert node.host is not None
        assert Offence.HANDLER.value not in node.host.conduct().offences
    async with node_in(home) as (_, _, control):
        assert "result" in await control.ask("status", {})
    return trial.tried, trial.admitted


def _holds(tmp_path: Path, caplog: pytest.LogCaptureFixture, every: int) -> None:
    caplog.set_level(logging.WARNING)
    tried, admitted = trio.run(attack, tmp_path / "home", every)
    print(f"{tried} messages, of which {admitted} are valid records")
    assert admitted > tried / 40
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.mark.slow
def test_one_odd_value_in_a_valid_message_spoils_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _holds(tmp_path, caplog, QUICK)


@pytest.mark.slow
def test_no_odd_value_in_a_valid_message_spoils_anything(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _holds(tmp_path, caplog, DEEP)


def test_one_odd_value_in_a_membership_spoils_no_swarm(tmp_path: Path) -> None:
    now_ms, founder = 1_790_000_000_000, SigningKey.from_seed(bytes(32))
    swarm = PrivateSwarm.found(tmp_path, founder, "mine", now_ms)
    address = f"/ip4/127.0.0.1/tcp/1/p2p/{peer_text(founder.peer)}"
    _, text = swarm.invite(InviteWish(86_400_000, 1000, addresses=(address,)), now_ms)
    found = read_invitation(text, now_ms)
    key = SigningKey.from_seed(found.seed)
    body = {"net": swarm.book.net, "by": key.peer, "peer": ME, "parents": [found.invite.id], "expires_ms": 2**41}
    admitted = 0
    for what, mutant in mutants(record_of("member", body, now_ms)):
        _, record = signed(mutant, "member", key=key)
        if record is None:
            continue
        try:
            swarm.book.admit(KEY.peer, [found.invite, record], now_ms)
            admitted += 1
        except Refused:
            pass
        json.dumps([swarm.describe(now_ms), swarm.member_rows(now_ms), swarm.book.next_expiry_ms(now_ms)]), what
    swarm.save()
    again = PrivateSwarm.load(tmp_path, founder)
    assert admitted and again is not None and again.book.digest() == swarm.book.digest()
