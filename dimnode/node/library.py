"""What this node offers: its models and its cabinets.

Rule: a model is its signed manifest; what others say of models is the registry's. A cabinet is known to others by name,
columns and operations; its rows, its path and its cohort sizes stay here.
"""

import csv
import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import trio

from dimnode.cabinets.policy import Policy, parse_policy, policy_payload
from dimnode.errors import PeerFault, Refused
from dimnode.limits import LIMITS
from dimnode.node.registry import Registry
from dimnode.records.envelope import VERSION, Record, SigningKey, seal
from dimnode.records.ids import BLOB_PREFIX, Cid, RecordId
from dimnode.records.kinds import compose, open_record
from dimnode.records.manifest import Manifest
from dimnode.records.manifest_kinds import MANIFEST_VERSION, PROFILE, safe_path
from dimnode.store.home import model_file
from dimnode.store.journal import Journal

_MODEL_NAME: Final = re.compile(r"[^\s/:][^/:]{0,99}")
_COPY_BYTES: Final = 1024 * 1024


class ModelCard(msgspec.Struct, frozen=True, kw_only=True):
    """What a person says about a model file when it is added. Shapes use -1 for a free size."""

    name: str
    version: str = "1.0.0"
    format: str = "onnx"
    file: str = ""
    sha256: str = ""
    licence: str = ""
    origin: str = "imported"
    summary: str = ""
    inputs: list[tuple[str, str, list[int]]] = []
    outputs: list[tuple[str, str, list[int]]] = []
    labels: list[str] = []
    tokenizer: str = ""
    """For a text encoder: its tokenizer.json beside the model. Who asks it cuts text by that, to `max_tokens`."""
    max_tokens: int = 512


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A model whose file is on this machine."""

    manifest: Record
    path: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Cabinet:
    """A local data set under its owner's policy. `columns` are the features, in file order."""

    name: str
    path: str
    label: str
    exclude: tuple[str, ...]
    columns: tuple[str, ...]
    policy: Policy
    policy_record: Record


class Library:
    """Read from the journal at start; additions are journalled before they are offered."""

    def __init__(self, home: Path, key: SigningKey, net: RecordId, journal: Journal) -> None:
        self._home, self._key, self._net, self._journal = home, key, net, journal
        self.models: dict[RecordId, LocalModel] = {}
        self.cabinets: dict[str, Cabinet] = {}
        self.registry = Registry(key.peer, net, journal)
        self._adding = trio.Lock()
        self._load()

    def _load(self) -> None:
        for manifest, sha256 in self._journal.rows("SELECT manifest, sha256 FROM models"):
            envelope = self._journal.envelope(manifest)
            assert envelope is not None
            record = open_record(envelope, kind="manifest", check_signature=False)
            self.models[record.id] = LocalModel(record, str(model_file(self._home, sha256)), sha256)
            self.registry.keep(record)
        rows = self._journal.rows("SELECT name, path, label, columns, policy FROM cabinets")
        for name, path, label, columns, policy_id in rows:
            envelope = self._journal.envelope(policy_id)
            assert envelope is not None
            record = open_record(envelope, kind="policy", check_signature=False)
            exclude, features = msgspec.json.decode(columns)
            policy = policy_of(record)
            self.cabinets[name] = Cabinet(name, path, label, tuple(exclude), tuple(features), policy, record)

    # ---- models

    async def add_model(self, card: ModelCard, source: Path, at_ms: int) -> Record:
        """Copy the file into the home, sign its manifest, journal both. Raises `Refused` with what to mend."""
        if card.format != "onnx":
            raise Refused("E-models-03", f"format {card.format!r} is not supported", "this version runs onnx only")
        if not _MODEL_NAME.fullmatch(card.name):
            raise Refused(
                "E-models-07", f"a model cannot be named {card.name!r}", "it is typed as publisher/name:version"
            )
        # A gigabyte takes seconds to read: in a thread, or every peer would take this node for dead.
        async with self._adding:
            return await self._add_model(card, source, at_ms)

    async def _add_model(self, card: ModelCard, source: Path, at_ms: int) -> Record:
        digest, size = await trio.to_thread.run_sync(_keep_model, source, self._home)
        files: list[list[Any]] = [[safe_path(source.name), "model", Cid(BLOB_PREFIX + bytes.fromhex(digest)), size]]
        if card.sha256 and card.sha256 != digest:
            raise Refused("E-models-04", f"{source.name} does not have the declared sha256", "the file changed")
        body: dict[str, Any] = {
            "name": card.name,
            "version": card.version,
            "profile": PROFILE,
            "format": card.format,
            "files": files,
            "inputs": [list(entry) for entry in card.inputs],
            "outputs": [list(entry) for entry in card.outputs],
            "labels": list(card.labels),
            "licence": card.licence,
            "origin": card.origin,
            "access": "public",
        }
        if card.summary:
            body["summary"] = card.summary
        if card.tokenizer:
            beside = source.parent / card.tokenizer
            also, count = await trio.to_thread.run_sync(_keep_model, beside, self._home)
            files.append([safe_path(beside.name), "tokenizer", Cid(BLOB_PREFIX + bytes.fromhex(also)), count])
            body["x_text"] = {"tokenizer": safe_path(beside.name), "max_tokens": card.max_tokens}
        record = self._published(body) or self._publish(body, at_ms)
        await self._journal.commit(
            {
                "records": [("manifest", record.id, b"", 0, 0, record.envelope)],
                "models": [(record.id, digest)],
            }
        )
        self.models[record.id] = LocalModel(record, str(model_file(self._home, digest)), digest)
        self.registry.keep(record)
        return record

    def usable(self) -> list[RecordId]:
        """Models that this node itself may run: none that its publisher took back."""
        return [
            model.manifest.id
            for model in self.models.values()
            if self.registry.withdrawn(model.manifest.by, model.manifest.id) is None
        ]

    def offered(self) -> list[LocalModel]:
        """Models that others may hear of: none that is private, none that its publisher took back."""
        return [
            model
            for identity in self.usable()
            if (model := self.models[identity]).manifest.payload["access"] != "private"
        ]

    def small_file(self, cid: Cid) -> bytes | None:
        """What belongs to a public model of this node beside its weights, for whoever asks: a tokenizer, say."""
        for model in self.models.values():
            manifest = Manifest.of(model.manifest)
            for file in manifest.files:
                if file.root == cid and file != manifest.main and file.size_bytes <= LIMITS.peers.small_file_bytes_max:
                    return self.kept_file(cid)
        return None

    def kept_file(self, cid: Cid) -> bytes | None:
        """A file of some model that lies in this home."""
        path = model_file(self._home, cid[len(BLOB_PREFIX) :].hex())
        try:
            return path.read_bytes()
        except OSError:
            return None

    def keep_file(self, content: bytes) -> None:
        """Keep a small file of a peer's model, whose CID was checked."""
        path = model_file(self._home, hashlib.sha256(content).hexdigest())
        partial = path.with_suffix(".fetched")
        partial.write_bytes(content)
        os.replace(partial, path)

    def _published(self, body: Mapping[str, Any]) -> Record | None:
        """The manifest that already says the same of the same file: ours, or another publisher's whose model we offer.

        Were every holder to publish its own, one model would be as many models as it has holders.
        """
        first = {key: value for key, value in body.items() if key != "profile"}
        first["files"] = [[path, root, size] for path, _, root, size in body["files"]]
        mine = [model.manifest for model in self.models.values()]
        for manifest in (*mine, *self.registry.manifests.values()):
            said = body if manifest.version > 1 else first
            if all(manifest.payload.get(field) == value for field, value in said.items()):
                return manifest
        return None

    def _publish(self, body: dict[str, Any], at_ms: int) -> Record:
        common = {"net": self._net, "by": self._key.peer, "at_ms": at_ms}
        what = "the model's card"
        _, payload = compose_or_refuse("manifest", common, body, "E-models-07", what, MANIFEST_VERSION)
        sealed = seal(self._key, "manifest", payload, MANIFEST_VERSION)
        return open_record(sealed, kind="manifest", check_signature=False)

    # ---- cabinets

    async def add_cabinet(
        self, name: str, source: Path, label: str, exclude: list[str], policy: Mapping[str, Any], at_ms: int
    ) -> Cabinet:
        """Take a CSV file under a policy. The file stays where it is; only its header is read here."""
        if not isinstance(label, str) or not isinstance(policy, Mapping):
            raise Refused("E-data-03", "a label is a column's name, a policy a table", "", "dim data add --help")
        path, columns = _place_and_header(source)
        rules = parse_policy(policy)
        if "evaluate" in rules.operations and not label:
            what = f"cabinet {name!r} is to be evaluated on, but no column holds the truth"
            cause = "`evaluate` compares what a model says with a label column"
            raise Refused("E-data-04", what, cause, "--label COLUMN, or leave `evaluate` out of what is allowed")
        for column in (label, *exclude, *sorted(rules.where)):
            if column and column not in columns:
                raise Refused(
                    "E-data-02", f"{source.name} has no column {column!r}", f"it has {', '.join(columns[:8])} …"
                )
        body = {"cabinet": name, **policy_payload(rules)}
        common = {"net": self._net, "by": self._key.peer, "at_ms": at_ms}
        identity, payload = compose_or_refuse("policy", common, body, "E-data-03", "the cabinet's name or policy")
        envelope = seal(self._key, "policy", payload)
        features = [column for column in columns if column != label and column not in exclude]
        await self._journal.commit(
            {
                "records": [("policy", identity, b"", 0, 0, envelope)],
                "cabinets": [(name, path, label, msgspec.json.encode([exclude, features]).decode(), identity)],
            }
        )
        record = open_record(envelope, kind="policy", check_signature=False)
        self.cabinets[name] = Cabinet(name, path, label, tuple(exclude), tuple(features), rules, record)
        return self.cabinets[name]

    def advert_body(self) -> dict[str, Any]:
        """The parts of the advert that come from here. Columns are told as far as one record has room for them."""
        room_bytes, room_columns = LIMITS.records.record_bytes_max // 2, LIMITS.records.record_items_max // 2
        cabinets = []
        for cabinet in sorted(self.cabinets.values(), key=lambda cabinet: cabinet.name)[:64]:
            room_bytes -= len(cabinet.name.encode()) + len(cabinet.label.encode()) + 128
            columns: list[str] = []
            for column in cabinet.columns[:256]:
                if len(column.encode()) + 3 > room_bytes or not room_columns:
                    break
                room_bytes, room_columns = room_bytes - len(column.encode()) - 3, room_columns - 1
                columns.append(column)
            cabinets.append(
                {
                    "name": cabinet.name,
                    "columns": columns,
                    "label": cabinet.label,
                    "operations": sorted(cabinet.policy.operations),
                    "min_cohort": cabinet.policy.min_cohort,
                }
            )
        return {"models": sorted(model.manifest.id for model in self.offered())[:256], "cabinets": cabinets}


def compose_or_refuse(
    kind: str, common: dict[str, Any], body: dict[str, Any], code: str, what: str, version: int = VERSION
) -> tuple[RecordId, bytes]:
    """`compose` for values that a person gave: what does not fit the record is their mistake, not our bug."""
    try:
        return compose(kind, common, body, by_hand=True, version=version)
    except PeerFault as fault:
        raise Refused(code, f"{what} does not fit a record", fault.rule, "shorter names and lists") from None


def policy_of(record: Record) -> Policy:
    """The policy that a policy record states."""
    said = record.payload
    anyone: Any = "any"
    return Policy(
        operations=frozenset(said["operations"]),
        submitters=frozenset(said["submitters"]) if "submitters" in said else anyone,
        models=frozenset(said["models"]) if "models" in said else anyone,
        output_classes=frozenset(said["output_classes"]),
        min_cohort=said["min_cohort"],
        queries_per_day=said["queries_per_day"],
        expires_ms=said.get("expires_ms", 0),
        purpose=said.get("purpose", ""),
        where=frozenset(said.get("x_where", ())),  # in no policy that was signed before conditions were limited
    )


def _keep_model(source: Path, home: Path) -> tuple[str, int]:
    """Copy the file into the home under its own digest: sha256 as hex, bytes. What is hashed is what is kept."""
    folder = home / "models"
    partial = folder / "adding.part"
    size, digest = 0, hashlib.sha256()
    try:
        if source.is_symlink() or not source.is_file():
            raise Refused("E-models-05", f"{source} is not a plain file", "", "check the path")
        with source.open("rb") as file, partial.open("wb") as copy:
            while chunk := file.read(_COPY_BYTES):
                size += len(chunk)
                if size > LIMITS.exec.model_bytes_max:
                    raise Refused(
                        "E-models-06", f"{source} is too large", f"at most {LIMITS.exec.model_bytes_max} bytes"
                    )
                digest.update(chunk)
                copy.write(chunk)
            copy.flush()
            os.fsync(copy.fileno())
        if not size:
            raise Refused("E-models-05", f"{source} is empty", "", "check the path")
        os.replace(partial, model_file(home, digest.hexdigest()))
    except OSError as error:
        raise Refused("E-models-05", f"cannot copy {source}", str(error), "check the path and the free space") from None
    finally:
        partial.unlink(missing_ok=True)
    return digest.hexdigest(), size


def _place_and_header(source: Path) -> tuple[str, list[str]]:
    """Where the file is, whatever directory the node runs in, and its column names."""
    try:
        if not source.is_file():  # opening a pipe would wait for ever
            raise Refused("E-data-01", f"{source} is not a file", "", "check the path")
        with source.open(newline="", encoding="utf-8-sig") as file:
            columns = next(csv.reader(file), [])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise Refused(
            "E-data-01", f"cannot read {source}", str(error), "a CSV file in UTF-8 with one header line"
        ) from None
    if not columns or len(set(columns)) != len(columns):
        raise Refused("E-data-01", f"{source} has no header of distinct column names", "", "add a header line")
    most = LIMITS.cabinets.column_chars_max  # no advert could tell a longer name
    if too_long := [column for column in columns if len(column) > most]:
        cause = f"{most} characters are the most"
        raise Refused("E-data-01", f"{source} has a column {too_long[0][:80]!r}", cause, "rename it")
    return os.fspath(source.absolute()), columns
