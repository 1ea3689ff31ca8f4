"""Start where the last run stopped: the journal's open business back into engine, vault and standing book.

Rule: what the engine says it holds is loaded before the loop runs; nothing else is.
"""

from dimnode.consensus.standing import Standing
from dimnode.jobs.effects import Effect
from dimnode.jobs.engine import Engine
from dimnode.jobs.events import Now
from dimnode.limits import LIMITS
from dimnode.node.rows import forgotten_keys, journal_rows
from dimnode.store.journal import Journal
from dimnode.store.vault import Vault


def load_engine(engine: Engine, journal: Journal, vault: Vault, now: Now) -> list[Effect]:
    """Restore the engine; returns what is left to do."""
    effects, held = engine.restore(list(journal_rows(journal)), forgotten_keys(journal), now)
    for identity in held.records:
        envelope = journal.envelope(identity)
        assert envelope is not None
        vault.hold(identity, envelope)
    for cid in held.blobs:
        blob = journal.blob(cid)
        assert blob is not None
        vault.hold(cid, blob)
    return effects


def load_standing(journal: Journal) -> Standing:
    """The standing book, from its evidence: all of it, some 12 µs a row.

    Not from a part, and not from sums in SQL: who is established counts work of any age, the order decides what was
    forgotten, and the numbers must be those of before to the last bit. What would bound it is a copy of the book in the
    journal, made anew from the rows whenever it is in doubt; below a million rows that saves seconds once a start.
    """
    query = "SELECT peer, context, at_ms, good, weight, kind, record FROM evidence ORDER BY seq"
    return Standing.from_rows(journal.each(query), LIMITS.standing)
