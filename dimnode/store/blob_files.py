"""Files of the blob folder: their names, how they are opened, and what a full disk is called.

Rule: a name is made from a CID and nothing else; nothing but a plain file of ours is ever opened, never through a link.
All of it blocks: call it in a thread.
"""

import errno
import os
import shlex
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from dimnode.errors import ConfigError, PeerFault, Refused
from dimnode.posix.files import NO_LINK, NO_WAIT, is_ours, pread, pwrite, set_blocking
from dimnode.records.ids import Cid, cid_bytes, cid_text, is_cid
from dimnode.records.unixfs import NODE_BYTES_MAX

BLOBS_FOLDER: Final = "blobs"
TREE: Final = ".dag"
PART: Final = ".part"
HAVE: Final = ".have"
ADDING: Final = ".adding"
USER_PIN: Final = "user"
MODEL_PIN: Final = "model "  # and the model's id
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def open_folder(home: Path) -> Path:
    """The folder, made if it is not there. Raises `ConfigError` E-store-30 for a link, or a folder of somebody else."""
    folder = home / BLOBS_FOLDER
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise ConfigError("E-store-30", f"cannot use {folder}", str(error), "choose another DIM_HOME") from None
    if not stat.S_ISDIR(found.st_mode) or not is_ours(found):
        cause = "it is a link, no folder, or belongs to somebody else"
        raise ConfigError(
            "E-store-30", f"cannot use {folder}", cause, "move it away; to use another disk, mount it there"
        )
    if found.st_mode & 0o077:
        folder.chmod(0o700)
    return folder


def name_of(root: Cid) -> str:
    """The name of a blob's flat file."""
    return cid_text(root)


def root_of_name(name: str) -> tuple[Cid, str] | None:
    """The CID and the ending of a file's name; None for what is no name of ours."""
    stem, dot, ending = name.partition(".")
    try:
        raw = cid_bytes(stem)
    except PeerFault:
        return None
    return (Cid(raw), dot + ending) if is_cid(raw) else None


def plain(path: Path) -> os.stat_result | None:
    """What the system says of a plain file of ours; None when there is none, or something else of that name."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return found if stat.S_ISREG(found.st_mode) and is_ours(found) else None


def open_plain(path: Path, flags: int = os.O_RDONLY) -> int:
    """A descriptor of a plain file. Raises `OSError`, also for a link."""
    descriptor = os.open(path, flags | NO_LINK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "no plain file")
    return descriptor


def open_source(path: Path) -> int:
    """A file that a person named. Raises `Refused` E-store-32 for anything but a plain file."""
    try:
        # Without blocking: opening a pipe would wait for somebody to write into it.
        descriptor = open_plain(path, os.O_RDONLY | NO_WAIT)
        set_blocking(descriptor, True)
        return descriptor
    except OSError as error:
        link = path.is_symlink()
        cause = "it is a symbolic link" if link else error.strerror or ""
        hint = "name the file that it points to" if link else "check the path: one plain file"
        raise Refused("E-store-32", f"cannot read {path}", cause, hint) from None


def linked(path: Path, link: Path, descriptor: int) -> bool:
    """Give an open file a second name. False on another file system, on one without links, and when another file has
    taken its name since it was opened: who hands in the same bytes again must not make them count as changed."""
    try:
        os.link(path, link, follow_symlinks=False)
        return os.path.samestat(link.lstat(), os.fstat(descriptor))
    except OSError:
        return False


def read_at(descriptor: int, offset: int, size: int) -> bytes:
    """Exactly `size` bytes. Raises `OSError` when there are fewer."""
    found = pread(descriptor, size, offset)
    while len(found) < size:
        more = pread(descriptor, size - len(found), offset + len(found))
        if not more:
            raise OSError(errno.EIO, "the file is shorter than it was")
        found += more
    return found


def write_at(descriptor: int, content: bytes | memoryview, offset: int) -> None:
    """All of it, from `offset` on. Raises `OSError`."""
    count = pwrite(descriptor, content, offset)
    while count < len(content):
        count += pwrite(descriptor, memoryview(content)[count:], offset + count)


def write_all(descriptor: int, piece: bytes | bytearray | memoryview) -> None:
    """The same at the file's end."""
    view = memoryview(piece)
    while view:
        view = view[os.write(descriptor, view) :]


def write_nodes(path: Path, nodes: Sequence[bytes]) -> None:
    """A tree's nodes, each behind its length (u32, big-endian): whole or not there. Raises `OSError`."""
    partial = path.with_name(f"{path.name}.{os.urandom(8).hex()}{ADDING}")  # two threads may write the same one
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_LINK, 0o400)
    try:
        for raw in nodes:
            write_all(descriptor, len(raw).to_bytes(4, "big") + raw)
        os.fsync(descriptor)
        os.replace(partial, path)
    finally:
        os.close(descriptor)
        partial.unlink(missing_ok=True)


def read_nodes(path: Path, nodes_max: int) -> list[bytes]:
    """What `write_nodes` wrote. Raises `OSError` or `PeerFault`; the caller checks the hashes."""
    descriptor = open_plain(path)
    try:
        raw = read_at(descriptor, 0, min(os.fstat(descriptor).st_size, nodes_max * (NODE_BYTES_MAX + 4)))
    finally:
        os.close(descriptor)
    nodes, at = list[bytes](), 0
    while at < len(raw):
        size = int.from_bytes(raw[at : at + 4], "big")
        at += 4 + size
        if not 0 < size <= NODE_BYTES_MAX or at > len(raw) or len(nodes) == nodes_max:
            raise PeerFault("blob: index")
        nodes.append(raw[at - size : at])
    return nodes


def sync_folder(folder: Path) -> None:
    """Names too must survive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def refusal_of(error: OSError, what: str) -> Refused:
    """A full disk, or another trouble with it, in words."""
    if error.errno in _FULL:
        return disk_full(what)
    return Refused("E-store-39", f"{what}: the disk refused", error.strerror or str(error), "dim doctor")


def unpin_hint(root: Cid, reason: str) -> str:
    """The command that takes this pin away, as it is to be typed."""
    if reason.startswith(MODEL_PIN):
        return f"dim models rm {reason.removeprefix(MODEL_PIN)}"
    named = "" if reason == USER_PIN else f" --reason {shlex.quote(reason)}"
    return f"dim blobs unpin {cid_text(root)}{named}"


def disk_full(what: str, cause: str = "") -> Refused:
    """Nothing half-written is left where it would count. To let unpinned blobs go would not have been enough."""
    hint = "free space on the disk of the node's home; what the node itself keeps there, and why: dim blobs ls"
    return Refused("E-store-31", f"{what}: the disk is full", cause, hint, 5000)
