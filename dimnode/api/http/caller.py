"""Who asks over HTTP, and what that one may do.

Rule: a request has exactly one caller, made from its key before any route runs; names and ids of callers never enter a
record. Pure: no I/O, no clock.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from dimnode.api.http.loads import Load
from dimnode.errors import Refused
from dimnode.records.ids import cid_text, peer_text, record_named

ADMIN: Final = "admin"
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_TRACE_PARENT: Final = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


class Key(Protocol):
    """What this door knows of a key."""

    @property
    def id(self) -> str:
        """A few letters that may be shown and logged."""

    @property
    def scopes(self) -> frozenset[str]:
        """submit, read, review, admin."""

    @property
    def models(self) -> Sequence[str]:
        """Names of the models it may use; empty for all."""

    @property
    def requests_per_minute(self) -> int:
        """Its share of this door."""

    @property
    def open_jobs(self) -> int:
        """How many of its jobs may be open at once."""

    def is_valid(self, now_ms: int) -> bool:
        """Neither revoked nor expired."""


@dataclass(frozen=True, slots=True)
class Caller:
    """A key that is valid now, and the request that it is used for."""

    key: Key
    request_id: str
    load: Load
    trace_parent: str = ""

    @property
    def is_admin(self) -> bool:
        """Sees the jobs of all keys, and may change what the node offers."""
        return ADMIN in self.key.scopes

    def need(self, scope: str) -> None:
        """Raises `Refused` E-http-02 unless the key has this scope, or is an admin's."""
        if scope not in self.key.scopes and not self.is_admin:
            has = ", ".join(sorted(self.key.scopes)) or "none"
            hint = f"dim keys new --scope {scope}"
            raise Refused("E-http-02", f"this key may not do that: it lacks the scope {scope}", f"it has: {has}", hint)

    def need_model(self, names: Sequence[str]) -> None:
        """Raises `Refused` E-http-02 unless the key may use a model that goes by these names."""
        allowed = self.key.models
        if allowed and not any(name in allowed for name in names):
            what = f"this key may not use the model {names[0][:80]!r}"
            raise Refused("E-http-02", what, f"it may use: {', '.join(allowed[:8])}", "dim keys new --model NAME")


def request_id_of(text: str, fresh: str) -> str:
    """The client's own id for a request when it is a plain short word, else a fresh one."""
    return text if _REQUEST_ID.fullmatch(text) else fresh


def trace_parent_of(text: str) -> str:
    """A W3C traceparent of version 00, or nothing. Source: https://www.w3.org/TR/trace-context/"""
    return text if _TRACE_PARENT.fullmatch(text) else ""


def model_names(record: Any) -> tuple[str, ...]:
    """Every way to name the model of a manifest record: name:version, name, id, and both names after a publisher."""
    said = record.payload
    names = (f"{said['name']}:{said['version']}", str(said["name"]))
    return names_of_model(names, cid_text(record.id), peer_text(record.by))


def names_of_model(names: Sequence[str], identity: str, publisher: str) -> tuple[str, ...]:
    """The same. A key may be bound to an id, or to a publisher's model: who calls a model by such letters has no part
    in that."""
    bare = (name for name in names if "/" not in name and record_named(name) is None)
    return (*bare, identity, *(f"{publisher}/{name}" for name in names))
