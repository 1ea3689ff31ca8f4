"""Who may do what with a model: its manifest's policy, the grants that its publisher signed, what was withdrawn.

Rule: only the publisher of a model speaks for it. A grant counts when the publisher signed it, for this peer, this
model and this operation, when it has not ended and was not taken back; a withdrawal counts when it is signed by whoever
signed what it names. Everything else is noise, whoever sent it.
Pure: no I/O, no clock. Codes: docs/errors.md.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from dimnode.records.envelope import Record
from dimnode.records.ids import PeerId, RecordId, short
from dimnode.records.manifest import Manifest

FETCH: Final = "fetch"
Withdrawn = Callable[[PeerId, RecordId], Record | None]
"""The withdrawal of a record by its signer, if there is one."""


@dataclass(frozen=True, slots=True)
class Access:
    """A decision. `grant` is what it stands on, when it stands on one; `code` and `cause` say why not."""

    allowed: bool
    code: str = ""
    cause: str = ""
    grant: Record | None = None


YES: Final = Access(True)


def judge(
    manifest: Manifest, peer: PeerId, operation: str, grants: Iterable[Record], withdrawn: Withdrawn, now_ms: int
) -> Access:
    """Whether `peer` may have this done with the model now: `fetch`, or an operation of a task."""
    gone = withdrawn(manifest.by, manifest.id)
    if gone is not None:
        reason = gone.payload["reason"] or "its publisher gave no reason"
        return Access(False, "E-models-24", f"{manifest.title} was withdrawn: {reason}")
    if manifest.access == "public" or peer == manifest.by:
        return YES
    if manifest.access == "private":
        return Access(False, "E-models-20", f"{manifest.title} is private: only its publisher may use it")
    problems = []
    for grant in grants:
        code = _problem(manifest, peer, operation, grant, withdrawn, now_ms)
        if not code:
            return Access(True, grant=grant)
        problems.append(code)
    code = min(problems, key=_CLOSENESS.index, default=_NOT_GIVEN)
    return Access(False, code, _CAUSES[code].format(title=manifest.title, peer=short(peer), operation=operation))


_NOT_GIVEN: Final = "E-models-21"
_CLOSENESS: Final = ("E-models-25", "E-models-22", "E-models-23", _NOT_GIVEN)
"""Of several grants that do not do, the one that comes closest says why."""
GRANTABLE: Final = frozenset(_CLOSENESS)
"""Refusals that a grant of the publisher mends."""
_CAUSES: Final = {
    "E-models-21": "{title} needs a grant of its publisher, and …{peer} has shown none",
    "E-models-22": "the grant of {title} to …{peer} has ended",
    "E-models-23": "the grant of {title} to …{peer} was taken back",
    "E-models-25": "the grant of {title} to …{peer} does not allow {operation}",
}


def _problem(manifest: Manifest, peer: PeerId, operation: str, grant: Record, withdrawn: Withdrawn, now_ms: int) -> str:
    """The code of what is wrong with one grant, "" when nothing is."""
    said = grant.payload
    if grant.kind != "grant" or grant.by != manifest.by or said["peer"] != peer or manifest.id not in said["models"]:
        return _NOT_GIVEN
    if withdrawn(grant.by, grant.id) is not None:
        return "E-models-23"
    if now_ms >= said.get("expires_ms", now_ms + 1):
        return "E-models-22"
    return "" if operation in said["operations"] else "E-models-25"
