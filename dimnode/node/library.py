"""What this node offers: its models and its cabinets.

Rule: a model is its signed manifest; what others say of models is the registry's.
"""

import io
import logging
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio

from dimnode.errors import Refused, why_of
from dimnode.limits import LIMITS
from dimnode.node.begun import Begun
from dimnode.node.cabinets import Cabinets
from dimnode.node.composing import compose_or_refuse
from dimnode.node.for_others import ForOthers
from dimnode.node.model_card import ModelCard, body_of, check_card, check_sha256, gather_for
from dimnode.node.model_files import Gathered, SourceFile, format_of, gather_listed
from dimnode.node.model_orders import LocalModel
from dimnode.node.registry import Registry
from dimnode.p2p.blobs import PartOf
from dimnode.records.envelope import Record, SigningKey, seal
from dimnode.records.ids import BLOB_PREFIX, Cid, RecordId, cid_text, record_named
from dimnode.records.kinds import open_record
from dimnode.records.manifest import Manifest, file_roots, title_of
from dimnode.records.manifest_kinds import MANIFEST_VERSION
from dimnode.store.blob_book import Blob
from dimnode.store.blob_files import MODEL_PIN
from dimnode.store.blobs import BlobStore
from dimnode.store.hashing import Progress, silent
from dimnode.store.home import model_file
from dimnode.store.journal import Journal

log = logging.getLogger(__name__)

Keep = Callable[[Path, Progress], Blob]
"""How a file comes into the store."""
_FOR_OTHERS: Final = "others"
"""Why a model is here, in the journal: somebody else's job or wish had it fetched."""


class Library:
    """Read from the journal at start; additions are journalled before they are offered."""

    def __init__(self, home: Path, key: SigningKey, net: RecordId, journal: Journal, blobs: BlobStore) -> None:
        self._home, self._key, self._net, self._journal, self.blobs = home, key, net, journal, blobs
        self.models: dict[RecordId, LocalModel] = {}
        self._with: dict[Cid, set[RecordId]] = {}
        self.for_others = ForOthers(self._manifest_of, self._stands)
        self.cabinets = Cabinets(key, net, journal)
        self.registry = Registry(key.peer, net, journal)
        self.begun = Begun(journal, LIMITS.peers.models_begun_max)
        self._adding = trio.Lock()
        self._load()

    def _load(self) -> None:
        kept: set[str] = set()
        for manifest, why in self._journal.rows("SELECT manifest, sha256 FROM models"):
            envelope = self._journal.envelope(manifest)
            assert envelope is not None
            record = open_record(envelope, kind="manifest", check_signature=False)
            self.registry.keep(record)
            if why:
                kept.add(pin_of(record.id))
                self._note_why(record.id, why)
                self._take_over(record)
                try:
                    if not self.place(record) and record.id in self.for_others:
                        self._unpin_files(record)
                except Refused as no:  # a full disk, or as many pins as there may be: the node starts without it
                    log.warning("%s is not offered: %s", title_of(record), no)
        self._end_pins_but(kept)

    def _end_pins_but(self, kept: Container[str]) -> None:
        """Pins of models that the journal does not know as here: a process died between the two. They would stay."""
        for root, reasons in self.blobs.pins().items():
            for reason in reasons:
                theirs = reason.startswith(MODEL_PIN) and record_named(reason.removeprefix(MODEL_PIN)) is not None
                if theirs and reason not in kept:
                    with suppress(Refused):  # a full disk: the next start takes them away
                        self.blobs.unpin(root, reason)

    # ---- models

    def _take_over(self, record: Record) -> None:
        """Files that an older version kept in a folder of their own become blobs, without a copy.

        One that was changed or cannot be read stays where it is: its model is not offered, and the node starts.
        """
        for file in Manifest.of(record).files:
            old = model_file(self._home, file.root[len(BLOB_PREFIX) :].hex())
            if file.root.startswith(BLOB_PREFIX) and old.is_file():
                try:
                    self.blobs.take_over(old, whole=file.root)
                    old.unlink()
                except Refused as no:
                    log.warning("a file of %s is not taken over: %s", title_of(record), no)

    def place(self, record: Record) -> bool:
        """Offer a model if all its files are here; from now on they stay. Blocks: at the start only."""
        return self._settle(record, self._find_files(record))

    async def look_again(self, record: Record) -> bool:
        """The same while the node runs: files are looked for in a thread, what is offered changes in the loop alone.

        One that came for others and lacks a file is let go: what failed keeps no room of theirs.
        """
        found = self._settle(record, await trio.to_thread.run_sync(self._find_files, record))
        if not found and record.id in self.for_others:
            await self.drop(record.id)
        return found

    def _find_files(self, record: Record) -> LocalModel | None:
        found: dict[str, Path] = {}
        for file in Manifest.of(record).files:
            self.blobs.pin(file.root, pin_of(record.id))
            path = self.blobs.path(file.root)
            if path is not None:
                found[file.path] = path
        if len(found) < len(record.payload["files"]):
            return None
        return LocalModel(record, found, tuple(self.blobs.root_of(root) for root in file_roots(record)))

    def _settle(self, record: Record, found: LocalModel | None) -> bool:
        if found is None:
            self._displace(record)
            return False
        self.models[record.id] = found
        for root in (
            *file_roots(record),
            *found.roots,
        ):  # a file may go by two names: one of its bytes, one of its tree
            self._with.setdefault(root, set()).add(record.id)
        return True

    def _displace(self, record: Record) -> None:
        gone = self.models.pop(record.id, None)
        for root in (*file_roots(record), *(gone.roots if gone is not None else ())):
            of_root = self._with.get(root, set())
            of_root.discard(record.id)
            if not of_root:
                self._with.pop(root, None)

    def models_with(self, root: Cid) -> frozenset[RecordId]:
        """Models here that have this file."""
        return frozenset(self._with.get(root, ()))

    async def add_model(self, card: ModelCard, source: Path, at_ms: int, progress: Progress = silent) -> Record:
        """Copy the files into the store, sign the manifest, journal both. Raises `Refused` with what to mend."""
        check_card(card)
        check_place(source, self._home)
        # A gigabyte takes seconds to read: in a thread, or every peer would take this node for dead.
        async with self._adding:
            gathered = await trio.to_thread.run_sync(gather_for, source, card)
            return await self._add_model(card, gathered, self.blobs.add, at_ms, progress)

    async def add_uploads(
        self, card: ModelCard, files: Sequence[SourceFile], at_ms: int, progress: Progress = silent
    ) -> Record:
        """The same with files of this home's uploads, which become blobs without a copy."""
        check_card(card)
        async with self._adding:
            gathered = await trio.to_thread.run_sync(gather_listed, files)
            return await self._add_model(card, gathered, self.blobs.take_over, at_ms, progress)

    async def _add_model(
        self, card: ModelCard, gathered: Gathered, keep: Keep, at_ms: int, progress: Progress
    ) -> Record:
        chosen = card.format or format_of(gathered.files) or "onnx"
        if card.sha256:
            by_role = {file.role: file for file in reversed(gathered.files)}
            main = by_role.get("model") or by_role.get("weights") or gathered.files[0]  # as `Manifest.main`
            await trio.to_thread.run_sync(check_sha256, main.place, card.sha256)
        held: list[Cid] = []
        try:
            files = await trio.to_thread.run_sync(self._keep_files, gathered.files, keep, progress, held)
            return await self.publish(body_of(card, chosen, files), at_ms)
        finally:
            self.blobs.release(*held)

    def _keep_files(
        self, files: Sequence[SourceFile], keep: Keep, progress: Progress, held: list[Cid]
    ) -> list[list[Any]]:
        """Rows of the manifest. What was copied before a later file failed goes when room is needed."""
        sizes = [file.place.stat().st_size for file in files]
        total, before, rows = sum(sizes), 0, []
        if total > LIMITS.exec.model_bytes_max:
            most = f"a model has at most {LIMITS.exec.model_bytes_max >> 30} GiB"
            raise Refused("E-models-06", f"the model has {total} bytes", most, "one with fewer bits for each weight")
        for file, size in zip(files, sizes, strict=True):
            blob = keep(file.place, _part_of(progress, before, total))
            self.blobs.hold(blob.root)
            held.append(blob.root)
            rows.append([file.path, file.role, blob.root, blob.bytes])
            before += size
        return rows

    async def republish(self, card: ModelCard, form: str, files: list[list[Any]], at_ms: int) -> Record:
        """A manifest that says something else of files that are in the store. Raises `Refused`."""
        check_card(card)
        return await self.publish(body_of(card, form, files), at_ms)

    async def publish(self, body: dict[str, Any], at_ms: int) -> Record:
        """Sign a manifest, unless one of our own says the same, and offer the model. Its files are in the store.

        Raises `Refused` E-models-29 when one of them is not: then nothing is published.
        """
        record = self._published(body)
        if record is None:
            self._check_title(body["name"], body["version"])
            record = self._publish(body, at_ms)
        if await trio.to_thread.run_sync(self._find_files, record) is None:
            await trio.to_thread.run_sync(self._unpin_files, record)
        elif await self.keep(record):
            return record
        hint = "dim doctor; then the same again: a file that is here already takes no more room"
        raise Refused("E-models-29", f"a file of {title_of(record)} went missing", "it is gone from the disk", hint)

    async def keep(self, record: Record, *, for_others: bool = False) -> bool:
        """Journal and offer a model whose files are in the store; False when one is missing."""
        if for_others and record.id in self.models and record.id not in self.for_others:
            return True  # meanwhile its operator had it fetched, too: then it stays
        why = _FOR_OTHERS if for_others else "blobs"
        await self._journal.commit(
            {"records": [("manifest", record.id, b"", 0, 0, record.envelope)], "models": [(record.id, why)]}
        )
        self._note_why(record.id, why)
        self.registry.keep(record)
        if found := await self.look_again(record):
            self.begun.over(record.id)
        return found

    def _note_why(self, model: RecordId, why: str) -> None:
        (self.for_others.add if why == _FOR_OTHERS else self.for_others.discard)(model)

    @contextmanager
    def in_use(self, model: LocalModel) -> Iterator[None]:
        """Its files stay as long as the block runs, whatever is dropped or evicted meanwhile."""
        self.blobs.hold(*model.roots)
        try:
            yield
        finally:
            self.blobs.release(*model.roots)

    async def drop(self, model: RecordId) -> None:
        """Hold this model no longer. Its files go when room is needed, unless a job or something else keeps them."""
        record = self.registry.manifests[model]
        await self.begun.note(record, for_others=model in self.for_others)
        await self._journal.commit({"models": [(model, "")]})
        self._note_why(model, "")
        self._displace(record)
        with trio.CancelScope(shield=True):  # who asked may hang up now: nothing would take the pins away
            await trio.to_thread.run_sync(self._unpin_files, record)

    def _unpin_files(self, record: Record) -> None:
        for root in file_roots(record):
            self.blobs.unpin(root, pin_of(record.id))

    def usable(self) -> list[RecordId]:
        """Models that this node itself may run: none that its publisher took back."""
        return [identity for identity, model in self.models.items() if self._stands(model.manifest)]

    def chosen(self) -> list[RecordId]:
        """Models that this node's operator has here. What came because others wanted it decides no name."""
        return [identity for identity in self.models if identity not in self.for_others]

    def _stands(self, manifest: Record) -> bool:
        return self.registry.withdrawn(manifest.by, manifest.id) is None

    def _manifest_of(self, model: RecordId) -> Record | None:
        found = self.models.get(model)
        return None if found is None else found.manifest

    def offered(self) -> list[LocalModel]:
        """Models that others may hear of: none that is private, none that its publisher took back.

        Those that came for others stand last: there is not always room for all.
        """
        return [
            model
            for identity in sorted(self.usable(), key=self.for_others.__contains__)
            if (model := self.models[identity]).manifest.payload["access"] != "private"
        ]

    def small_file(self, cid: Cid) -> PartOf | None:
        """What belongs to a public model of this node beside its weights, for whoever asks: a tokenizer, say."""
        for record in (self.models[model].manifest for model in self.models_with(cid)):
            manifest = Manifest.of(record)
            for file in manifest.files if manifest.access == "public" and self._stands(record) else ():
                if file.root == cid and file != manifest.main and file.size_bytes <= LIMITS.peers.small_file_bytes_max:
                    return partial(self.blobs.read, cid)
        return None

    def kept_file(self, cid: Cid) -> bytes | None:
        """A small file of some model that is here."""
        blob = self.blobs.find(cid)
        return None if blob is None else self.blobs.read(cid, 0, blob.bytes)

    def keep_file(self, content: bytes) -> None:
        """Keep a small file of a peer's model, whose CID was checked."""
        self.blobs.add(io.BytesIO(content), name_whole=True)

    def _published(self, body: Mapping[str, Any]) -> Record | None:
        """The manifest of our own that says the same of the same files already.

        Another publisher's never counts: it could be taken back, and our model with it. To offer the same one, pull it.
        """
        first = {key: value for key, value in body.items() if key != "profile"}
        first["files"] = [[path, root, size] for path, _, root, size in body["files"]]
        for manifest in self.registry.manifests.values():
            if manifest.by != self._key.peer or not self._stands(manifest):
                continue
            said = body if manifest.version > 1 else first
            if all(manifest.payload.get(field) == value for field, value in said.items()):
                return manifest
        return None

    def _check_title(self, name: str, version: str) -> None:
        """Raises `Refused` E-models-34: of two of one name and version nobody could name the one that is meant."""
        for record in self.registry.manifests.values():
            said = record.payload
            mine = record.by == self._key.peer and (said["name"], said["version"]) == (name, version)
            if mine and self._stands(record):
                hint = f"dim models update {name} FILE --version …; or dim models withdraw {name}:{version}"
                what = f"{name}:{version} exists, and says something else"
                raise Refused("E-models-34", what, "other content or another card is another version", hint)

    def _publish(self, body: dict[str, Any], at_ms: int) -> Record:
        common = {"net": self._net, "by": self._key.peer, "at_ms": at_ms}
        what = "the model's card"
        _, payload = compose_or_refuse("manifest", common, body, "E-models-07", what, MANIFEST_VERSION)
        sealed = seal(self._key, "manifest", payload, MANIFEST_VERSION)
        return open_record(sealed, kind="manifest", check_signature=False)

    def advert_body(self) -> dict[str, Any]:
        """The parts of the advert that come from here."""
        models = [model.manifest.id for model in self.offered()]
        models = sorted(models, key=lambda identity: (identity in self.for_others, identity))[:256]
        return {"models": models, "cabinets": self.cabinets.told()}


def check_place(source: Path, home: Path) -> None:
    """Raises `Refused` for a node's own directory: its key would be published."""
    try:
        home, given = home.resolve(), source.resolve()
    except (OSError, ValueError) as error:
        raise Refused("E-models-05", f"cannot read {str(source)!r}", why_of(error), "check the path") from None
    if home.is_relative_to(given) or given.is_relative_to(home):
        what = f"{source} is, holds or is in this node's own directory"
        raise Refused("E-models-28", what, "its key would be published", "a folder of the model alone")


def _part_of(progress: Progress, before: int, total: int) -> Progress:
    """Progress of one file as progress of all."""
    return lambda done, _: progress(before + done, total)


def pin_of(model: RecordId) -> str:
    """Why the store keeps the files of a model."""
    return MODEL_PIN + cid_text(model)
