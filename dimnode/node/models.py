"""Models between nodes: what peers ask about them, how one is pulled, and what is fetched because a job names it.

Rule: what is fetched for others is bounded by what the operator allows. Who gets files from here says `model_leave.py`.
"""

import logging
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import suppress
from typing import Final

import trio

from dimnode.config import Config
from dimnode.errors import ConfigError, DimError, PeerFault, Refused
from dimnode.jobs.effects import Run
from dimnode.limits import Limits
from dimnode.node.clock import wall_ms
from dimnode.node.content import SHARED, Content
from dimnode.node.library import Library
from dimnode.node.model_leave import ModelLeave
from dimnode.node.registry import Registry
from dimnode.p2p.contain import contained
from dimnode.p2p.host.host import Host
from dimnode.p2p.host.streams import DialFailed, StreamLost
from dimnode.p2p.models import ask_about_model
from dimnode.records.access import FETCH
from dimnode.records.envelope import Record
from dimnode.records.ids import Cid, PeerId, RecordId, cid_text
from dimnode.records.kinds import open_record
from dimnode.records.manifest import Manifest, file_roots
from dimnode.store.blob_files import MODEL_PIN
from dimnode.store.vault import Vault

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
_BESIDE: Final = frozenset({"tokenizer", "labels", "config"})
"""Roles of files that many models share: that one is restricted says nothing of a tokenizer."""


class Models:
    """Made before the host; `attach` gives it one."""

    def __init__(self, library: Library, content: Content, vault: Vault, config: Config, limits: Limits) -> None:
        self._library, self._content, self._vault, self._limits = library, content, vault, limits.peers
        self._registry: Registry = library.registry
        self._config = config
        self.private = False
        self.leave = ModelLeave(library, limits.peers)
        self._pulling: dict[RecordId, tuple[Record, list[int]]] = {}
        self.adding: dict[str, tuple[int, int]] = {}
        self._for_others = 0
        self._host: Host | None = None
        self._nursery: trio.Nursery | None = None
        self.holders: Callable[[RecordId], list[PeerId]] = lambda _: []
        self.changed: Callable[[], None] = lambda: None
        self.fetched: Callable[[Run, Refused | None], None] = lambda _run, _problem: None
        content.rules.append(self.leave.may_fetch)
        content.server.owed = self.leave.owed
        content.holders.append(self._holders_of)

    def attach(self, host: Host, nursery: trio.Nursery) -> None:
        """Give it its host, and where fetches live."""
        self._host, self._nursery = host, nursery
        for model in self._library.offered():
            self.offer(model.manifest)

    # ---- what peers ask

    async def answer(self, peer: PeerId, word: str, model: RecordId, shown: Sequence[bytes]) -> bytes:
        """A question of `/dim/model/1`. Raises `Refused`."""
        match word:
            case "manifest":
                return self._told(model)
            case "permit":
                return self.leave.shown(peer, model, shown)
            case "warm":
                return self._warmed(peer, model, shown)
            case _:
                raise Refused("E-api-02", "this node does not know the question", "it is of a later version")

    def _told(self, model: RecordId) -> bytes:
        record = self._registry.manifests.get(model)
        if record is None or record.payload["access"] == "private":
            raise Refused("E-models-01", "no such manifest here", "")
        return record.envelope

    def _warmed(self, peer: PeerId, model: RecordId, shown: Sequence[bytes]) -> bytes:
        for envelope in shown:
            with suppress(PeerFault):
                record = open_record(envelope)
                if record.kind == "manifest" and record.id == model:
                    self._registry.hear(record, peer)
                elif record.kind == "grant":
                    self._registry.hear_notice(record, peer, journalled=False)
        if model in self._library.models:
            return b"here"
        if (no := self.fetch_problem(model, peer)) is not None:
            raise no
        assert self._nursery is not None
        self._for_others += 1  # now: more questions may come before the pull begins
        self._nursery.start_soon(contained, peer, self._pull_quietly, model, peer)
        return b"coming"

    async def _pull_quietly(self, model: RecordId, peer: PeerId) -> None:
        """For who asked: only what it may have itself, and only of a size that its manifest states and is allowed."""
        try:
            record = self._registry.manifests.get(model) or await self._manifest_from(model, [peer])
            access = self._registry.access(model, peer, FETCH, wall_ms())
            if (no := self._too_large(record) or self._no_room_for(record)) is not None:
                raise no
            if not access.allowed:
                raise Refused(access.code, access.cause, "")
            await self._pull_for_others(model, [peer])
        except DimError as error:
            log.info("a model that a peer asked for did not come: %s", error)
        finally:
            self._for_others -= 1

    async def _pull_for_others(self, model: RecordId, hints: Sequence[PeerId], evidence: Sequence[bytes] = ()) -> None:
        """The same within a time: few places are for others, and who drips bytes would hold one for ever."""
        with trio.move_on_after(self._limits.model_fetch_seconds_max) as deadline:
            await self.pull(model, hints, evidence, for_others=True)
        if deadline.cancelled_caught:
            raise Refused("E-models-39", "the model's files did not come in time", "what came stays", "", 1000)

    # ---- pulling

    def progress(self) -> list[dict[str, object]]:
        """What is added and pulled now: bytes so far and in all."""
        pulling = [(cid_text(model), Manifest.of(record).title, row) for model, (record, row) in self._pulling.items()]
        rows = [("pull", name, title, *row) for name, title, row in pulling]
        rows += [("add", name, "", *row) for name, row in self.adding.items()]
        return [{"what": a, "name": b, "title": c, "bytes": done, "of": of} for a, b, c, done, of in rows]

    async def pull(
        self,
        model: RecordId,
        hints: Sequence[PeerId] = (),
        evidence: Sequence[bytes] = (),
        *,
        for_others: bool = False,
    ) -> Record:
        """Have a model's files here and offer it. Raises `Refused`; what came until then stays for the next time.

        evidence: a lease and its spec, by which the files may come though this node has no grant.
        """
        record = self._registry.manifests.get(model)
        if record is None:
            record = await self._manifest_from(model, hints)
        if model in self._library.models:
            if not for_others and model in self._library.for_others:
                await self._library.keep(record)
            return record
        manifest = Manifest.of(record)
        peers = list(dict.fromkeys([*hints, *self.holders(model), manifest.by]))
        await self._check_claim(manifest, for_others)
        if manifest.access != "public":
            await self._library.begun.note(record, for_others=for_others)
            await self._show(manifest, peers, evidence)
        row = [0, manifest.size_bytes]
        self._pulling[model] = record, row
        held: list[Cid] = []  # not pinned before all is here: what a stranger only began must not stay for ever
        try:
            for file in manifest.files:
                await self._content.fetch(file.root, file.size_bytes, peers, _counting(row, row[0]))
                held.append(await trio.to_thread.run_sync(self._content.store.root_of, file.root))
                self._content.store.hold(held[-1])
                row[0] = sum(file.size_bytes for file in manifest.files[: len(held)])
            await self._check_claim(manifest, for_others)
            if for_others:
                await trio.to_thread.run_sync(self._check_pins, manifest)
                await self._make_room(manifest.size_bytes)
            if not await self._library.keep(record, for_others=for_others):
                raise Refused("E-models-29", f"a file of {manifest.title} went missing", "", "dim models pull MODEL")
        finally:
            self._pulling.pop(model, None)
            self._content.store.release(*held)
        self.offer(record)
        self.changed()
        return record

    async def _check_claim(self, manifest: Manifest, for_others: bool) -> None:
        """Raises `Refused` E-models-38 for a manifest that opens what another publisher keeps closed.

        Manifests tell everybody the roots of restricted files. Whoever names them in a public manifest of its own,
        and has it fetched where they are, would have them handed out by a rule that their publisher never made.
        """
        roots = await trio.to_thread.run_sync(self._roots_of, manifest)
        for root, theirs in (*self._guarded(roots), *(self._guarded_parts(roots) if for_others else ())):
            if theirs.access == "public" or theirs.by == manifest.by:
                continue
            if not self._registry.access(theirs.id, manifest.by, FETCH, wall_ms()).allowed:
                cause = f"{cid_text(root)} is a file of {theirs.title}, which is {theirs.access}"
                what = f"{manifest.title} names another publisher's file"
                raise Refused("E-models-38", what, cause, f"dim models rm {theirs.title}, if it is not needed")

    def _guarded(self, roots: Set[Cid]) -> Iterator[tuple[Cid, Manifest]]:
        """Models here with one of these files, but for what lies beside weights."""
        for root in roots:
            for other in self._library.models_with(root):
                theirs = Manifest.of(self._registry.manifests[other])
                files = zip(theirs.files, self._library.models[other].roots, strict=True)
                if any(kept == root and file.role not in _BESIDE for file, kept in files):
                    yield root, theirs

    def _guarded_parts(self, roots: Set[Cid]) -> Iterator[tuple[Cid, Manifest]]:
        """The same of closed models of which this node has begun to fetch, or got, a part, or which it let go.

        Who only begins one keeps nobody but others from the files: what the operator wants is the operator's to say.
        """
        for begun in self._library.begun:
            for file in begun.files:
                if file.root in roots and file.role not in _BESIDE:
                    yield file.root, begun

    def _roots_of(self, manifest: Manifest) -> set[Cid]:
        """Its files by both names that the store may know. Blocks."""
        return {root for file in manifest.files for root in (file.root, self._content.store.root_of(file.root))}

    def _check_pins(self, manifest: Manifest) -> None:
        """The same for what the operator keeps for itself: a stranger's manifest does not make it a public file."""
        for file in manifest.files:
            reasons = [reason for of_root in self._content.store.pins(file.root).values() for reason in of_root]
            if any(reason != SHARED and not reason.startswith(MODEL_PIN) for reason in reasons):
                cause = f"{cid_text(file.root)} is pinned here for another reason, and not shared"
                hint = "its operator can: dim models pull, or dim blobs pin CID --share"
                raise Refused("E-models-38", f"{manifest.title} names a blob of this node's own", cause, hint)

    async def _manifest_from(self, model: RecordId, peers: Sequence[PeerId]) -> Record:
        assert self._host is not None
        for peer in peers:
            with suppress(DimError, PeerFault, DialFailed, StreamLost):
                record = open_record(await ask_about_model(self._host, peer, "manifest", model), kind="manifest")
                if record.id == model:
                    self._registry.hear(record, peer)
                    return record
        raise Refused("E-models-01", "no manifest of this model was heard here", "", "dim models ls")

    async def _show(self, manifest: Manifest, peers: Sequence[PeerId], evidence: Sequence[bytes]) -> None:
        """Show each holder by what this node may have the files. Raises `Refused` when none lets it."""
        me, refusal = self._registry.me, None
        grants = [grant.envelope for grant in self._registry.grants(manifest.by, manifest.id, me)]
        shown = [*grants[-self._limits.grants_per_frame_max :], *evidence]
        assert self._host is not None
        for peer in peers[: self._limits.model_holders_asked_max]:
            try:
                await ask_about_model(self._host, peer, "permit", manifest.id, shown)
            except Refused as no:
                refusal = no
            except (PeerFault, DialFailed, StreamLost) as error:
                log.debug("a holder did not answer: %s", error)
            else:
                return
        if refusal is not None:
            said = refusal.complaint
            hint = f"its publisher can: dim models grant {manifest.title} PEER, this node's peer id in dim status"
            raise Refused(said.code, f"nobody hands out {manifest.title}", said.cause, hint)
        raise Refused("E-models-30", f"no holder of {manifest.title} can be reached", "", "dim peers", 1000)

    # ---- what jobs name

    def fetch_problem(self, model: RecordId, asker: PeerId) -> Refused | None:
        """Why this node does not fetch a model that somebody needs here; None when it does."""
        record = self._registry.manifests.get(model)
        allowed = self._config.fetch_models
        own = asker == self._registry.me
        if allowed == "never" or not (own or allowed == "anyone" or (allowed == "members" and self.private)):
            what = "this node fetches no models for others" if allowed != "never" else "this node fetches no models"
            return Refused("E-models-31", what, "fetch_models in its settings", "ask a peer that has the model")
        if record is not None and (no := self._too_large(record)) is not None:
            return no
        if not own and (no := self._no_room_for(record)) is not None:
            return no
        if self._for_others >= self._limits.model_fetches_max and not own:
            return Refused("E-models-33", "this node is fetching models already", "", "", 1000)
        return None

    def _no_room(self, more_bytes: int, gone: int = 0) -> Refused | None:
        """They stay, each with a pin, a record and a place in the advert: without bounds they would fill all three."""
        there = self._library.for_others
        full = there.count - gone >= self._limits.models_for_others_max
        if not full and there.bytes + more_bytes <= self._content.store.bytes_max:
            return None
        cause = "they are as many as it takes, or have max_cache_gb together, and each was needed lately"
        return Refused("E-models-40", "this node keeps as many models for others as it may", cause)

    def _no_room_for(self, record: Record | None) -> Refused | None:
        """When all has gone that may."""
        size_bytes = Manifest.of(record).size_bytes if record is not None else 0
        there = self._library.for_others
        return self._no_room(size_bytes - there.spare_bytes, len(there.spare()))

    async def _make_room(self, size_bytes: int) -> None:
        """Let go of models that came for others and that nobody needs, as many as it takes. Raises `Refused`.

        Asked when the new one is here whole: who only begins fetches displaces nothing.
        """
        for model in self._library.for_others.spare():
            if self._no_room(size_bytes) is None:
                return
            if (found := self._library.models.get(model)) is not None:
                await self._library.drop(model)
                self.offer_no_more(found.manifest)
        if (no := self._no_room(size_bytes)) is not None:
            raise no

    def _too_large(self, record: Record) -> Refused | None:
        if Manifest.of(record).size_bytes <= self.bytes_max:
            return None
        cause = f"at most {self.bytes_max} bytes"
        return Refused("E-models-32", "the model is larger than what this node fetches for a job", cause)

    @property
    def bytes_max(self) -> int:
        """The largest model that is fetched for a job."""
        return int(self._config.fetch_model_gb_max * 1024**3)

    def fetches_bytes(self, *, own: bool) -> int:
        """For the advert: up to which size models are fetched for others; 0: not at all."""
        allowed = self._config.fetch_models
        open_to = own or allowed == "anyone" or (allowed == "members" and self.private)
        return self.bytes_max if allowed != "never" and open_to else 0

    def begin(self, run: Run) -> None:
        """A lease names a model that is not here; `fetched` follows."""
        assert self._nursery is not None
        shown = [found for identity in (run.lease, run.key[0]) if (found := self._vault.get(identity)) is not None]
        self._nursery.start_soon(self._fetch_and_tell, run, shown)

    async def _fetch_and_tell(self, run: Run, shown: Sequence[bytes]) -> None:
        problems: list[Refused] = []
        await contained(run.owner, self._try_for_job, run, shown, problems)
        self.fetched(run, problems[0] if problems else None)  # a run waits for this, whatever went wrong

    async def _try_for_job(self, run: Run, shown: Sequence[bytes], problems: list[Refused]) -> None:
        try:
            await self.for_job(run, shown)
        except (Refused, ConfigError) as no:  # a damaged book of blobs is the operator's to mend, and ends no node
            said = no.complaint
            problems.append(no if isinstance(no, Refused) else Refused(said.code, said.what, said.cause, said.hint))

    async def for_job(self, run: Run, evidence: Sequence[bytes]) -> None:
        """Fetch the model of a run whose lease is here. Raises `Refused` with why somebody else should do it."""
        assert run.model is not None
        own = run.owner == self._registry.me
        if run.model not in self._registry.manifests:
            await self._manifest_from(run.model, [run.owner])
        if (no := self.fetch_problem(run.model, run.owner)) is not None:
            raise no
        access = self._registry.access(run.model, run.submitter, FETCH, wall_ms())
        if not access.allowed:
            raise Refused(access.code, access.cause, "")
        self._for_others += not own
        try:
            if own:
                await self.pull(run.model, (), evidence)
            else:
                await self._pull_for_others(run.model, (run.owner,), evidence)
        finally:
            self._for_others -= not own

    # ---- parts

    def _holders_of(self, root: Cid) -> list[PeerId]:
        found: dict[PeerId, None] = {}
        for model, (record, _) in self._pulling.items():  # its manifest may be displaced meanwhile: strangers tell many
            if root in file_roots(record):
                found.update(dict.fromkeys(self.holders(model)))
        return list(found)

    def offer(self, record: Record) -> None:
        """Tell the DHT of a model's files: only roots, and only of what anybody may hear of."""
        if record.payload["access"] != "private":
            for root in file_roots(record):
                self._content.announce(root)

    def offer_no_more(self, record: Record) -> None:
        """No more announcements of files that no other model here has."""
        for root in file_roots(record):
            if not self._library.models_with(root):
                self._content.withdraw(root)


def _counting(row: list[int], before: int) -> Progress:
    def count(done: int, _: int) -> None:
        row[0] = before + done

    return count
