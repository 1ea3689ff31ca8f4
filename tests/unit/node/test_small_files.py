"""The small files that a start reads, each value in them replaced by what it is not.

Then there is the refusal with its code, or a start without what was damaged; never a traceback.
"""

import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack
import msgspec
import pytest

from dimnode.config import Config
from dimnode.errors import DimError, Refused
from dimnode.exec.estimates import CostRow, Estimates
from dimnode.limits import LIMITS
from dimnode.node.benches import BENCHMARK_FILE, read_benchmark
from dimnode.node.guests import Guests
from dimnode.node.private_swarm import InviteWish, PrivateSwarm
from dimnode.records.envelope import SigningKey
from dimnode.records.ids import blob_cid, cid_text, peer_text
from dimnode.records.shapes import integer
from dimnode.store.blocklist import BLOCKLIST_FILE
from dimnode.store.costs import COSTS_FILE, CostBook, MeasuredModel
from dimnode.store.kubo_notes import NOTES_FILE, load_notes, save_notes
from dimnode.store.peers import PEERS_FILE, PeerCache
from dimnode.store.swarm_state import STATE_FILE, SWARM_FOLDER

NOW_MS = 1_800_000_000_000
KEY = SigningKey.from_seed(bytes(32))
DEEP = "a value within values, deeper than any parser goes"
NO_VALUES: tuple[Any, ...] = (None, True, -1, 2**70, 1.5, "", "no", [], [[]], {}, {"a": [{}]}, DEEP)


@dataclass(frozen=True)
class SmallFile:
    """How it looks, and what a start does with it; the code of its refusal, "" when a start goes on without it."""

    name: str
    good: Any
    start: Callable[[Path], None]
    code: str = ""

    def write(self, home: Path, content: Any) -> bool:
        """False for what the format cannot hold."""
        (home / self.name).parent.mkdir(mode=0o700, exist_ok=True)
        if self.name.endswith(".json"):
            raw = json.dumps(content).encode()
            raw = raw.replace(json.dumps(DEEP).encode(), b"[" * 9_999 + b"]" * 9_999)
        else:
            try:
                raw = msgpack.packb(content)
            except OverflowError:
                return False
            raw = raw.replace(msgpack.packb(DEEP), b"\x91" * 9_999 + b"\x90")
        (home / self.name).write_bytes(raw)
        (home / self.name).chmod(0o600)
        return True


def damaged(value: Any) -> Iterator[Any]:
    """`value` with one of the values in it, or itself, replaced, or one more beside them."""
    yield from (junk for junk in NO_VALUES if type(junk) is not type(value) or junk != value)
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from ({**value, name: junk} for junk in damaged(inner))
            yield {other: kept for other, kept in value.items() if other != name}
        yield {**value, "more": DEEP}
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from ([*value[:place], junk, *value[place + 1 :]] for junk in damaged(inner))
            yield value[:place]
        yield [*value, DEEP]


def start_with_peers(home: Path) -> None:
    cache = PeerCache(home)
    assert all(isinstance(address, str) for address in cache.addresses())
    cache.see({"b": ["/2"]}, NOW_MS + 120_000)
    assert "/2" in PeerCache(home).addresses()


def start_with_costs(home: Path) -> None:
    book, costs = CostBook(home, "here"), Estimates(9)
    for found in book.models():
        costs.recall(CostRow(*msgspec.structs.astuple(found)))
    book.keep([MeasuredModel(*row) for row in costs.rows()])


def start_with_kubo(home: Path) -> None:
    notes = load_notes(home, LIMITS.kubo)
    with closing(sqlite3.connect(":memory:")) as journal:
        journal.execute("SELECT 1 WHERE 2 > ?", (notes.receipts_after,))
    assert isinstance(notes.receipts + notes.named_at_ms / 1000, float)
    save_notes(home, notes)


def start_with_benchmark(home: Path) -> None:
    found = read_benchmark(home)
    assert integer()(found.get("jobs_per_second", 0))  # as an advert has it
    json.dumps(found)


def start_with_blocks(home: Path) -> None:
    guests = Guests(home, Config(), KEY.peer, LIMITS)
    guests.refusal(bytes(38), "192.0.2.7")
    json.dumps(guests.listed())


def start_in_swarm(home: Path) -> None:
    swarm = PrivateSwarm.load(home, KEY)
    assert swarm is not None
    assert all(len(key) == 32 for key in swarm.keys(NOW_MS))
    assert all(isinstance(address, str) for address in swarm.state.addresses)
    assert not swarm.state.refused or swarm.state.refused.startswith("E-swarm-14: ")
    with suppress(Refused):
        swarm.judge_me(NOW_MS)
    swarm.snapshot()


def a_swarm() -> list[Any]:
    founder = PrivateSwarm.found(Path("/"), SigningKey.from_seed(bytes(31) + b"f"), "clinic", NOW_MS, psk=True)
    text = founder.invite(InviteWish(86_400_000, addresses=("/ip4/127.0.0.1/tcp/1",)), NOW_MS)[1]
    state = PrivateSwarm.join(Path("/nowhere"), KEY, text, NOW_MS).state
    keys = [[key, 0] for key, _ in state.keys] + [[bytes(32), NOW_MS]]
    return [1, state.swarm, state.chain, [], state.addresses, keys, "E-swarm-14: the invite is used up"]


CID = cid_text(blob_cid(b"x"))
PEERS = {"v": 1, "peers": [{"peer": "a", "addresses": ["/1"], "seen_ms": NOW_MS}]}
MODEL = {"model": "m", "load": [1.0, 0.1, 3], "runs": [[1, 0.1, 0.1, 3, 1.0]], "base_bytes": 10, "peaks": [[1, 20]]}
NOTES = {"pinned": [CID], "receipts_after": 3, "receipts": 2, "name": "k51", "index": CID, "named_at_ms": NOW_MS}
BENCHMARK = {"jobs_per_second": 70, "model": "m", "cores": os.cpu_count(), "at_ms": NOW_MS}
BLOCKED = {"target": "10.0.0.0/8", "reason": "r", "at_ms": NOW_MS}
SMALL_FILES = [
    SmallFile(PEERS_FILE, PEERS, start_with_peers),
    SmallFile(COSTS_FILE, {"v": 1, "devices": {"here": [MODEL]}}, start_with_costs),
    SmallFile(NOTES_FILE, NOTES, start_with_kubo),
    SmallFile(BENCHMARK_FILE, BENCHMARK, start_with_benchmark),
    SmallFile(
        BLOCKLIST_FILE,
        {"v": 1, "blocked": [BLOCKED], "allowed": [{"target": peer_text(KEY.peer)}]},
        start_with_blocks,
        "E-peers-02",
    ),
    SmallFile(f"{SWARM_FOLDER}/{STATE_FILE}", a_swarm(), start_in_swarm, "E-swarm-28"),
]


@pytest.mark.parametrize("file", SMALL_FILES, ids=lambda file: file.name)
def test_a_small_file_with_any_value_in_it_damaged_is_refused_by_its_code_or_done_without(
    file: SmallFile, tmp_path: Path
) -> None:
    assert file.write(tmp_path, file.good)
    file.start(tmp_path)
    wrong = []
    for content in damaged(file.good):
        if not file.write(tmp_path, content):
            continue
        try:
            file.start(tmp_path)
        except DimError as no:
            if not file.code or no.complaint.code != file.code:
                wrong.append(f"{no!r} for {content}")
        except Exception as error:
            wrong.append(f"{error!r} for {content}")
    assert not wrong, f"{len(wrong)}, of which the first: {wrong[0]}"
