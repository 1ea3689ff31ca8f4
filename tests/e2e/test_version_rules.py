"""A node of today among peers of the next and the last version, over real links: docs/protocol.md, Versions."""

from collections.abc import Iterator
from typing import Any

import pytest
import trio

from dimnode.audit.verifier import verify
from dimnode.client import tensor_rows
from dimnode.node.jobdoor import JOB
from dimnode.p2p.frames import TaskFrame
from dimnode.p2p.host.streams import Stream, StreamEnded
from dimnode.p2p.introduction import INFO
from dimnode.p2p.pings import PING_BYTES
from dimnode.records.ids import cid_bytes, peer_bytes, peer_text
from dimnode.wire import FrameDecoder, pack_frame, unpack_body
from tests.attack.attacker import Attacker, lease_frame, opening, run, spec
from tests.e2e.harness import JOB_SECONDS, LINK_SECONDS, MODEL_FEATURES, Nodes, RealNode, real_nodes, until

pytestmark = pytest.mark.slow

BLOB = tensor_rows([[1.0] * MODEL_FEATURES])


@pytest.fixture(scope="module")
def alba(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealNode]:
    with real_nodes(tmp_path_factory.mktemp("versions"), {"alba": True}) as started:
        nodes: Nodes = started
        nodes.offer("alba")
        yield nodes["alba"]


def task_of(node: RealNode, **more: Any) -> dict[str, Any]:
    model = next(cid_bytes(row["model"]) for row in node.client.models() if row["name"].startswith("triage"))
    return {"op": "infer", "model": model, **more}


def longer(frame: TaskFrame) -> bytes:
    """The frame as a later version may send it, with fields that today's does not know."""
    return pack_frame([*unpack_body(frame.to_bytes()[4:]), "soon", {"x_hint": 1}])


async def values(stream: Stream) -> list[Any]:
    """The values of all frames until the end frame."""
    decoder, found = FrameDecoder(), []
    with trio.fail_after(JOB_SECONDS):
        while not decoder.ended:
            found += [unpack_body(body) for body in decoder.feed(await stream.read(65536))]
    return found


def test_a_peer_of_the_next_version_keeps_its_link_and_gets_its_answers(alba: RealNode) -> None:
    async def scenario() -> None:
        later, node = Attacker(), peer_bytes(alba.peer)
        later.offers()
        async with later.attached(alba):
            given = opening(BLOB)
            job = spec(later.key, [task_of(alba, x_hint=1)], (given,), x_hint={"soon": True})
            lease = lease_frame(later.key, job, node, BLOB, openings=(given,))
            later.send(node, pack_frame(["hurry", bytes(job.id), {"ms": 5}]))
            later.send(node, longer(TaskFrame("resume", lease.key)))
            await later.word("unknown")
            later.send(node, longer(lease))
            assert (await later.word("answer")).envelopes
            stream = await later.host.open_stream(node, INFO)
            await stream.write(pack_frame("what is new"))
            assert await values(stream) == []
            assert later.ups == [True]

    run(scenario)


def test_a_job_of_the_next_version_is_taken_in(alba: RealNode) -> None:
    async def scenario() -> None:
        later, node = Attacker(), peer_bytes(alba.peer)
        later.offers()
        async with later.attached(alba):
            given = opening(BLOB)
            job = spec(later.key, [task_of(alba)], (given,), x_wish="quickly")
            stream = await later.host.open_stream(node, JOB)
            await stream.write(pack_frame([job.envelope, [given.to_bytes()], [BLOB], {"wish": 1}]))
            (what, status, size), *chunks = await values(stream)
            receipt = b"".join(chunks)
            assert (what, status, size) == ("ended", "ok", len(receipt))
            assert verify(receipt).status == 0
            assert later.ups == [True]

    run(scenario)


async def _echo(stream: Stream) -> None:
    """How the ping was served before it carried clocks."""
    try:
        while True:
            await stream.write(await stream.read(PING_BYTES))
    except StreamEnded:
        pass


def test_a_peer_of_the_last_version_is_linked_without_what_it_lacks(alba: RealNode) -> None:
    """It says no name in its advert, no clock in its pings, and serves neither membership nor dial-back."""

    async def scenario() -> None:
        old, node = Attacker(), peer_bytes(alba.peer)
        old.offers()
        async with old.attached(alba, **{"/dim/ping/1": _echo}):
            await trio.to_thread.run_sync(until, lambda: _is_linked(alba, peer_text(old.peer)), LINK_SECONDS, "a link")
            old.send(node, TaskFrame("resume", (spec(old.key, [task_of(alba)]).id, 0, 1)))
            await old.word("unknown")
            assert old.ups == [True]

    run(scenario)


def _is_linked(node: RealNode, peer: str) -> bool:
    return any(row["linked"] and row["peer"] == peer for row in node.client.ask("peers")["peers"])
