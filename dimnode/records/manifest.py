"""A model as its manifest states it, whichever version the manifest has.

Rule: whoever wants to know something of a model reads it here, never in a payload; what version 1 could not say has
the value that it meant. Pure: no I/O, no clock.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from dimnode.errors import PeerFault
from dimnode.records.envelope import Record
from dimnode.records.ids import Cid, PeerId, RecordId
from dimnode.records.manifest_kinds import COLUMN_NAME_MAX, PROFILE

TRANSFORMERS: Final = "transformers"
"""As an architecture: that of the config.json, which names a class of the library of this name."""
HF: Final = "hf"
"""The runtime for such models."""

BYTES_MAX: Final = 2**63 - 1
"""As of a single file: what a manifest can say, SQLite keep, and every frame tell."""
_TOKENS_MAX = 8192


class ModelFile(NamedTuple):
    """One file of a model. `root` is its CID: raw up to 1 MiB (version 1: of any size), else a UnixFS root."""

    path: str
    role: str
    root: Cid
    size_bytes: int


class Port(NamedTuple):
    """An input or output. -1 in `shape` is a free size."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class Price(NamedTuple):
    """What one `answer` or one `row` costs, in millionths of a currency."""

    unit: str
    micro: int
    currency: str


class TextInput(NamedTuple):
    """For a text encoder: the path of its tokenizer, and how many tokens it takes."""

    tokenizer: str
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a publisher signed of a model. Empty text, None and 0 mean: not stated."""

    id: RecordId
    by: PeerId
    at_ms: int
    name: str
    version: str
    format: str
    profile: str
    files: tuple[ModelFile, ...]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    labels: tuple[str, ...]
    licence: str
    origin: str
    access: str
    summary: str = ""
    price: Price | None = None
    previous: RecordId | None = None
    lineage: tuple[tuple[str, bytes], ...] = ()
    parity: RecordId | None = None
    architecture: str = ""
    dtype: str = ""
    quantisation: str = ""
    memory_bytes: int = 0
    pre: tuple[Mapping[str, Any], ...] = ()
    post: tuple[Mapping[str, Any], ...] = ()
    max_batch: int = 0
    text: TextInput | None = None
    columns: tuple[str, ...] = ()
    """What the columns of the only input are called, where the publisher says so."""

    @staticmethod
    def of(record: Record) -> "Manifest":
        """The manifest in a record. Raises `PeerFault` for any other record, also for a version not known here."""
        if record.kind != "manifest":
            raise PeerFault(f"expected manifest, got {record.kind}")
        return _read(record)

    @property
    def title(self) -> str:
        """name:version, for people."""
        return f"{self.name}:{self.version}"

    @property
    def main(self) -> ModelFile:
        """The file that a runtime opens first."""
        by_role = {file.role: file for file in reversed(self.files)}
        return by_role.get("model") or by_role.get("weights") or self.files[0]

    @property
    def size_bytes(self) -> int:
        """All files together; those of a stranger's may be said to have more bytes than a message can tell."""
        return min(sum(file.size_bytes for file in self.files), BYTES_MAX)

    @property
    def runtime(self) -> str:
        """Which runtime an executor needs for it: the format's, but for configs of transformers that library's."""
        return runtime_for(self.format, self.architecture)

    def file(self, path: str) -> ModelFile | None:
        """The file of this path."""
        return next((file for file in self.files if file.path == path), None)


def runtime_for(form: str, architecture: str) -> str:
    """As adverts name runtimes."""
    return HF if (form, architecture) == ("torch", TRANSFORMERS) else form


def title_of(record: Record) -> str:
    """name:version of a manifest of any version, for people."""
    return f"{record.payload['name']}:{record.payload['version']}"


def file_roots(record: Record) -> list[Cid]:
    """CIDs of the files that a manifest names; none for any other record."""
    if record.kind != "manifest":
        return []
    place = 2 if record.version > 1 else 1
    return [Cid(entry[place]) for entry in record.payload["files"]]


def _read(record: Record) -> Manifest:
    said = record.payload
    return Manifest(
        id=record.id,
        by=record.by,
        at_ms=said["at_ms"],
        name=said["name"],
        version=said["version"],
        format=said["format"],
        profile=said.get("profile", PROFILE),
        files=_files(record),
        inputs=_ports(said["inputs"]),
        outputs=_ports(said["outputs"]),
        labels=tuple(said["labels"]),
        licence=said["licence"],
        origin=said["origin"],
        access=said["access"],
        text=_text_input(said.get("x_text")),
        columns=_column_names(said.get("x_columns")),
        **_stated(said),
    )


def _stated(said: Mapping[str, Any]) -> dict[str, Any]:
    """The optional fields that are there."""
    plain = ("summary", "architecture", "dtype", "quantisation", "memory_bytes", "max_batch")
    found: dict[str, Any] = {key: said[key] for key in plain if key in said}
    found |= {key: RecordId(said[key]) for key in ("previous", "parity") if key in said}
    found |= {key: tuple(said[key]) for key in ("pre", "post") if key in said}
    if "price" in said:
        found["price"] = Price(**{key: said["price"][key] for key in Price._fields})
    if "lineage" in said:
        found["lineage"] = tuple((relation, identity) for relation, identity in said["lineage"])
    return found


def _files(record: Record) -> tuple[ModelFile, ...]:
    rows = record.payload["files"]
    if record.version > 1:
        return tuple(ModelFile(path, role, Cid(root), size) for path, role, root, size in rows)
    # The first file of a version 1 manifest is the model; what stands beside it was never said.
    roles = ["model", *["other"] * (len(rows) - 1)]
    return tuple(ModelFile(path, role, Cid(root), size) for role, (path, root, size) in zip(roles, rows, strict=True))


def _ports(rows: list[Any]) -> tuple[Port, ...]:
    return tuple(Port(name, dtype, tuple(shape)) for name, dtype, shape in rows)


def _text_input(said: object) -> TextInput | None:
    """`x_text` has no schema: a stranger may have written anything."""
    if not isinstance(said, dict):
        return None
    most = said.get("max_tokens", _TOKENS_MAX)
    tokenizer = said.get("tokenizer", "")
    return TextInput(tokenizer if type(tokenizer) is str else "", most if type(most) is int else _TOKENS_MAX)


def _column_names(said: object) -> tuple[str, ...]:
    """`x_columns` has no schema either: anything but distinct names says nothing."""
    if not isinstance(said, list) or not all(type(name) is str and 0 < len(name) <= COLUMN_NAME_MAX for name in said):
        return ()
    return tuple(said) if len(set(said)) == len(said) else ()
