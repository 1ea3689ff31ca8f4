"""The files that a verifier is given: a receipt, a list of trusted peers, a folder of blobs.

Rule: it opens what it was given and nothing else; file names come from re-encoded CIDs only.
"""

import tomllib
from pathlib import Path
from typing import Any

from dimnode.errors import ConfigError, PeerFault, why_of
from dimnode.limits import LIMITS
from dimnode.records.ids import cid_text, peer_bytes
from dimnode.records.receipt import parse_receipt


def read_trust(path: Path) -> dict[bytes, str]:
    """Names by peer id. The TOML file has a table `[peers]` with lines `name = "12D3KooW…"`; raises `ConfigError`."""
    try:
        peers: Any = tomllib.loads(path.read_text(encoding="utf-8")).get("peers")
        return {bytes(peer_bytes(text)): str(name) for name, text in peers.items()}
    except (OSError, ValueError, AttributeError, TypeError, PeerFault) as error:
        hint = 'a table [peers] with lines like: alba = "12D3KooW…"'
        cause = why_of(error)
        if isinstance(error, AttributeError | TypeError):  # Python's words, of no use to a person
            cause = "there is no table [peers] of texts"
        raise ConfigError("E-verify-02", f"{path} is no list of peers", cause, hint) from None


def read_blobs(folder: Path, raw: bytes) -> dict[bytes, bytes]:
    """The blobs that a receipt left out and that lie in `folder` under their CIDs. Empty when the file is damaged.

    Raises `ConfigError` for one that is there and cannot be read.
    """
    try:
        receipt = parse_receipt(raw)
    except PeerFault:
        return {}
    absent = {opening.cid for opening in receipt.openings.values()} - receipt.blobs.keys()
    found = {bytes(cid): _blob(folder / cid_text(cid)) for cid in absent}
    return {cid: blob for cid, blob in found.items() if blob is not None}


def _blob(path: Path) -> bytes | None:
    longest = LIMITS.records.tensor_blob_bytes_max
    try:
        if not path.is_file() or path.stat().st_size > longest:
            return None
        return path.read_bytes()
    except OSError as error:
        cause = f"{path.name}: {error.strerror}"
        raise ConfigError("E-verify-01", f"cannot read {path}", cause, "check the folder of blobs") from None


def read_receipt(path: Path) -> bytes:
    """The file's bytes, at most one more than a receipt may have; raises `ConfigError` when it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(LIMITS.records.receipt_bytes_max + 1)
    except OSError as error:
        raise ConfigError("E-verify-01", f"cannot read {path}", error.strerror or "", "check the path") from None
