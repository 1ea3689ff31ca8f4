"""A hostile peer: a real host with real links in the test's process, which says whatever a test wants it to say.

Rule: nothing is mocked on either side; what the node under attack answers is read from its frames.
"""

import os
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import trio

from dimnode.limits import LIMITS
from dimnode.p2p.frames import TaskFrame, read_task_frame
from dimnode.p2p.host.host import Host, open_host
from dimnode.p2p.introduction import INFO, serve_info
from dimnode.p2p.links import TASK, Link, Links
from dimnode.p2p.pings import PING
from dimnode.records.envelope import Record, SigningKey, seal
from dimnode.records.ids import PeerId, blob_cid
from dimnode.records.kinds import OPEN_SWARM_ID, compose, open_record
from dimnode.records.receipt import Opening
from tests.e2e.harness import JOB_SECONDS, RealNode

Frame = tuple[PeerId, TaskFrame]


def record(key: SigningKey, kind: str, **body: Any) -> Record:
    """A record of this key, as its schema wants it."""
    at_ms = body.pop("at_ms", 1_790_000_000_000)
    _, payload = compose(kind, {"net": OPEN_SWARM_ID, "by": key.peer, "at_ms": at_ms}, body)
    return open_record(seal(key, kind, payload))


def opening(blob: bytes) -> Opening:
    """The opening of these bytes under a fresh salt."""
    return Opening.of(os.urandom(32), blob_cid(blob))


def spec(key: SigningKey, tasks: list[dict[str, Any]], inputs: Iterable[Opening] = (), **changes: Any) -> Record:
    """A job of this key."""
    body: dict[str, Any] = {
        "pattern": "chained",
        "tasks": tasks,
        "inputs": [found.ref for found in inputs],
        "tier": "signed",
        "rule": {"method": "first"},
        "deadline_ms": 60_000,
        "priority": "normal",
        "visibility": "swarm",
        "nonce": os.urandom(16),
    }
    return record(key, "spec", **(body | changes))


def lease_frame(
    owner: SigningKey, job: Record, executor: PeerId, *blobs: bytes, epoch: int = 1, openings: tuple[Opening, ...] = ()
) -> TaskFrame:
    """A lease of the job's first task, signed by `owner`."""
    inputs = openings or tuple(opening(blob) for blob in blobs)
    refs = [found.ref for found in inputs]
    said = {"job": job.id, "task": 0, "epoch": epoch, "executor": executor, "ttl_ms": 30_000, "inputs": refs}
    lease = record(owner, "lease", **said)
    return TaskFrame("lease", (job.id, 0, epoch), (lease.envelope, job.envelope), inputs, blobs)


def answer_frame(key: SigningKey, lease: TaskFrame, blob: bytes, **changes: Any) -> TaskFrame:
    """What `key` answers to a lease, its own or somebody else's."""
    given, job = (open_record(envelope) for envelope in lease.envelopes)
    output = opening(blob)
    body: dict[str, Any] = {
        "job": given.payload["job"],
        "task": given.payload["task"],
        "epoch": given.payload["epoch"],
        "inputs": given.payload["inputs"],
        "outputs": [output.ref],
        "runtime": {},
        "timing": {"run_us": 1, "queue_us": 0},
        "usage": {"cpu_us": 0, "rss_bytes": 0},
        "sandbox": "",
        "status": "ok",
        "parents": [given.id],
    }
    if "model" in job.payload["tasks"][0]:
        body["model"] = job.payload["tasks"][0]["model"]
    sealed = record(key, "answer", **(body | changes))
    return TaskFrame("answer", lease.key, (sealed.envelope,), (output,), (blob,))


class Attacker:
    """One hostile peer. `heard` holds every task frame that came; `advert` is what it says of itself."""

    def __init__(self, seed: bytes | None = None) -> None:
        self.seed = seed or os.urandom(32)
        self.key = SigningKey.from_seed(self.seed)
        self.peer = self.key.peer
        self.heard: list[Frame] = []
        self.ups: list[bool] = []
        self.advert: list[bytes] = []
        self.host: Host
        self._news = trio.Event()

    def offers(self, models: Iterable[bytes] = (), name: str = "", manifests: Iterable[bytes] = ()) -> None:
        """Say so in its introduction."""
        body = {
            "models": sorted(models),
            "cabinets": [],
            "slots": 8,
            "runtimes": ["onnx"],
            "sandbox": "",
            "agent": "attacker",
            "addresses": [],
        }
        body |= {"name": name} if name else {}
        self.advert = [record(self.key, "advert", **body).envelope, *manifests]

    @asynccontextmanager
    async def attached(self, node: RealNode, **handlers: Any) -> AsyncIterator["Attacker"]:
        """Be linked to the node as long as the block runs."""
        links = Links(self.peer, self._frame, self._link)
        self._links = links
        served = {TASK: links.serve_task, PING: links.pings.serve, INFO: serve_info(lambda: self.advert), **handlers}
        listen = ["/ip4/127.0.0.1/tcp/0"]
        async with (
            open_host(self.seed, listen, served, dht=False, on_connection=links.connection) as host,
            trio.open_nursery() as nursery,
        ):
            self.host = host
            links.attach(host, nursery)
            await host.connect(node.addresses[0])
            await self.until(lambda: self.ups[-1:] == [True])
            yield self
            nursery.cancel_scope.cancel()

    def send(self, node: PeerId, frame: TaskFrame | bytes) -> None:
        """Over the link."""
        self._links.send(node, frame if isinstance(frame, bytes) else frame.to_bytes())

    async def word(self, what: str, key: Any = None) -> TaskFrame:
        """Wait for the next frame with this word, about this lease when one is given; it is taken off the list."""

        def fits(frame: TaskFrame) -> bool:
            return frame.what == what and key in (None, frame.key)

        await self.until(lambda: any(fits(frame) for _, frame in self.heard))
        place = next(place for place, (_, frame) in enumerate(self.heard) if fits(frame))
        return self.heard.pop(place)[1]

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait until something that came makes this true."""
        with trio.fail_after(JOB_SECONDS):
            while not true():
                await self._news.wait()

    async def _frame(self, link: Link, body: bytes) -> None:
        self.heard.append((link.peer, read_task_frame(body)))
        self._tell()

    def _link(self, peer: PeerId, up: bool) -> None:
        self.ups.append(up)
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()


def run(scenario: Callable[[], Any]) -> None:
    """Run a scenario that must end in time."""

    async def bounded() -> None:
        with trio.fail_after(4 * JOB_SECONDS):
            await scenario()

    trio.run(bounded)


__all__ = ["LIMITS", "Attacker", "answer_frame", "lease_frame", "opening", "record", "run", "spec"]
