"""An operator's Kubo daemon beside the node: public models and receipts go there, blobs are found there, a name points
to the index of what this node publishes.

Rule: the node never waits for the daemon and needs nothing from it. What is not public never goes there. What could not
be done is tried again; what the daemon will not take is said, and the rest goes on.
"""

import io
import logging
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import trio

from dimnode.audit.redact import redact
from dimnode.config import KuboConfig
from dimnode.errors import Complaint, DimError, Refused
from dimnode.limits import LIMITS, KuboLimits
from dimnode.node.block_fetch import Tell
from dimnode.node.kubo_fetch import KuboFetch
from dimnode.node.kubo_index import index_of
from dimnode.records.envelope import Record
from dimnode.records.ids import Cid, PeerId, RecordId, blob_cid, cid_bytes, cid_text, peer_text, short
from dimnode.records.manifest import Manifest
from dimnode.records.unixfs import LEAF_BYTES
from dimnode.store.blobs import BlobStore
from dimnode.store.kubo import Daemon, Kubo, open_kubo
from dimnode.store.kubo_notes import KuboNotes, load_notes, save_notes

log = logging.getLogger(__name__)

_OFTEN: Final = frozenset({"E-kubo-03", "E-kubo-04", "E-kubo-05", "E-jobs-24"})
"""The daemon's state, not that of what it was given: everything waits, and is tried again."""


class Offers(Protocol):
    """What of this node may go there."""

    def models(self) -> Sequence[Record]:
        """Manifests of the public models that are here and were not withdrawn."""

    def receipts(self, after: int, most: int) -> Sequence[tuple[int, RecordId, bool]]:
        """Jobs of this node that ended after a row of the journal: (row, job, whether its swarm may know of it)."""

    def last_receipt(self) -> int:
        """The newest such row."""

    def receipt(self, job: RecordId) -> bytes:
        """Raises `Refused`."""


@dataclass(slots=True)
class _Look:
    """How the daemon was found last."""

    at: float = 0.0
    daemon: Daemon | None = None
    problem: Complaint | None = None


class KuboBridge:
    """One for a node; without `api` in its settings it does nothing."""

    def __init__(
        self,
        config: KuboConfig,
        home: Path,
        publisher: PeerId,
        net: RecordId,
        blobs: BlobStore,
        offers: Offers,
        *,
        private: bool,
        limits: KuboLimits = LIMITS.kubo,
    ) -> None:
        """`private`: the node is in a private swarm."""
        self._config, self._home, self._publisher, self._net = config, home, publisher, net
        self._blobs, self._offers, self._limits = blobs, offers, limits
        self.silent = private and not config.private_swarm
        self._notes = KuboNotes()
        self._kubo: Kubo | None = None
        self._look = _Look()
        self._refused: dict[str, Complaint] = {}
        self._now = trio.Event()
        self._turn = trio.Lock()

    @property
    def on(self) -> bool:
        """Whether a daemon is configured."""
        return bool(self._config.api)

    # ---- life

    @asynccontextmanager
    async def opened(self) -> AsyncIterator["KuboBridge"]:
        """Raises `ConfigError` E-kubo-01 when its packages are not installed."""
        if not self.on:
            yield self
            return
        self._notes = await trio.to_thread.run_sync(load_notes, self._home, self._limits)
        if self._notes.receipts_after < 0:
            # What was done before is the operator's to push.
            self._notes.receipts_after = self._offers.last_receipt()
            await self._save()
        async with open_kubo(self._config.api, self._limits, network=self._config.fetch == "network") as kubo:
            self._kubo = kubo
            try:
                yield self
            finally:
                self._kubo = None

    async def run(self) -> None:
        """Until cancelled: look what is missing there, and add it."""
        wait_seconds = self._limits.look_seconds_min
        while self.on:
            try:
                await self.round()
                wait_seconds = self._limits.look_seconds_min
            except DimError as no:  # also a damaged book of blobs, which is the operator's to mend
                log.info("kubo: %s", no)
                wait_seconds = min(wait_seconds * 2, self._limits.look_seconds_max)
            with trio.move_on_after(wait_seconds):
                await self._now.wait()
            self._now = trio.Event()

    def news(self) -> None:
        """There may be something to add."""
        self._now.set()

    async def round(self, *, again: bool = False) -> list[str]:
        """Add what is missing; what was added. `again`: compare with the daemon, not with notes, and renew the name.

        Raises `Refused`: the daemon cannot be used now.
        """
        async with self._turn:
            await self._check()
            if self.silent:
                return []
            added = await self._add_models(again) if self._config.models else []
            added += await self._add_receipts() if self._config.receipts != "off" else []
            if self._config.name:
                await self._name(again)
            return added

    async def _check(self) -> Daemon:
        try:
            found = await self._daemon().daemon()
        except Refused as no:
            self._look = _Look(time.monotonic(), None, no.complaint)
            raise
        self._look = _Look(time.monotonic(), found)
        return found

    def _daemon(self) -> Kubo:
        if self._kubo is None:
            hint = 'api = "/ip4/127.0.0.1/tcp/5001" under [kubo] in config.toml, then restart the node'
            raise Refused("E-kubo-10", "no Kubo daemon is configured", "", hint)
        return self._kubo

    def _failed(self, what: str, no: Refused) -> None:
        """One thing that the daemon did not take; raises again when it takes nothing now."""
        if no.complaint.code in _OFTEN:
            self._look.problem = no.complaint
            raise no
        if len(self._refused) < self._limits.waiting_max:
            self._refused[what] = no.complaint
        log.warning("kubo: %s was not added: %s", what, no)

    # ---- models

    async def _add_models(self, again: bool) -> list[str]:
        wanted: set[str] = set()
        added = []
        for record in self._offers.models()[: self._limits.waiting_max]:
            manifest = Manifest.of(record)
            what = _title(manifest)
            files = await trio.to_thread.run_sync(self._roots, manifest)
            roots = [cid_text(root) for root in (*files, blob_cid(record.envelope))]
            wanted.update(roots)
            if what in self._refused or (not again and all(root in self._notes.pinned for root in roots)):
                continue
            try:
                if await self._add_model(record, files):
                    added.append(what)
            except Refused as no:
                self._failed(what, no)
                continue
            await self._note_pins([*self._notes.pinned, *roots])
        for root in [root for root in self._notes.pinned if root not in wanted]:
            await self._daemon().unpin(_cid(root))
            await self._note_pins([kept for kept in self._notes.pinned if kept != root])
        return added

    def _roots(self, manifest: Manifest) -> list[Cid]:
        """Of its files as trees: a manifest of version 1 names a large file by the hash of its bytes. Blocks."""
        found = [(file.root, self._blobs.find(file.root)) for file in manifest.files]
        return [blob.root if blob is not None else root for root, blob in found]

    async def _add_model(self, record: Record, files: Sequence[Cid]) -> bool:
        """Files first, then the manifest. What is there is not sent again; False when all was there."""
        kubo, envelope = self._daemon(), blob_cid(record.envelope)
        sent = [root for root in files if not await kubo.pinned(root)]
        for root in sent:
            await self._add_blob(root)
        if await kubo.pinned(envelope):
            return bool(sent)
        await kubo.add_bytes(record.envelope)
        return True

    async def _add_blob(self, root: Cid) -> None:
        self._blobs.hold(root)
        try:
            tree = await trio.to_thread.run_sync(self._blobs.tree, root)
            path = await trio.to_thread.run_sync(self._blobs.path, root)
            if tree is None or path is None:
                raise Refused("E-kubo-12", "the content is not here", cid_text(root), f"dim blobs get {cid_text(root)}")
            await self._daemon().add(tree, path)
        finally:
            self._blobs.release(root)

    async def _note_pins(self, pinned: list[str]) -> None:
        kept = list(dict.fromkeys(pinned))[-self._limits.pins_noted_max :]
        if kept != self._notes.pinned:
            self._notes.pinned = kept
            await self._save()

    # ---- receipts

    async def _add_receipts(self) -> list[str]:
        added = []
        while rows := self._offers.receipts(self._notes.receipts_after, self._limits.receipts_at_once):
            for row, job, open_to_all in rows:
                if open_to_all:
                    try:
                        await self._add_receipt(job)
                        added.append(f"receipt of {cid_text(job)}")
                    except Refused as no:
                        self._failed(f"receipt of {cid_text(job)}", no)
                self._notes.receipts_after = row
            await self._save()
        return added

    async def _add_receipt(self, job: RecordId) -> Cid:
        """One that is there already is not sent again."""
        kubo, raw = self._daemon(), await trio.to_thread.run_sync(self._offers.receipt, job)
        if self._config.receipts == "redacted":
            raw = await trio.to_thread.run_sync(redact, raw)
        small = len(raw) <= LEAF_BYTES
        # A file of several leaves lies in the store for as long as there is room.
        root = blob_cid(raw) if small else (await trio.to_thread.run_sync(self._blobs.add, io.BytesIO(raw))).root
        if await kubo.pinned(root):
            return root
        if small:
            await kubo.add_bytes(raw)
        else:
            await self._add_blob(root)
        self._notes.receipts += 1
        return root

    # ---- the name

    async def _name(self, again: bool) -> None:
        """Only when the index changed, or the name would soon end."""
        records = [record for record in self._offers.models() if record.by == self._publisher]
        pairs = [(Manifest.of(record), record.envelope) for record in records]
        pairs = [pair for pair in pairs if _title(pair[0]) not in self._refused]
        if not pairs and not self._notes.name:
            return
        content, before = index_of(self._publisher, self._net, pairs), self._notes.index
        age_seconds = time.time() - self._notes.named_at_ms / 1000
        young = 0 <= age_seconds < self._limits.name_renew_seconds
        if cid_text(blob_cid(content)) == before and young and not again:
            return
        kubo = self._daemon()
        index = await kubo.add_bytes(content)
        key = f"dim-{peer_text(self._publisher)}"
        await kubo.key(key)
        self._notes.name = await kubo.publish(key, index, self._limits.name_seconds_valid)
        self._notes.index, self._notes.named_at_ms = cid_text(index), time.time_ns() // 1_000_000
        await self._save()
        if before and before != self._notes.index:
            await kubo.unpin(_cid(before))

    async def _save(self) -> None:
        await trio.to_thread.run_sync(save_notes, self._home, self._notes)

    # ---- for people

    async def push_job(self, job: RecordId, open_to_all: bool) -> str:
        """Add one receipt now; its CID. Raises `Refused` E-kubo-11 for a job that is its participants' own."""
        await self._check()
        if self.silent or not open_to_all or self._config.receipts == "off":
            cause = "it is in a private swarm" if self.silent else "the settings, or the job's visibility, say so"
            raise Refused("E-kubo-11", "this receipt does not go to the public network", cause, "docs/kubo.md")
        return cid_text(await self._add_receipt(job))

    async def push_all(self) -> list[str]:
        """Everything once more, also what was refused before, and the name anew."""
        if self.silent:
            cause = "this node is in a private swarm, and what a daemon holds the public network can ask it for"
            raise Refused("E-kubo-11", "nothing is added from here", cause, "private_swarm = true in [kubo]")
        self._refused.clear()
        return await self.round(again=True)

    async def look(self) -> Mapping[str, Any]:
        """`status` after asking the daemon."""
        if self.on:
            try:
                await self._check()
            except Refused:
                pass
        return self.status()

    def status(self) -> Mapping[str, Any]:
        """What is known without asking anybody."""
        daemon, problem = self._look.daemon, self._look.problem
        return {
            "api": self._config.api,
            "daemon": f"{daemon.kind} {daemon.version}" if daemon else "",
            "problem": _words(problem) if problem else None,
            "silent": self.silent,
            "pinned": len(self._notes.pinned),
            "receipts": self._notes.receipts,
            "refused": {what: _words(complaint) for what, complaint in self._refused.items()},
            "name": f"/ipns/{self._notes.name}" if self._notes.name else "",
            "index": self._notes.index,
            "fetch": self._config.fetch,
        }

    async def take(self, root: Cid, size_bytes: int | None, tell: Tell) -> bool:
        """Whether the blob came from there: a source of `Content`. See `KuboFetch.fetch`."""
        if self._kubo is None or self._config.fetch == "off":
            return False
        if self.silent and self._kubo.looks_further:  # its peers would hear what a private swarm looks for
            return False
        return await KuboFetch(self._kubo, self._blobs, self._limits).fetch(root, size_bytes, tell)


def _title(manifest: Manifest) -> str:
    return f"{manifest.title} (…{short(manifest.id)})"


def _cid(text: str) -> Cid:
    return Cid(cid_bytes(text))


def _words(complaint: Complaint) -> Mapping[str, str]:
    return {"code": complaint.code, "what": complaint.what, "cause": complaint.cause, "hint": complaint.hint}
