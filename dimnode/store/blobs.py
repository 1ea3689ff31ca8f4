"""The blob store: immutable bytes by CID, each one flat file that can be mapped, with its tree of hashes beside it.

Rule: a file has a blob's name only when every byte of it was hashed on its way in. What is pinned, held or
coming now is never evicted; of the rest the least recently used goes first.
Everything here blocks and may be called from any thread.
"""

import logging
import os
import shutil
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from dimnode.errors import PeerFault, Refused
from dimnode.limits import LIMITS, StoreLimits
from dimnode.posix.files import NO_LINK, fchmod
from dimnode.records.ids import Cid, cid_text
from dimnode.records.unixfs import Layout, Tree, read_tree, single_leaf
from dimnode.store import blob_files as files
from dimnode.store.blob_book import Blob, BlobBook, no_blob
from dimnode.store.blob_reader import Reader, StoreStat
from dimnode.store.blob_scan import left_parts, scan, sweep_rests
from dimnode.store.hashing import Progress, check_size, hash_stream, silent
from dimnode.store.part import Part

log = logging.getLogger(__name__)


class BlobStore:
    """The folder and the book. Use as a context manager."""

    def __init__(self, home: Path, bytes_max: int, limits: StoreLimits = LIMITS.store) -> None:
        self._home, self.bytes_max, self._limits = home, bytes_max, limits
        self.folder = files.open_folder(home)
        self._book = BlobBook(home, limits)
        self._lock = threading.RLock()
        self._holding = threading.Lock()  # only ever for a moment: `hold` is called in the loop
        self._held: Counter[Cid] = Counter()
        self._used_ms: dict[Cid, int] = {}
        self._parts: dict[Cid, Part] = {}
        self.found = scan(self.folder, self._book, limits)
        self.damaged = dict.fromkeys(self.found.damaged)
        """Blobs whose files were altered: they are gone from here, and people are told why; the first ones."""

    def __enter__(self) -> "BlobStore":
        return self

    def __exit__(self, *_: object) -> None:
        for part in list(self._parts.values()):
            part.close()
        self._note_used()
        self._book.close()

    # ---- adding

    def add(
        self, source: Path | BinaryIO, progress: Progress = silent, *, pin: str = "", name_whole: bool = False
    ) -> Blob:
        """Copy a file, or a stream to its end, into the store. `name_whole`: the plain CID of its bytes means it, too.

        Raises `Refused`: E-store-31 full, -32 no plain file, -33 too large. What was copied until then is removed.
        """
        if isinstance(source, Path):
            with os.fdopen(files.open_source(source), "rb", buffering=0) as file:
                size_bytes = os.fstat(file.fileno()).st_size
                check_size(size_bytes, self._limits.blob_bytes_max)
                self.make_room(size_bytes)
                return self._add(file, progress, pin, name_whole)
        return self._add(source, progress, pin, name_whole)

    def _add(self, file: BinaryIO, progress: Progress, pin: str, name_whole: bool) -> Blob:
        draft = self.folder / (os.urandom(8).hex() + files.ADDING)
        descriptor = -1
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_LINK
            descriptor = os.open(draft, flags, 0o600)
            most = self._limits.blob_bytes_max
            tree, whole = hash_stream(file, most, progress, descriptor, self._room_for, whole=name_whole)
            return self._settle(tree, draft, descriptor, pin, whole)
        except OSError as error:
            raise files.refusal_of(error, "the blob cannot be kept") from None
        finally:
            if descriptor >= 0:
                os.close(descriptor)
            draft.unlink(missing_ok=True)

    def take_over(self, path: Path, progress: Progress = silent, *, pin: str = "", whole: Cid | None = None) -> Blob:
        """A file of this home becomes a blob without a copy: one more name for the same bytes, read-only from now on.

        whole: the plain CID of its bytes, which is checked. Raises as `add`; E-store-35 when the bytes are others.
        """
        known = self._book.named(whole) if whole is not None else None
        if known is not None and (found := self.find(known)) is not None:
            self._pin(found.root, pin)
            return found
        link = self.folder / (os.urandom(8).hex() + files.ADDING)
        with os.fdopen(files.open_source(path), "rb", buffering=0) as file:
            tree, digest = hash_stream(file, self._limits.blob_bytes_max, progress, whole=True)
            if whole is not None and digest != whole:
                raise Refused(
                    "E-store-35", f"{path} is not what its name says", "it was changed", "add the model again"
                )
            try:
                if not files.linked(path, link, file.fileno()):
                    return self.add(path, progress, pin=pin, name_whole=True)
                return self._settle(tree, link, file.fileno(), pin, digest)
            except OSError as error:
                raise files.refusal_of(error, "the blob cannot be kept") from None
            finally:
                link.unlink(missing_ok=True)

    def _settle(self, tree: Tree, draft: Path, descriptor: int, pin: str, whole: Cid | None) -> Blob:
        """The bytes are there and hashed: give them their name, then a row."""
        fchmod(descriptor, 0o400)
        os.fsync(descriptor)
        with self._lock:
            blob = self.find(tree.root)
            if blob is None:
                if tree.nodes:
                    files.write_nodes(self._tree_path(tree.root), tree.nodes)
                os.replace(draft, self._flat_path(tree.root))
                files.sync_folder(self.folder)
                self.damaged.pop(tree.root, None)
                blob = self._book.put(tree.root, tree.file_bytes, os.fstat(descriptor).st_mtime_ns, _now_ms())
            if whole is not None and whole != tree.root:
                self._book.name(whole, tree.root)
            self._pin(tree.root, pin)
        return blob

    def _pin(self, root: Cid, pin: str) -> None:
        if pin:
            self._book.pin(root, pin)

    # ---- what is here

    def find(self, cid: Cid) -> Blob | None:
        """A whole blob by its root, or by the plain CID of a file that was taken over."""
        blob = self._row(cid)
        if blob is None or self._stands(blob):
            return blob
        with self._lock:  # between the row and the look at its file another thread may have put both anew
            blob = self._row(cid)
            if blob is None or self._stands(blob):
                return blob
            log.warning("the file of %s was changed or removed: it counts no more", cid_text(blob.root))
            self._drop_damaged(blob.root)
            return None

    def _row(self, cid: Cid) -> Blob | None:
        blob = self._book.find(cid)
        if blob is None and (root := self._book.named(cid)) is not None:
            blob = self._book.find(root)
        return blob

    def _stands(self, blob: Blob) -> bool:
        said = files.plain(self._flat_path(blob.root))
        return said is not None and (said.st_size, said.st_mtime_ns) == (blob.bytes, blob.file_ns)

    def path(self, cid: Cid) -> Path | None:
        """Its flat file: complete, read-only, to be opened or mapped."""
        blob = self.find(cid)
        return None if blob is None else self._flat_path(blob.root)

    def tree(self, root: Cid) -> Tree | None:
        """The hashes of a blob that is here, whole or in part."""
        with self._lock:
            part = self._parts.get(root)
        if part is not None:
            return part.tree
        blob = self.find(root)
        if blob is None:
            return self._tree_of_part(root)
        if not Layout(blob.bytes).is_tree:
            return single_leaf(blob.root, blob.bytes)
        return self._read_tree(blob.root)

    def _read_tree(self, root: Cid) -> Tree | None:
        try:
            return read_tree(root, files.read_nodes(self._tree_path(root), self._nodes_max))
        except (OSError, PeerFault):
            pass
        blob = self._book.find(root)
        if blob is None:
            return None
        try:  # the index is lost: the bytes say all that it said
            with os.fdopen(files.open_plain(self._flat_path(root)), "rb", buffering=0) as file:
                tree = hash_stream(file, self._limits.blob_bytes_max)[0]
        except OSError as error:  # too many open files, say: no reason to throw the blob away
            log.warning("the file of %s cannot be read now: %s", cid_text(root), error)
            return None
        if tree.root != root:
            log.warning("the file of %s is damaged: it counts no more", cid_text(root))
            self._drop_damaged(root)
            return None
        with suppress(OSError):  # a full disk: it is made once more the next time
            files.write_nodes(self._tree_path(root), tree.nodes)
        return tree

    @property
    def _nodes_max(self) -> int:
        return len(Layout(self._limits.blob_bytes_max).places())

    def _tree_of_part(self, root: Cid) -> Tree | None:
        try:
            return read_tree(root, files.read_nodes(self._tree_path(root), self._nodes_max))
        except (OSError, PeerFault):
            return None

    def reader(self, root: Cid) -> Reader | None:
        """To serve its leaves: a whole blob, or one that is coming in now."""
        try:
            with self._lock:
                part = self._parts.get(root)
                if part is not None:
                    return Reader(part.tree, files.open_plain(part.path), part.have)
            tree = self.tree(root) if self.find(root) is not None else None
            return None if tree is None else Reader(tree, files.open_plain(self._flat_path(tree.root)), None)
        except OSError:
            return None

    def read(self, cid: Cid, offset: int, size: int) -> bytes:
        """A range of bytes, cut off at the end. Raises `Refused` E-store-34 when it is not here."""
        blob = self.find(cid)
        if blob is None:
            raise self._missing(cid)
        try:
            descriptor = files.open_plain(self._flat_path(blob.root))
        except OSError:
            raise self._missing(cid) from None
        try:
            return files.read_at(descriptor, offset, max(0, min(size, blob.bytes - offset)))
        except OSError as error:
            raise files.refusal_of(error, "the blob cannot be read") from None
        finally:
            os.close(descriptor)

    def verify(self, cid: Cid, progress: Progress = silent) -> bool:
        """Hash it all again; what does not hold is removed, and False."""
        blob = self.find(cid)
        if blob is None:
            raise self._missing(cid)
        with os.fdopen(files.open_plain(self._flat_path(blob.root)), "rb", buffering=0) as file:
            holds = hash_stream(file, self._limits.blob_bytes_max, progress)[0].root == blob.root
        if not holds:
            self._drop_damaged(blob.root)
        return holds

    def all(self) -> list[Blob]:
        """The least recently used first."""
        self._note_used()
        return self._book.all()

    # ---- what is coming

    def part(self, tree: Tree, progress: Progress = silent) -> Part:
        """Begin, or take up again, a blob of this tree. Close, discard or `finish` it. Raises `Refused`."""
        with self._lock:
            assert tree.root not in self._parts, "one fetch per root"
            if len(self._parts) >= self._limits.blob_parts_open_max:
                raise Refused("E-store-40", "too many blobs come in at once", "", "later", 1000)
            path = self.folder / (files.name_of(tree.root) + files.PART)
            said = files.plain(path)
            self.make_room(max(0, tree.file_bytes - (said.st_blocks * 512 if said else 0)), tree.root)
            if tree.nodes and not self._tree_path(tree.root).exists():
                try:
                    files.write_nodes(self._tree_path(tree.root), tree.nodes)
                except OSError as error:
                    raise files.refusal_of(error, "the blob cannot be taken in") from None
            part = Part(self.folder, tree, self._limits, self._part_over)
            self._parts[tree.root] = part
        checked = False
        try:
            part.recheck(progress)
            checked = True
        finally:
            if not checked:
                part.close()
        return part

    def known_tree(self, root: Cid) -> Tree | None:
        """The tree of a blob that began to come in an earlier run."""
        return self._tree_of_part(root) if (self.folder / (files.name_of(root) + files.PART)).exists() else None

    def _part_over(self, part: Part) -> None:
        with self._lock:
            if self._parts.get(part.tree.root) is part:
                del self._parts[part.tree.root]

    def finish(self, part: Part, pin: str = "") -> Blob:
        """Every leaf is there: the part becomes a blob. Raises `Refused` when the disk takes no more."""
        assert part.whole, "leaves are missing"
        root = part.tree.root
        part.sync()
        try:
            file_ns = part.stamp()
            with self._lock:
                os.replace(part.path, self._flat_path(root))
                files.sync_folder(self.folder)
                self.damaged.pop(root, None)
                blob = self._book.put(root, part.tree.file_bytes, file_ns, _now_ms())
                part.done()
                self._pin(root, pin)
        except OSError as error:
            raise files.refusal_of(error, "the blob cannot be kept") from None
        return blob

    # ---- keeping and letting go

    def root_of(self, cid: Cid) -> Cid:
        """The root that a CID of a whole file means; any other CID is its own."""
        return self._book.named(cid) or cid

    def pin(self, cid: Cid, reason: str) -> None:
        """Keep it for this reason, now or once it comes."""
        with self._lock:  # what is being evicted now is pinned before that, or found to be gone after it
            self._book.pin(self.root_of(cid), reason)

    def unpin(self, cid: Cid, reason: str) -> bool:
        """One reason less; whether it was there. The blob stays until room is needed."""
        return self._book.unpin(self.root_of(cid), reason)

    def pins(self, cid: Cid | None = None) -> dict[Cid, list[str]]:
        """Reasons by root: of all, or of this one."""
        if cid is None:
            return self._book.pins()
        root = self.root_of(cid)
        reasons = self._book.reasons(root)
        return {root: reasons} if reasons else {}

    def hold(self, *roots: Cid) -> None:
        """Somebody uses them: none is evicted or removed until as many `release` of it came, or this process ends.

        In memory alone and at once, so that the loop may call it. By roots: see `root_of`.
        """
        now_ms = _now_ms()
        with self._holding:
            self._held.update(roots)
            self._used_ms.update(dict.fromkeys(roots, now_ms))

    def release(self, *roots: Cid) -> None:
        """Releasing what nobody holds is our own bug."""
        with self._holding:
            for root in roots:
                assert self._held[root] > 0, "released more often than held"
                self._held[root] -= 1
                if not self._held[root]:
                    del self._held[root]

    def _note_used(self) -> None:
        """Write down when each was held last. On a full disk only the order of eviction is lost."""
        with self._holding:
            used, self._used_ms = self._used_ms, {}
        with suppress(Refused):
            for root, now_ms in used.items():
                self._book.used(root, now_ms)

    def gc(self, bytes_max: int | None = None) -> list[Blob]:
        """Evict unpinned blobs, the least recently used first, until they have at most `bytes_max`; what went."""
        room = self.bytes_max if bytes_max is None else bytes_max
        with self._lock:
            loose = self._loose()
            over = sum(blob.bytes for blob in loose) - room
            gone: list[Blob] = []
            for blob in loose:
                if over <= 0:
                    break
                if self._is_held(blob.root):  # since they were counted: files of gigabytes take their time to go
                    continue
                self._drop(blob.root)
                gone.append(blob)
                over -= blob.bytes
            sweep_rests(self.folder, {blob.root for blob in self._book.all()}, self._parts, self._limits)
        return gone

    def _is_held(self, root: Cid) -> bool:
        with self._holding:
            return root in self._held

    def _loose(self) -> list[Blob]:
        self._note_used()
        pinned = self._book.pins()
        with self._holding:
            held = set(self._held)
        return [blob for blob in self._book.all() if blob.root not in pinned and blob.root not in held]

    def make_room(self, wanted_bytes: int, but: Cid | None = None) -> None:
        """Evict as far as bound and free space ask for it; as a last resort parts that nobody takes up now, save `but`.

        Raises `Refused` E-store-31 when all that is not enough.
        """
        try:
            self._make_room(wanted_bytes, but)
        except OSError as error:  # a failing disk: whoever wanted room is refused, and the node goes on
            raise files.refusal_of(error, "no room can be made") from None

    def _make_room(self, wanted_bytes: int, but: Cid | None) -> None:
        with self._lock:
            loose_bytes = sum(blob.bytes for blob in self._loose())
            # What comes in now takes its room leaf by leaf: it was promised, though the disk does not show it yet.
            promised = sum(part.tree.file_bytes - part.done_bytes for part in self._parts.values())
            least = wanted_bytes + promised + self._limits.free_bytes_min
            left = left_parts(self.folder, {*self._parts, but})
            gains = loose_bytes + sum(said.st_blocks * 512 for _, said in left)
            if self.free_bytes() + gains < least:  # nothing is thrown away for what would not fit all the same
                raise self._full(wanted_bytes)
            short = max(0, least - self.free_bytes(), loose_bytes + wanted_bytes - self.bytes_max)
            if short:
                self.gc(max(0, loose_bytes - short))
            for path, _ in left:
                if self.free_bytes() >= least:
                    return
                path.unlink(missing_ok=True)
            if self.free_bytes() < least:
                raise self._full(wanted_bytes)

    def _full(self, wanted_bytes: int) -> Refused:
        kept = f"{self.free_bytes()} bytes are free, {self._limits.free_bytes_min} of them stay so"
        return files.disk_full(f"a blob of {wanted_bytes} bytes", kept)

    def _room_for(self, more_bytes: int) -> None:
        if self.free_bytes() < more_bytes + self._limits.free_bytes_min:
            self.make_room(more_bytes)

    def remove(self, cid: Cid) -> Blob:
        """Take it out now. Raises `Refused`: E-store-34 not here, E-store-36 pinned or in use."""
        blob = self.find(cid)
        if blob is None:
            raise self._missing(cid)
        with self._lock:
            if reasons := self._book.reasons(blob.root):
                raise Refused(
                    "E-store-36", "the blob is pinned", ", ".join(reasons[:4]), files.unpin_hint(blob.root, reasons[0])
                )
            if self._is_held(blob.root):
                raise Refused("E-store-36", "the blob is in use by a job", "", "later", 1000)
            self._drop(blob.root)
        return blob

    def _drop_damaged(self, root: Cid) -> None:
        if len(self.damaged) < self._limits.blobs_damaged_told_max:
            self.damaged[root] = None
        self._drop(root)

    def _missing(self, cid: Cid) -> Refused:
        if (self._book.named(cid) or cid) not in self.damaged:
            return no_blob(cid)
        hint = "dim blobs get CID, or add it again; is the disk failing?"
        return Refused("E-store-35", f"the file of {cid_text(cid)} was altered and is gone", "by another program", hint)

    def _drop(self, root: Cid) -> None:
        """The file first: a row without a file says nothing, but a file without a row would take room that nobody
        counts, come back after a crash though it was removed, and a full disk takes no row out before there is room."""
        with self._lock:
            for path in (self._flat_path(root), self._tree_path(root)):
                if files.plain(path) is not None:
                    path.unlink(missing_ok=True)
            self._book.forget(root)

    def free_bytes(self) -> int:
        """What the file system has left for us."""
        return shutil.disk_usage(self.folder).free

    def stat(self) -> StoreStat:
        """Counted now."""
        blobs, pinned = self._book.all(), self._book.pins()
        parts = [said for path in self.folder.glob("*" + files.PART) if (said := files.plain(path)) is not None]
        return StoreStat(
            len(blobs),
            sum(blob.bytes for blob in blobs),
            sum(blob.bytes for blob in blobs if blob.root in pinned),
            len(parts),
            sum(said.st_blocks * 512 for said in parts),
            self.bytes_max,
            self.free_bytes(),
            self.found.foreign,
        )

    def _flat_path(self, root: Cid) -> Path:
        return self.folder / files.name_of(root)

    def _tree_path(self, root: Cid) -> Path:
        return self.folder / (files.name_of(root) + files.TREE)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
