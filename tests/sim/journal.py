"""The disk of a simulated node: what survives a crash, and nothing else.

Rule: a transaction is all or nothing; what collides where the real tables have UNIQUE is a failed invariant.
"""

from dataclasses import dataclass, field

from dimnode.consensus.standing import Row as StandingRow
from dimnode.jobs.effects import Append, Effect, Forget, Remember, Reply
from dimnode.jobs.events import Key
from dimnode.jobs.replay import JournalRow
from dimnode.records.codec import decode
from dimnode.records.ids import Cid, PeerId, RecordId

from .vault import Vault


class Broken(AssertionError):
    """An invariant does not hold."""


@dataclass(slots=True)
class Journal:
    """Rows in the order of commits, and the small tables beside them."""

    rows: dict[RecordId, Append] = field(default_factory=dict)
    payloads: dict[RecordId, bytes] = field(default_factory=dict)
    blobs: dict[Cid, bytes] = field(default_factory=dict)
    nonces: dict[tuple[PeerId, bytes], RecordId] = field(default_factory=dict)
    accepted: dict[tuple[RecordId, int], tuple[int, RecordId]] = field(default_factory=dict)
    newest: dict[tuple[RecordId, int], int] = field(default_factory=dict)
    verdicts: dict[RecordId, Append] = field(default_factory=dict)
    forgotten: set[Key] = field(default_factory=set)
    standing: list[StandingRow] = field(default_factory=list)

    def commit(self, effects: list[Effect], vault: Vault) -> None:
        """One transaction."""
        for effect in effects:
            match effect:
                case Append():
                    self._append(effect, vault)
                case Forget(key):
                    self.forgotten.add(key)
                case Remember(evidence):
                    self.standing.append(evidence.row)

    def _append(self, row: Append, vault: Vault) -> None:
        job = row.key[0]
        if row.nonce is not None and self.nonces.setdefault(row.nonce, row.id) != row.id:
            raise Broken("one nonce, two jobs")
        if row.kind == "lease":
            self.newest[row.key[:2]] = max(row.key[2], self.newest.get(row.key[:2], 0))
        for task, epoch, answer in row.accepted:
            if self.accepted.setdefault((job, task), (epoch, answer)) != (epoch, answer):
                raise Broken("two accepted answers for one task")
            if self.newest[job, task] != epoch:
                raise Broken("accepted an answer of an older epoch")
        if row.kind == "verdict" and self.verdicts.setdefault(job, row) is not row:
            raise Broken("two verdicts for one job")
        for cid in row.blobs:
            self.blobs[cid] = vault.blob(cid)
        if row.id not in self.payloads:
            self.payloads[row.id] = vault.record(row.id)
        self.rows.setdefault(row.id, row)

    def read(self) -> list[JournalRow]:
        """All rows, as the store gives them back."""
        answers = {answer for _, answer in self.accepted.values()}
        found = []
        for row in self.rows.values():
            payload = decode(self.payloads[row.id])
            by = PeerId(payload["by"])
            found.append(JournalRow(row.kind, row.id, row.key, by, payload, row.openings, row.id in answers))
        return found

    def ended(self, nonce: tuple[PeerId, bytes]) -> Reply | None:
        """How the job with this nonce ended, if it did."""
        job = self.nonces.get(nonce)
        verdict = self.verdicts.get(job) if job is not None else None
        if job is None or verdict is None:
            return None
        return Reply(None, job, decode(self.payloads[verdict.id])["status"], verdict.id, ())
