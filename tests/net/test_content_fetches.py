"""How a node's fetch of a large blob ends when it does not end well: each way has a code, and a liar has its points."""

import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from blob_stage import BRISK, STORE, Fetcher, Provider, content_of, provider, run, staged

from dimnode.errors import ConfigError, Refused
from dimnode.limits import LIMITS
from dimnode.node.content import Content
from dimnode.p2p.conduct import Offence
from dimnode.records.ids import Cid
from dimnode.records.unixfs import root_of

pytestmark = pytest.mark.slow
CONTENT = content_of(1)
ROOT, OTHER = root_of(CONTENT), root_of(b"nobody has this")
ONE_AT_A_TIME = replace(BRISK, fetches_waiting_max=1)


async def keep_open(task_status: trio.TaskStatus[trio.Nursery]) -> None:
    """A nursery that whoever waits for its tasks is not in."""
    async with trio.open_nursery() as nursery:
        task_status.started(nursery)
        await trio.sleep_forever()


@asynccontextmanager
async def content_beside(
    folder: Path, giver: Provider, find_seconds_max: float, *others: Provider, **more: Any
) -> AsyncIterator[tuple[Content, Fetcher, trio.CancelScope]]:
    """Large blobs of a node with these neighbours; the scope is what ends with the node."""
    async with staged(folder, giver, *others) as fetcher, trio.open_nursery() as outside:
        node = await outside.start(keep_open)
        exchange = replace(ONE_AT_A_TIME, find_seconds_max=find_seconds_max, **more)
        content = Content(fetcher.store, replace(LIMITS, exchange=exchange, store=STORE))
        content.attach(fetcher.host, node, fetcher.reach)
        yield content, fetcher, node.cancel_scope
        outside.cancel_scope.cancel()


async def refusal(content: Content, root: Cid, giver: Provider) -> Refused:
    with pytest.raises(Refused) as no:
        await content.fetch(root, hints=[giver.peer])
    return no.value


def test_who_sends_wrong_bytes_gives_nothing_and_loses_points(tmp_path: Path) -> None:
    async def scenario() -> None:
        giver = provider(tmp_path / "a", twist=lambda _leaf, content: bytes(len(content)))
        giver.store.add(io.BytesIO(CONTENT))
        async with content_beside(tmp_path / "b", giver, 3.0) as (content, fetcher, _):
            no = await refusal(content, ROOT, giver)
            assert (no.complaint.code, no.complaint.cause) == ("E-p2p-61", "who said to have it sent wrong bytes")
            assert fetcher.host.conduct().offences == {Offence.BLOB.value: 1}

    run(scenario)


def test_one_fetch_too_many_is_refused_at_once_and_a_node_that_stops_says_so_to_who_waits(tmp_path: Path) -> None:
    async def scenario() -> None:
        giver = provider(tmp_path / "a")
        async with content_beside(tmp_path / "b", giver, 60.0) as (content, _, node), trio.open_nursery() as nursery:
            ends: list[str] = []

            async def wait() -> None:
                ends.append((await refusal(content, ROOT, giver)).complaint.code)

            nursery.start_soon(wait)
            while not content.progress():
                await trio.lowlevel.checkpoint()
            assert (await refusal(content, OTHER, giver)).complaint.code == "E-p2p-63"
            node.cancel()
        assert ends == ["E-p2p-64"]

    run(scenario)


def test_a_book_of_blobs_that_is_damaged_while_a_blob_comes_refuses_the_fetch_and_ends_no_node(tmp_path: Path) -> None:
    def damaged(*_: object) -> None:
        raise ConfigError("E-store-37", "the list of blobs is damaged")

    async def scenario() -> None:
        giver = provider(tmp_path / "a")
        giver.store.add(io.BytesIO(CONTENT))
        async with content_beside(tmp_path / "b", giver, 60.0) as (content, fetcher, _):
            fetcher.store.make_room = damaged  # type: ignore[method-assign]
            assert (await refusal(content, ROOT, giver)).complaint.code == "E-store-37"
            del fetcher.store.make_room
            assert (await content.fetch(ROOT, hints=[giver.peer])).read_bytes() == CONTENT

    run(scenario)


def test_when_nobody_is_named_some_neighbours_are_asked_and_others_the_next_time(tmp_path: Path) -> None:
    async def scenario() -> None:
        giver, *others = [provider(tmp_path / name) for name in ("a", "c", "d", "e")]
        giver.store.add(io.BytesIO(CONTENT))
        async with content_beside(tmp_path / "b", giver, 60.0, *others, providers_max=1) as (content, _, _node):
            assert (await content.fetch(ROOT)).read_bytes() == CONTENT

    run(scenario)
