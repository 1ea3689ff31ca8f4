"""This node's cabinets: local data sets under their owner's policies.

Rule: a cabinet is known to others by name, columns and operations; its rows, its path and its cohort sizes stay here.
"""

import csv
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import trio

from dimnode.cabinets.policy import Policy, parse_policy, policy_payload
from dimnode.errors import Refused, why_of
from dimnode.limits import LIMITS
from dimnode.node.composing import compose_or_refuse
from dimnode.records.envelope import Record, SigningKey, seal
from dimnode.records.ids import RecordId
from dimnode.records.kinds import open_record
from dimnode.store.journal import Journal


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


class Cabinets:
    """Read from the journal at start; additions are journalled before they are offered."""

    def __init__(self, key: SigningKey, net: RecordId, journal: Journal) -> None:
        self._key, self._net, self._journal = key, net, journal
        self._changing = trio.Lock()  # what is offered and what the journal says change in the same order
        self.by_name: dict[str, Cabinet] = {}
        rows = self._journal.rows("SELECT name, path, label, columns, policy FROM cabinets WHERE path != ''")
        for name, path, label, columns, policy_id in rows:
            envelope = self._journal.envelope(policy_id)
            assert envelope is not None
            record = open_record(envelope, kind="policy", check_signature=False)
            exclude, features = msgspec.json.decode(columns)
            policy = policy_of(record)
            self.by_name[name] = Cabinet(name, path, label, tuple(exclude), tuple(features), policy, record)

    async def add(
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
        record = open_record(envelope, kind="policy", check_signature=False)
        added = Cabinet(name, path, label, tuple(exclude), tuple(features), rules, record)
        async with self._changing:
            await self._journal.commit(
                {
                    "records": [("policy", identity, b"", 0, 0, envelope)],
                    "cabinets": [(name, path, label, msgspec.json.encode([exclude, features]).decode(), identity)],
                }
            )
            self.by_name[name] = added
        return added

    async def remove(self, name: str) -> None:
        """Offer it no longer; the file stays where it is. Should it come back, what was asked of it still counts.
        Raises `Refused` E-data-05."""
        async with self._changing:
            cabinet = self.by_name.get(name)
            if cabinet is None:
                raise Refused("E-data-05", f"there is no cabinet {name!r} here", "", "dim data ls")
            await self._journal.commit({"cabinets": [(name, "", "", "[[], []]", cabinet.policy_record.id)]})
            del self.by_name[name]

    def told(self) -> list[dict[str, Any]]:
        """What the advert tells of them. Columns are told as far as one record has room for them."""
        room_bytes, room_columns = LIMITS.records.record_bytes_max // 2, LIMITS.records.record_items_max // 2
        cabinets = []
        for cabinet in sorted(self.by_name.values(), key=lambda cabinet: cabinet.name)[:64]:
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
        return cabinets


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


def _place_and_header(source: Path) -> tuple[str, list[str]]:
    """Where the file is, whatever directory the node runs in, and its column names."""
    try:
        if not source.is_file():  # opening a pipe would wait for ever
            raise Refused("E-data-01", f"{source} is not a file", "", "check the path")
        with source.open(newline="", encoding="utf-8-sig") as file:
            table = csv.reader(file)
            columns, first = next(table, []), next(table, None)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise Refused(
            "E-data-01", f"cannot read {source}", why_of(error), "a CSV file in UTF-8 with one header line"
        ) from None
    if not columns or len(set(columns)) != len(columns):
        raise Refused("E-data-01", f"{source} has no header of distinct column names", "", "add a header line")
    most = LIMITS.cabinets.column_chars_max  # no advert could tell a longer name
    if too_long := [column for column in columns if len(column) > most]:
        cause = f"{most} characters are the most"
        raise Refused("E-data-01", f"{source} has a column {too_long[0][:80]!r}", cause, "rename it")
    if first is None:  # such as a key: its only line would be told to everybody as the name of a column
        raise Refused("E-data-01", f"{source} has a header and no rows", "", "a CSV file in UTF-8 with one header line")
    return os.fspath(source.absolute()), columns
