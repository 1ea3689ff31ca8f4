"""The blob store: what goes in comes out, what is kept is kept, and nothing half-written ever has a blob's name."""

import errno
import io
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from dimnode.errors import ConfigError, PeerFault, Refused
from dimnode.limits import LIMITS
from dimnode.records.ids import Cid, blob_cid, cid_text
from dimnode.records.unixfs import LEAF_BYTES, Tree, root_of, tree_of
from dimnode.store.blob_files import MODEL_PIN, read_nodes
from dimnode.store.blobs import BlobStore

LIMITS_HERE = replace(LIMITS.store, free_bytes_min=0)
SEED = random.SystemRandom().getrandbits(32)
MANY = 2**40


def content_of(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def open_store(home: Path, bytes_max: int = MANY) -> BlobStore:
    return BlobStore(home, bytes_max, LIMITS_HERE)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[BlobStore]:
    with open_store(tmp_path) as opened:
        yield opened


def tree_for(content: bytes) -> Tree:
    return tree_of(io.BytesIO(content).read)


def names(store: BlobStore) -> list[str]:
    return sorted(path.name for path in store.folder.iterdir())


@pytest.mark.parametrize("size", [0, 1, LEAF_BYTES, LEAF_BYTES + 1, 3 * LEAF_BYTES + 17])
def test_what_is_added_is_found_by_its_root_as_one_flat_file(store: BlobStore, tmp_path: Path, size: int) -> None:
    content = content_of(size)
    source = tmp_path / "weights"
    source.write_bytes(content)
    seen = []
    blob = store.add(source, lambda done, all_of: seen.append((done, all_of)))
    assert blob.root == root_of(content) and blob.bytes == size
    path = store.path(blob.root)
    assert path is not None and path.read_bytes() == content
    assert path.stat().st_mode & 0o777 == 0o400
    assert store.read(blob.root, 1, 5) == content[1:6]
    assert store.read(blob.root, size, 5) == b""
    assert store.tree(blob.root) == tree_for(content)
    assert not size or seen[-1] == (size, size)
    assert store.verify(blob.root)


def test_a_stream_is_the_same_blob_as_the_file(store: BlobStore) -> None:
    content = content_of(2 * LEAF_BYTES + 3)
    assert store.add(io.BytesIO(content)).root == store.add(io.BytesIO(content)).root == root_of(content)
    assert len(store.all()) == 1


def test_the_tree_is_kept_as_the_nodes_that_others_ask_for(store: BlobStore) -> None:
    blob = store.add(io.BytesIO(content_of(2 * LEAF_BYTES)))
    tree = store.tree(blob.root)
    assert tree is not None
    assert tuple(read_nodes(store.folder / (cid_text(blob.root) + ".dag"), 9)) == tree.nodes


def test_a_lost_or_broken_index_is_made_again_from_the_bytes(store: BlobStore) -> None:
    blob = store.add(io.BytesIO(content_of(2 * LEAF_BYTES)))
    tree = store.tree(blob.root)
    index = store.folder / (cid_text(blob.root) + ".dag")
    index.unlink()
    assert store.tree(blob.root) == tree and index.exists()
    index.chmod(0o600)
    index.write_bytes(b"\0\0\0\1x")
    assert store.tree(blob.root) == tree


def test_an_index_that_cannot_be_written_costs_no_blob(store: BlobStore) -> None:
    blob = store.add(io.BytesIO(content_of(2 * LEAF_BYTES)), pin="user")
    tree = store.tree(blob.root)
    index = store.folder / (cid_text(blob.root) + ".dag")
    index.unlink()
    index.mkdir()  # as a full disk would: it can neither be read nor replaced
    assert store.tree(blob.root) == tree
    assert store.find(blob.root) is not None
    assert not [name for name in names(store) if name.endswith(".adding")]


def test_what_is_held_while_others_are_being_evicted_stays(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    roots = [store.add(io.BytesIO(content)).root for content in (b"first", b"second", b"third")]
    for number, root in enumerate(roots):
        store._book.used(root, 1000 + number)
    drop = store._drop

    def slowly(root: Cid) -> None:
        drop(root)
        if root == roots[0]:
            store.hold(roots[1])

    monkeypatch.setattr(store, "_drop", slowly)
    assert [blob.root for blob in store.gc(0)] == [roots[0], roots[2]]
    assert store.find(roots[1]) is not None


def test_holding_needs_no_disk_and_counts_as_use(store: BlobStore) -> None:
    older, newer = (store.add(io.BytesIO(content)).root for content in (b"older", b"newer"))
    for number, root in enumerate((older, newer)):
        store._book.used(root, 1000 + number)
    store._book._database.execute("PRAGMA query_only=ON")
    store.hold(older)
    with pytest.raises(Refused) as no:
        store.remove(older)
    assert no.value.complaint.code == "E-store-36"
    store.release(older)
    store._book._database.execute("PRAGMA query_only=OFF")
    assert [blob.root for blob in store.all()] == [newer, older]


def test_a_hold_ends_with_its_process(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        root = store.add(io.BytesIO(b"held when it was killed")).root
        store.hold(root)
    with open_store(tmp_path) as store:
        assert [blob.root for blob in store.gc(0)] == [root]


def test_a_disk_that_fails_while_room_is_made_is_a_refusal(tmp_path: Path) -> None:
    class FailingDisk(BlobStore):
        def free_bytes(self) -> int:
            raise OSError(errno.EIO, "input/output error")

    with FailingDisk(tmp_path, MANY, LIMITS_HERE) as store, pytest.raises(Refused) as no:
        store.part(tree_for(content_of(2 * LEAF_BYTES)))
    assert no.value.complaint.code == "E-store-39"


class SmallDisk(BlobStore):
    """Of 5 MiB."""

    def free_bytes(self) -> int:
        return 5 * LEAF_BYTES - sum(path.stat().st_blocks * 512 for path in self.folder.iterdir())


def test_room_that_was_promised_to_one_part_is_not_promised_to_another(tmp_path: Path) -> None:
    first, second = (tree_for(content_of(3 * LEAF_BYTES, seed)) for seed in (1, 2))
    with SmallDisk(tmp_path, MANY, LIMITS_HERE) as store:
        part = store.part(first)
        with pytest.raises(Refused) as no:
            store.part(second)
        assert no.value.complaint.code == "E-store-31"
        part.close()
        store.part(second).close()


def test_parts_that_nobody_takes_up_go_before_a_blob_is_refused(tmp_path: Path) -> None:
    old, new = content_of(3 * LEAF_BYTES, 1), content_of(4 * LEAF_BYTES, 2)
    with SmallDisk(tmp_path, MANY, LIMITS_HERE) as store:
        part = store.part(tree_for(old))
        for leaf in (0, 1):
            part.write(leaf, [old[leaf * LEAF_BYTES : (leaf + 1) * LEAF_BYTES]])
        with pytest.raises(Refused):
            store.part(tree_for(new))
        part.close()
        again = store.part(tree_for(old))  # it is taken up: its own bytes are no room for it
        assert again.missing() == [2]
        again.close()
        store.part(tree_for(new)).close()
        assert not again.path.exists()


def test_nothing_is_evicted_for_what_would_not_fit_all_the_same(tmp_path: Path) -> None:
    with SmallDisk(tmp_path, MANY, LIMITS_HERE) as store:
        loose = store.add(io.BytesIO(b"loose")).root
        with pytest.raises(Refused):
            store.make_room(6 * LEAF_BYTES)
        assert store.find(loose) is not None


def test_links_pipes_and_folders_are_not_added(store: BlobStore, tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"secret")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe", "absent", "."):
        with pytest.raises(Refused) as no:
            store.add(tmp_path / name)
        assert no.value.complaint.code == "E-store-32"
    assert names(store) == []


def test_more_than_the_bound_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    with BlobStore(tmp_path, MANY, replace(LIMITS_HERE, blob_bytes_max=LEAF_BYTES)) as store:
        with pytest.raises(Refused) as no:
            store.add(io.BytesIO(bytes(LEAF_BYTES + 1)))
        assert no.value.complaint.code == "E-store-33"
        large = tmp_path / "sparse"
        with large.open("wb") as file:
            file.truncate(2**43)  # no disk has this room: that is not what has to be mended
        for take in (store.add, store.take_over):
            with pytest.raises(Refused, match="E-store-33"):
                take(large)
        assert names(store) == []


def test_a_file_of_the_home_is_taken_over_without_a_copy(store: BlobStore, tmp_path: Path) -> None:
    content = content_of(2 * LEAF_BYTES)
    old = tmp_path / "old.onnx"
    old.write_bytes(content)
    blob = store.take_over(old, whole=blob_cid(content), pin="model")
    path = store.path(blob.root)
    assert path is not None and path.stat().st_ino == old.stat().st_ino
    assert store.find(blob_cid(content)) == store.find(blob.root) == blob
    assert store.pins(blob_cid(content)) == {blob.root: ["model"]}
    old.unlink()
    assert store.take_over(old, whole=blob_cid(content)) == blob  # known by its name: the file is not read again
    (tmp_path / "other").write_bytes(b"other")
    with pytest.raises(Refused) as no:
        store.take_over(tmp_path / "other", whole=blob_cid(b"what it should be"))
    assert no.value.complaint.code == "E-store-35"


# ---- keeping


def test_the_least_recently_used_goes_first_and_pinned_and_held_ones_stay(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        roots = [store.add(io.BytesIO(bytes([number]) * LEAF_BYTES)).root for number in range(5)]
        store.pin(roots[0], "user")
        store.hold(roots[1])
        assert store.all()  # what was noted in memory is written down: the times below are not overwritten
        for number, root in enumerate(roots):
            store._book.used(root, 1000 - number)  # the later added, the longer unused
        gone = [blob.root for blob in store.gc(LEAF_BYTES)]
        assert gone == [roots[4], roots[3]]
        assert [store.find(root) is not None for root in roots] == [True, True, True, False, False]
        store.release(roots[1])
        assert store.unpin(roots[0], "user") and not store.unpin(roots[0], "user")
        assert len(store.gc(0)) == 3
        assert names(store) == []


def test_adding_beyond_the_bound_makes_room_first(tmp_path: Path) -> None:
    with open_store(tmp_path, 2 * LEAF_BYTES) as store:
        sources = []
        for number in range(3):
            sources.append(tmp_path / str(number))
            sources[-1].write_bytes(bytes([number]) * LEAF_BYTES)
        roots = [store.add(source).root for source in sources]
        assert store.find(roots[2]) is not None
        assert sum(blob.bytes for blob in store.all()) <= 2 * LEAF_BYTES


def test_a_pin_waits_for_a_blob_that_is_not_here_yet(store: BlobStore) -> None:
    store.pin(root_of(b"later"), "user")
    store.add(io.BytesIO(b"later"))
    assert store.gc(0) == []
    with pytest.raises(Refused) as no:
        store.remove(root_of(b"later"))
    assert no.value.complaint.code == "E-store-36"
    store.unpin(root_of(b"later"), "user")
    store.remove(root_of(b"later"))


@pytest.mark.parametrize(
    ("reason", "command"),
    [
        ("user", "dim blobs unpin {blob}"),
        ("my demo", "dim blobs unpin {blob} --reason 'my demo'"),
        (MODEL_PIN + "bagaqiera2", "dim models rm bagaqiera2"),
    ],
)
def test_who_may_not_remove_a_pinned_blob_is_told_the_command_that_lets_go_of_this_pin(
    store: BlobStore, reason: str, command: str
) -> None:
    root = store.add(io.BytesIO(b"kept")).root
    store.pin(root, reason)
    with pytest.raises(Refused) as no:
        store.remove(root)
    assert no.value.complaint.hint == command.format(blob=cid_text(root))


def test_a_blob_that_does_not_fit_is_refused_with_what_is_free_and_what_stays_free(store: BlobStore) -> None:
    with pytest.raises(Refused) as no:
        store.make_room(1 << 60)
    assert no.value.complaint.code == "E-store-31"
    assert no.value.complaint.cause.endswith("bytes are free, 0 of them stay so")
    assert "gc" not in no.value.complaint.hint  # which would let go of nothing that was not counted already
    with pytest.raises(Refused) as no:
        store.remove(root_of(b"later"))
    assert no.value.complaint.code == "E-store-34"


@pytest.mark.parametrize("reason", ["", "x" * 201, "two\nlines"])
def test_a_pin_needs_a_reason_that_can_be_shown(store: BlobStore, reason: str) -> None:
    with pytest.raises(Refused):
        store.pin(root_of(b""), reason)


# ---- what is coming


def test_a_part_takes_only_the_right_leaves_and_becomes_a_blob(store: BlobStore) -> None:
    content = content_of(2 * LEAF_BYTES + 9)
    part = store.part(tree_for(content))
    with pytest.raises(PeerFault):
        part.write(0, [content[1 : LEAF_BYTES + 1]])
    with pytest.raises(PeerFault):
        part.write(2, [content[2 * LEAF_BYTES :], b"more"])
    assert part.missing() == [0, 1, 2] and part.done_bytes == 0
    assert store.find(part.tree.root) is None and store.path(part.tree.root) is None
    for leaf in (2, 0, 1):
        piece = content[leaf * LEAF_BYTES : (leaf + 1) * LEAF_BYTES]
        assert part.write(leaf, [piece[:5], b"", piece[5:]])
        assert not part.write(leaf, [piece])
    blob = store.finish(part)
    path = store.path(blob.root)
    assert path is not None and path.read_bytes() == content
    assert names(store) == sorted([cid_text(blob.root), cid_text(blob.root) + ".dag"])


def test_leaves_of_a_part_are_served_while_it_comes(store: BlobStore) -> None:
    content = content_of(3 * LEAF_BYTES)
    part = store.part(tree_for(content))
    part.write(1, [content[LEAF_BYTES : 2 * LEAF_BYTES]])
    reader = store.reader(part.tree.root)
    assert reader is not None and not reader.whole
    assert reader.have() == b"\0\1\0" and reader.has(1) and not reader.has(0) and not reader.has(3)
    assert reader.leaf(1) == content[LEAF_BYTES : 2 * LEAF_BYTES]
    part.write(0, [content[:LEAF_BYTES]])
    part.write(2, [content[2 * LEAF_BYTES :]])
    store.finish(part)
    assert reader.whole and reader.leaf(2) == content[2 * LEAF_BYTES :]
    room = memoryview(bytearray(LEAF_BYTES))
    for leaf in (1, 2):  # just written, so it is in memory; not every file system says so
        if reader.leaf_at_once(leaf, [room[:7], room[7:]]):
            assert room == reader.leaf(leaf)
    reader.close()


def test_a_part_is_taken_up_where_it_stopped_and_damage_is_noticed(tmp_path: Path) -> None:
    content = content_of(4 * LEAF_BYTES)
    tree = tree_for(content)
    with open_store(tmp_path) as store:
        part = store.part(tree)
        for leaf in (0, 2, 3):
            part.write(leaf, [content[leaf * LEAF_BYTES : (leaf + 1) * LEAF_BYTES]])
        path = part.path
    with path.open("r+b") as file:
        file.seek(2 * LEAF_BYTES + 5)
        file.write(b"damage")
    with open_store(tmp_path) as store:
        assert store.known_tree(tree.root) == tree
        part = store.part(tree)
        assert part.missing() == [1, 2]
        assert part.done_bytes == 2 * LEAF_BYTES
        part.discard()
        assert not path.exists()


def test_a_link_in_the_place_of_a_part_is_refused(store: BlobStore, tmp_path: Path) -> None:
    tree = tree_for(content_of(2 * LEAF_BYTES))
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (store.folder / (cid_text(tree.root) + ".part")).symlink_to(victim)
    with pytest.raises(Refused) as no:
        store.part(tree)
    assert no.value.complaint.code == "E-store-32"
    assert victim.read_bytes() == b"precious"


_KILLED = """
import sys, os, random
from dataclasses import replace
from pathlib import Path
from dimnode.limits import LIMITS
from dimnode.records.unixfs import LEAF_BYTES, tree_of
from dimnode.store.blobs import BlobStore
import io
content = random.Random(int(sys.argv[2])).randbytes(8 * LEAF_BYTES)
store = BlobStore(Path(sys.argv[1]), 2**40, replace(LIMITS.store, free_bytes_min=0))
part = store.part(tree_of(io.BytesIO(content).read))
for leaf in part.missing()[: int(sys.argv[3])]:
    part.write(leaf, [content[leaf * LEAF_BYTES : (leaf + 1) * LEAF_BYTES]])
if len(sys.argv) > 4:
    os.replace(part.path, str(part.path).removesuffix(".part"))  # died between the name and the row
os.kill(os.getpid(), 9)
"""


@pytest.mark.slow
def test_a_killed_process_loses_no_leaf_that_it_wrote(tmp_path: Path) -> None:
    content = content_of(8 * LEAF_BYTES, 7)
    for count in (3, 2):
        done = subprocess.run([sys.executable, "-c", _KILLED, str(tmp_path), "7", str(count)], check=False)
        assert done.returncode == -9
    with open_store(tmp_path) as store:
        part = store.part(tree_for(content))
        assert part.missing() == [5, 6, 7]
        part.close()


@pytest.mark.slow
def test_a_blob_without_its_row_is_adopted_if_its_bytes_say_so(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", _KILLED, str(tmp_path), "7", "8", "named"], check=False)
    with open_store(tmp_path) as store:
        assert store.found.adopted == 1
        assert store.find(root_of(content_of(8 * LEAF_BYTES, 7))) is not None
    other = tmp_path / "other"
    subprocess.run([sys.executable, "-c", _KILLED, str(other.mkdir() or other), "7", "5", "named"], check=False)
    with open_store(other) as store:  # three leaves are holes
        assert store.found.removed == 1
        assert store.all() == [] and names(store) == []


_DIES_LETTING_GO = """
import os, sys
from dataclasses import replace
from pathlib import Path
from dimnode.limits import LIMITS
from dimnode.store.blobs import BlobStore
unlink, left = Path.unlink, [int(sys.argv[2])]
def dying(path, missing_ok=False):
    if not left[0]:
        os.kill(os.getpid(), 9)
    left[0] -= 1
    unlink(path, missing_ok)
    if path.suffix == ".dag":
        os.kill(os.getpid(), 9)
with BlobStore(Path(sys.argv[1]), 2**40, replace(LIMITS.store, free_bytes_min=0)) as store:
    [blob] = store.all()
    Path.unlink = dying
    store.remove(blob.root)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("unlinked", "stays"), [(0, True), (1, False), (2, False)])
def test_a_crash_while_a_blob_goes_leaves_neither_half_of_it(tmp_path: Path, unlinked: int, stays: bool) -> None:
    content = content_of(2 * LEAF_BYTES)
    with open_store(tmp_path) as store:
        root = store.add(io.BytesIO(content), name_whole=True).root
        [tree] = {name for name in names(store) if "." in name}
    done = subprocess.run([sys.executable, "-c", _DIES_LETTING_GO, str(tmp_path), str(unlinked)], check=False)
    assert done.returncode == -9
    with open_store(tmp_path) as store:
        assert (store.found.adopted, store.found.removed) == (0, not stays)
        assert [blob.root for blob in store.all()] == [root] * stays
        assert (tree in names(store)) == stays and len(names(store)) == 2 * stays
        assert (store.find(blob_cid(content)) is not None) == stays
        assert store.add(io.BytesIO(content)).root == root and store.read(root, 0, len(content)) == content


def test_a_blob_that_is_put_anew_between_two_looks_is_not_thrown_away(store: BlobStore) -> None:
    content = content_of(100)
    blob = store.add(io.BytesIO(content))
    path = store.path(blob.root)
    assert path is not None
    stale = replace(blob, file_ns=blob.file_ns - 1)  # what a thread read just before another one put the file anew
    looks = iter([stale])
    found = store._row
    store._row = lambda cid: next(looks, None) or found(cid)  # type: ignore[method-assign]
    assert store.find(blob.root) == blob and path.exists()


def test_what_is_not_ours_is_left_alone_and_told(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        kept = store.add(io.BytesIO(b"kept")).root
        secret = tmp_path / "secret"
        secret.write_bytes(b"secret")
        (store.folder / cid_text(blob_cid(b"secret"))).symlink_to(secret)
        (store.folder / "notes.txt").write_text("mine")
        (store.folder / "0123.adding").write_bytes(b"half")
        (store.folder / cid_text(blob_cid(b"lie"))).write_bytes(b"truth")
        (store.folder / (cid_text(blob_cid(b"x")) + ".have")).write_bytes(b"\1")
    with open_store(tmp_path) as store:
        assert store.found.foreign == tuple(sorted(["notes.txt", cid_text(blob_cid(b"secret"))]))
        assert store.find(Cid(blob_cid(b"secret"))) is None and store.reader(Cid(blob_cid(b"secret"))) is None
        assert [blob.root for blob in store.all()] == [kept]
        assert names(store) == sorted([cid_text(kept), "notes.txt", cid_text(blob_cid(b"secret"))])


def test_a_file_that_was_changed_counts_no_more(store: BlobStore) -> None:
    blob = store.add(io.BytesIO(content_of(LEAF_BYTES)))
    path = store.path(blob.root)
    assert path is not None
    path.chmod(0o600)
    path.write_bytes(b"other bytes")
    assert store.find(blob.root) is None and store.path(blob.root) is None
    with pytest.raises(Refused, match="E-store-35"):
        store.read(blob.root, 0, 1)
    assert list(store.damaged) == [blob.root]
    store.add(io.BytesIO(content_of(LEAF_BYTES)))
    assert not store.damaged and store.read(blob.root, 0, 1)


def test_a_file_that_was_changed_while_no_node_ran_is_told_as_damaged(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        blob = store.add(io.BytesIO(content_of(LEAF_BYTES)))
        path = store.path(blob.root)
    assert path is not None
    path.chmod(0o600)
    path.write_bytes(b"other bytes")
    with open_store(tmp_path) as store:
        assert list(store.damaged) == [blob.root]
        with pytest.raises(Refused, match="E-store-35"):
            store.verify(blob.root)


def test_a_link_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "blobs").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError) as no:
        open_store(tmp_path)
    assert no.value.complaint.code == "E-store-30"


def test_a_book_of_another_version_or_a_broken_one_ends_the_start(tmp_path: Path) -> None:
    with open_store(tmp_path):
        pass
    database = sqlite3.connect(tmp_path / "blobs.db")
    database.execute("PRAGMA user_version=9")
    database.close()
    with pytest.raises(ConfigError, match="E-store-37"):
        open_store(tmp_path)
    for rest in tmp_path.glob("blobs.db*"):
        rest.unlink()
    (tmp_path / "blobs.db").write_bytes(b"no database" * 100)
    with pytest.raises(ConfigError, match="E-store-37"):
        open_store(tmp_path)


# ---- a full disk, for real: the system refuses to let a file grow

_FULL = """
import io, json, resource, sys
from dataclasses import replace
from pathlib import Path
from dimnode.errors import Refused
from dimnode.limits import LIMITS
from dimnode.records.unixfs import LEAF_BYTES, tree_of
from dimnode.store.blobs import BlobStore
store = BlobStore(Path(sys.argv[1]), 2**40, replace(LIMITS.store, free_bytes_min=0))
small = store.add(io.BytesIO(b"small")).root
resource.setrlimit(resource.RLIMIT_FSIZE, (3 * LEAF_BYTES // 2, resource.RLIM_INFINITY))
codes = []
content = bytes(4 * LEAF_BYTES)
for attempt in (lambda: store.add(io.BytesIO(content)), lambda: store.part(tree_of(io.BytesIO(content).read))):
    try:
        attempt()
    except Refused as no:
        codes.append(no.complaint.code)
print(json.dumps([codes, store.find(small) is not None, sorted(p.suffix for p in store.folder.iterdir())]))
"""


@pytest.mark.slow
def test_a_disk_that_takes_no_more_is_a_refusal_and_the_rest_stays(tmp_path: Path) -> None:
    said = subprocess.run([sys.executable, "-c", _FULL, str(tmp_path)], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == '[["E-store-31", "E-store-31"], true, ["", ".dag", ".have", ".part"]]'
    with open_store(tmp_path) as store:
        assert [blob.bytes for blob in store.all()] == [5]


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.slow
def test_on_a_tiny_disk_old_blobs_make_room_and_what_does_not_fit_leaves_nothing(tiny_disk: Path) -> None:
    with open_store(tiny_disk) as store:
        first = store.add(io.BytesIO(content_of(LEAF_BYTES, 1))).root
        second = store.add(io.BytesIO(content_of(LEAF_BYTES, 2)), pin="user").root
        third = store.add(io.BytesIO(content_of(2 * LEAF_BYTES, 3))).root  # the first one went for it
        assert [store.find(root) is not None for root in (first, second, third)] == [False, True, True]
        with pytest.raises(Refused) as no:
            store.add(io.BytesIO(content_of(4 * LEAF_BYTES, 4)))
        assert no.value.complaint.code == "E-store-31"
        assert store.find(second) is not None
        assert not [name for name in names(store) if name.endswith(".adding")]
        part = None
        with pytest.raises(Refused) as no:
            part = store.part(tree_for(content_of(5 * LEAF_BYTES, 5)))
        assert no.value.complaint.code == "E-store-31" and part is None


def fill(filler: Path) -> None:
    """Until the file system takes no more."""
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


@pytest.mark.slow
def test_what_others_write_meanwhile_fills_the_disk_and_the_part_stays_good(tiny_disk: Path) -> None:
    content = content_of(2 * LEAF_BYTES, 6)
    with open_store(tiny_disk) as store:
        part = store.part(tree_for(content))
        part.write(0, [content[:LEAF_BYTES]])
        filler = tiny_disk / "filler"
        fill(filler)
        with pytest.raises(Refused) as no:
            part.write(1, [content[LEAF_BYTES:]])
        assert no.value.complaint.code == "E-store-31"
        assert part.missing() == [1]
        part.close()
        filler.unlink()
        part = store.part(tree_for(content))
        assert part.missing() == [1]
        part.write(1, [content[LEAF_BYTES:]])
        assert store.verify(store.finish(part).root)


@pytest.mark.slow
def test_whatever_is_done_in_whatever_order_the_books_agree_with_the_folder(tmp_path: Path) -> None:
    """Random steps with restarts; after each restart no file was adopted or removed."""
    print("seed", SEED)
    rng = random.Random(SEED)
    contents = [rng.randbytes(rng.choice([10, LEAF_BYTES, LEAF_BYTES + 1, 2 * LEAF_BYTES + 5])) for _ in range(8)]
    roots = [root_of(content) for content in contents]
    pinned: set[Cid] = set()
    store = open_store(tmp_path, 5 * LEAF_BYTES)
    for _ in range(120):
        which = rng.randrange(len(contents))
        match rng.randrange(6):
            case 0 | 1:
                store.add(io.BytesIO(contents[which]))
            case 2:
                store.pin(roots[which], "test")
                pinned.add(roots[which])
            case 3:
                store.unpin(roots[which], "test")
                pinned.discard(roots[which])
            case 4:
                before = {blob.root for blob in store.all()}
                store.gc(rng.choice([0, LEAF_BYTES, 4 * LEAF_BYTES]))
                assert pinned & before == pinned & {blob.root for blob in store.all()}
            case 5:
                store.__exit__()
                store = open_store(tmp_path, 5 * LEAF_BYTES)
                assert (store.found.adopted, store.found.removed, store.found.foreign) == (0, 0, ())
        for root, content in zip(roots, contents, strict=True):
            path = store.path(root)
            assert path is None or path.read_bytes() == content
        assert {name.partition(".")[0] for name in names(store)} == {cid_text(blob.root) for blob in store.all()}
    store.__exit__()


def test_a_pin_that_stands_may_be_set_again_though_there_is_room_for_no_other(tmp_path: Path) -> None:
    one, other = root_of(b"one"), root_of(b"other")
    with BlobStore(tmp_path, MANY, replace(LIMITS_HERE, blob_pins_max=1)) as store:
        store.pin(one, "user")
        store.pin(one, "user")
        with pytest.raises(Refused, match="E-store-38"):
            store.pin(other, "user")
        assert store.pins() == {one: ["user"]}
