"""The HTTP door on a free port of loopback, over a node that is a few dictionaries.

Rule: the port has the real interface (`NodePort`); jobs end when the test says so, real sockets carry every request.
"""

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import trio
import trio.testing

from dimnode.api.http.door import HttpDoor
from dimnode.api.http.examples import BODIES
from dimnode.api.http.settings import HttpSettings
from dimnode.api.jobfile import compile_job, read_job
from dimnode.api.port import Answer, ListedFile
from dimnode.errors import Refused
from dimnode.jobs.effects import Reply
from dimnode.jobs.events import Submitted
from dimnode.limits import LIMITS, HttpLimits
from dimnode.node.httpdoor import Account, Shelf
from dimnode.records.envelope import Record, SigningKey
from dimnode.records.ids import RECORD_PREFIX, PeerId, RecordId, blob_cid, cid_bytes, cid_text
from dimnode.records.kinds import OPEN_SWARM_ID
from dimnode.records.tensors import Tensor, encode_tensors
from dimnode.store.keys import ApiKey, KeyBook
from dimnode.store.uploads import Uploads

ME = SigningKey.from_seed(b"m" * 32).peer
OUTPUT = encode_tensors([Tensor("y", "int64", (1,), (7).to_bytes(8, "little"))])
JOB = {"tasks": [{"model": "triage"}], "input": {"x": [[1.0, 2.0]]}}
MANIFEST: dict[str, Any] = {
    "at_ms": 1,
    "name": "triage",
    "version": "1.0.0",
    "profile": "unixfs-v1-2025",
    "format": "onnx",
    "files": [["model.onnx", "model", blob_cid(b"a model"), 7]],
    "inputs": [["x", "float32", [-1, 2]]],
    "outputs": [],
    "labels": [],
    "licence": "",
    "origin": "trained",
    "access": "public",
}
MODEL = Record(RecordId(RECORD_PREFIX + b"t" * 32), "manifest", ME, MANIFEST, b"", 2)


class FakeNode:
    """Jobs as rows in memory. `end` and `note` are the test's hands."""

    me: PeerId = ME
    net: RecordId = OPEN_SWARM_ID

    def __init__(self) -> None:
        self.jobs: dict[RecordId, Submitted] = {}
        self.nonces: dict[bytes, RecordId] = {}
        self.ends: dict[RecordId, Answer] = {}
        self.trails: dict[RecordId, list[Answer]] = {}
        self.watching: dict[RecordId, list[Callable[[Answer], None]]] = {}
        self.at_once = True
        self.broken: Exception | None = None
        self.cancelled: list[RecordId] = []
        self.sequence = 0
        self.added: list[tuple[dict[str, Any], list[tuple[str, str, bytes]]]] = []
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def find_model(self, name: str) -> Record:
        if name not in ("triage", "triage:1.0.0", cid_text(MODEL.id)):
            raise Refused("E-models-01", f"no model {name!r}", "", "dim models ls")
        return MODEL

    def find_peer(self, name: str) -> PeerId:
        raise Refused("E-peers-01", f"no peer {name!r}")

    def compose_spec(self, body: Mapping[str, Any], inputs: Sequence[bytes], token: Any) -> Submitted:
        if self.broken is not None:
            raise self.broken
        return Submitted(token, RecordId(RECORD_PREFIX + os.urandom(32)), {**body, "at_ms": 1}, b"spec", ())

    def rejoin(self, job: RecordId, token: Any) -> Submitted:
        return replace(self.jobs[job], token=token)

    async def submit(self, client: object, event: Submitted) -> None:
        known = event.job in self.jobs
        self.jobs[event.job] = event
        self.nonces[event.spec["nonce"]] = event.job
        await trio.lowlevel.checkpoint()
        if not known:
            self.note(event.job, "submitted", on_record=True)
        if self.at_once:
            self.end(event.job)

    def abandon(self, event: Submitted) -> None:
        pass

    def known_job(self, nonce: bytes) -> RecordId | None:
        return self.nonces.get(nonce)

    def has_ended(self, job: RecordId) -> bool:
        return job in self.ends

    async def fetch_end(self, job: RecordId) -> Answer | None:
        return self.ends.get(job)

    def class_names(self, job: RecordId) -> list[str]:
        return list(MODEL.payload["labels"])

    async def fetch_receipt(self, job: RecordId) -> bytes:
        if job not in self.ends:
            raise Refused("E-job-12", "no verdict yet")
        return b"receipt of " + job

    def watch(self, job: RecordId, watcher: Callable[[Answer], None]) -> Callable[[], None]:
        self.watching.setdefault(job, []).append(watcher)
        return lambda: self.watching[job].remove(watcher)

    def find_job(self, name: str | bytes) -> RecordId:
        try:
            return RecordId(cid_bytes(name) if isinstance(name, str) else name)
        except Exception:
            raise Refused("E-job-13", "no such job") from None

    def trail(self, job: RecordId, after: int, most: int) -> list[Answer]:
        return [row for row in self.trails.get(job, []) if row["id"] > after][:most]

    def job_rows(self, jobs: Sequence[bytes] | None, most: int, before_ms: int) -> list[Answer]:
        wanted = [job for job in reversed(self.jobs) if jobs is None or job in jobs]
        spec = {"label": "", "pattern": "chained", "tier": "signed", "at_ms": 1}
        return [{"job": cid_text(job), **spec, "status": "ok"} for job in wanted][:most]

    def job_of_verdict(self, verdict: RecordId) -> RecordId | None:
        return next((job for job, ended in self.ends.items() if ended["verdict"] == verdict), None)

    async def job_blob(self, job: RecordId, cid: bytes) -> bytes | None:
        return OUTPUT if job in self.ends and cid == blob_cid(OUTPUT) else None

    async def add_model(self, card: Mapping[str, Any], files: Sequence[ListedFile]) -> Answer:
        self.added.append((dict(card), [(path, role, place.read_bytes()) for path, role, place in files]))
        return {"model": cid_text(MODEL.id), "name": f"{card['name']}:{card['version']}", "access": card["access"]}

    def readiness(self) -> Answer:
        return {"ready": True, "swarm_joined": True, "workers_ready": True, "disk_ok": True}

    def numbers(self) -> Answer:
        return {"peers_linked": 3, "tasks_finished": {"ok": 2}}

    async def ask(self, op: str, arguments: Mapping[str, Any]) -> Answer:
        if self.broken is not None:
            raise self.broken
        if op == "job.cancel":
            self.cancelled.append(arguments["job"])
            return {"job": cid_text(arguments["job"]), "cancelling": True}
        if op == "job.validate":
            compile_job(read_job(arguments["job"]), self, arguments["blobs"])
            return dict(BODIES["PlanOut"])
        answers: dict[str, Answer] = {
            "models.ls": {"models": [BODIES["ModelOut"] | {"model": cid_text(MODEL.id)}]},
            "models.show": BODIES["ModelShown"] | {"model": cid_text(MODEL.id)},
            "models.pull": BODIES["PulledOut"],
            "models.verify": BODIES["CheckedOut"],
            "models.grant": BODIES["GrantedOut"],
            "models.revoke": BODIES["RevokedOut"],
            "models.withdraw": BODIES["WithdrawnOut"],
            "data.ls": BODIES["CabinetsOut"],
            "peers": {"me": "me", "peers": [row | {"cabinets": {}} for row in BODIES["PeersOut"]["peers"]]},
            "rep.ls": BODIES["StandingOut"],
            "rep.explain": BODIES["WhyOut"],
            "status": BODIES["StatusOut"],
        }
        if op.startswith("models."):
            if op != "models.ls":
                self.find_model(arguments["model"])
            self.asked.append((op, {key: value for key, value in arguments.items() if key != "op"}))
        if op not in answers:
            raise Refused("E-api-02", f"this node does not know {op!r}")
        return answers[op]

    # ---- the test's hands

    def note(self, job: RecordId, what: str, *, on_record: bool) -> None:
        """Something happened to a job."""
        event = {"at_ms": 5, "what": what, "task": 0, "epoch": 0, "peer": ME, "text": "", "job": job}
        if on_record:
            self.sequence += 1
            row = {key: value for key, value in event.items() if key != "job"}
            self.trails.setdefault(job, []).append({**row, "id": self.sequence, "peer": "me"})
        for watcher in list(self.watching.get(job, ())):
            watcher(event)

    def end(self, job: RecordId, status: str = "ok") -> None:
        """It is over."""
        verdict = RecordId(RECORD_PREFIX + job[-32:])
        self.ends[job] = {"job": job, "status": status, "verdict": verdict, "outputs": [OUTPUT]}
        self.note(job, "ended", on_record=True)
        self.jobs[job].token.ended(Reply(self.jobs[job].token, job, status, verdict, ()), (OUTPUT,))


class Stage:
    """The open door, its node, and keys."""

    def __init__(self, door: HttpDoor, node: FakeNode, book: KeyBook, nursery: trio.Nursery) -> None:
        self.door, self.node, self.book, self.nursery = door, node, book, nursery

    def key(self, *scopes: str, **more: Any) -> str:
        """A fresh key's text."""
        known: dict[str, Any] = {
            "id": "",
            "name": "",
            "scopes": frozenset(scopes or ("submit", "read")),
            "models": (),
            "created_ms": 1,
            "expires_ms": 0,
            "revoked_ms": 0,
            "requests_per_minute": 60_000,
            "open_jobs": 8,
        }
        return self.book.create(ApiKey(**(known | more)))

    def client(self, key: str | None = None, **more: Any) -> httpx.AsyncClient:
        """With this key, or with a fresh one; `key=""` for none."""
        key = self.key() if key is None else key
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx.AsyncClient(base_url=self.door.url, headers=headers | more.pop("headers", {}), timeout=20, **more)

    @property
    def address(self) -> tuple[str, int]:
        """For raw sockets."""
        host, _, port = self.door.url.removeprefix("http://").rpartition(":")
        return host, int(port)


@asynccontextmanager
async def open_stage(home: Path, http: HttpLimits = LIMITS.http, **settings: Any) -> AsyncIterator[Stage]:
    """A door that is open as long as the block runs."""
    node, book = FakeNode(), KeyBook(home)
    found = HttpSettings(listen="127.0.0.1:0", **settings)
    shelf = Shelf(book, Uploads(home, http), http)
    door = HttpDoor(node, book, Account(book, http), shelf, found, replace(LIMITS, http=http))
    async with trio.open_nursery() as nursery:
        await nursery.start(door.serve)
        yield Stage(door, node, book, nursery)
        nursery.cancel_scope.cancel()
    book.close()


async def buffers_are_full() -> None:
    """Until a door that writes to somebody who does not read waits: nothing else says so."""
    await trio.testing.wait_all_tasks_blocked(0.2)


def code(found: httpx.Response) -> str:
    """Of an error."""
    return str(found.json()["error"]["code"])


def on_stage(
    home: Path,
    act: Callable[[Stage], Awaitable[None]],
    http: HttpLimits = LIMITS.http,
    seconds: float = 60.0,
    **more: Any,
) -> None:
    """Run `act` with an open door, for so long at most."""

    async def main() -> None:
        with trio.fail_after(seconds):
            async with open_stage(home, http, **more) as stage:
                await act(stage)

    trio.run(main)
