"""DIM_HOME: the one directory of a node, its key and its lock.

Rule: the directory is 0700, the key 0600, and one node at a time holds the lock.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from dimnode.errors import ConfigError, why_of
from dimnode.posix import files
from dimnode.records.envelope import SigningKey

KEY_FILE: Final = "identity.key"
SEED_BYTES: Final = 32


def prepare_home(home: Path) -> None:
    """Make the directory, or make sure that nobody else can look into it."""
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        if home.stat().st_mode & 0o077:
            home.chmod(0o700)
        for part in ("receipts", "models", "scratch"):
            (home / part).mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise ConfigError("E-store-05", f"cannot use {home}", why_of(error), "choose another DIM_HOME") from None


def model_file(home: Path, sha256: str) -> Path:
    """Where a model's file is: named by its hash, and found again when the home has been moved."""
    return home / "models" / f"{sha256}.onnx"


def has_key(home: Path) -> bool:
    """Whether this is a node's home: looking makes none."""
    return (home / KEY_FILE).exists()


def load_seed(home: Path) -> bytes:
    """The node's 32-byte secret seed, made at first use."""
    path = home / KEY_FILE
    try:
        seed = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except FileNotFoundError:
        try:
            return _new_seed(path)
        except OSError as error:
            hint = f"free space on {home}, or choose another DIM_HOME"
            raise ConfigError("E-store-05", f"cannot write the key {path}", why_of(error), hint) from None
    except (OSError, ValueError) as error:
        hint = "restore it from a backup"
        raise ConfigError("E-store-06", f"cannot read the key {path}", why_of(error), hint) from None
    if len(seed) != SEED_BYTES:
        raise ConfigError("E-store-06", f"the key {path} is damaged", "", "restore it from a backup")
    if path.stat().st_mode & 0o077:
        raise ConfigError("E-store-07", f"others can read the key {path}", "", f"chmod 600 {path}")
    return seed


def _new_seed(path: Path) -> bytes:
    seed = os.urandom(SEED_BYTES)
    partial = path.with_suffix(".new")
    partial.unlink(missing_ok=True)  # one that a crash left behind may have other permissions
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(seed.hex() + "\n")
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the name too must survive a loss of power, or the node would wake up as another peer
    finally:
        os.close(folder)
    return seed


def load_key(home: Path) -> SigningKey:
    """The node's signing key."""
    return SigningKey.from_seed(load_seed(home))


@contextmanager
def locked(home: Path) -> Iterator[None]:
    """Hold the home for this process. A second node on one directory is refused with the first one's pid."""
    path = home / "lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            files.lock_for_this_process(descriptor)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
            raise ConfigError(
                "E-store-02",
                f"another node already runs on {home}",
                f"process {holder} holds its lock",
                "dim status, or give this node a directory of its own: dim up --home /other/place",
            ) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
        yield
    finally:
        os.close(descriptor)
