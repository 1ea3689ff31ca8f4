"""Task frames between a link and the inbox: whatever becomes of the link, what is held is let go once."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import trio
import trio.testing

from dimnode.jobs.events import BadRecord, LeaseReceived, PeerUp
from dimnode.limits import LIMITS
from dimnode.node.courier import Courier
from dimnode.node.inbox import Inbox
from dimnode.p2p.frames import TaskFrame
from dimnode.records.envelope import SigningKey, seal
from dimnode.records.ids import PeerId, blob_cid, record_id
from dimnode.records.kinds import OPEN_SWARM_ID, compose
from dimnode.records.receipt import Opening
from dimnode.store.vault import Vault

OWNER, ME = (SigningKey.from_seed(bytes([number]) * 32) for number in (1, 2))
INPUT = b"a large input"


def lease_frame() -> bytes:
    """A lease to this node with its spec and input, as it comes over a link, without its length."""
    opening = Opening.of(bytes(32), blob_cid(INPUT))
    common = {"net": OPEN_SWARM_ID, "by": OWNER.peer, "at_ms": 1}
    spec = {"pattern": "chained", "tasks": [{"op": "statistics"}], "inputs": [opening.ref], "tier": "signed"}
    spec |= {"rule": {"method": "first"}, "deadline_ms": 1000, "priority": "normal", "visibility": "swarm"}
    job, said = compose("spec", common, spec | {"nonce": bytes(16)})
    lease = {"job": job, "task": 0, "epoch": 1, "executor": ME.peer, "ttl_ms": 1000, "inputs": [opening.ref]}
    _, leased = compose("lease", common, lease)
    envelopes = (seal(OWNER, "lease", leased), seal(OWNER, "spec", said))
    return TaskFrame("lease", (job, 0, 1), envelopes, (opening,), (INPUT,)).to_bytes()[4:]


def node(inbox: Inbox) -> Any:
    """As much of a node as a courier needs for a lease."""
    watchers = SimpleNamespace(received=lambda *_: None)
    space = SimpleNamespace(scarce=False)
    engine = SimpleNamespace(owner=None)
    return SimpleNamespace(
        me=ME.peer,
        net=OPEN_SWARM_ID,
        limits=LIMITS,
        inbox=inbox,
        vault=Vault(),
        watchers=watchers,
        space=space,
        engine=engine,
    )


def test_a_link_that_ends_while_the_inbox_is_full_leaves_nothing_held() -> None:
    async def scenario() -> None:
        here = node(Inbox(replace(LIMITS.jobs, inbox_events_max=1)))
        await here.inbox.put_peer(PeerUp(OWNER.peer))
        courier, link = Courier(here), SimpleNamespace(peer=PeerId(OWNER.peer))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(courier.receive, link, lease_frame())
            await trio.testing.wait_all_tasks_blocked()
            assert here.vault.bytes_held > 0, "it waits for room"
            nursery.cancel_scope.cancel()
        assert (len(here.vault), here.vault.bytes_held) == (0, 0)
        assert [type(event) for event in await here.inbox.drain(None)] == [PeerUp]
        await courier.receive(link, lease_frame())  # type: ignore[arg-type]
        [event] = await here.inbox.drain(None)
        assert isinstance(event, LeaseReceived) and here.vault.get(event.openings[0].cid) == INPUT

    trio.run(scenario)


def test_an_output_of_this_node_itself_is_refused_when_the_jobs_rule_cannot_read_it() -> None:
    """It would end the whole vote: a model of our own may give no labels."""
    opening = Opening.of(bytes(32), blob_cid(INPUT))
    common = {"net": OPEN_SWARM_ID, "by": ME.peer, "at_ms": 1}
    job = lease = record_id(b"")
    answer = {"job": job, "task": 0, "epoch": 1, "inputs": [], "outputs": [opening.ref], "runtime": {}, "sandbox": ""}
    answer |= {"timing": {"run_us": 1, "queue_us": 0}, "usage": {"cpu_us": 0, "rss_bytes": 0}, "status": "ok"}
    _, said = compose("answer", common, answer | {"parents": [lease]})
    frame = TaskFrame("answer", (job, 0, 1), (seal(ME, "answer", said),), (opening,), (INPUT,))

    async def scenario() -> None:
        here = node(Inbox(LIMITS.jobs))
        spec = {"rule": {"method": "majority_vote"}, "tasks": [{"op": "infer"}]}
        book = SimpleNamespace(find=lambda _: SimpleNamespace(spec=spec))
        here.engine.owner = SimpleNamespace(book=book, expects=lambda *_: True)
        Courier(here).send(ME.peer, frame)
        [event] = await here.inbox.drain(None)
        assert isinstance(event, BadRecord) and not event.blame
        assert (len(here.vault), event.peer, event.key) == (0, ME.peer, frame.key)

    trio.run(scenario)
