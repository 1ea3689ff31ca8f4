"""What was asked of this node's cabinets: today's count and earlier row sets, so that the policy can refuse.

Rule: the journal keeps every query; refused ones count towards the day, since a refusal tells something too.
"""

from dimnode.limits import LIMITS
from dimnode.node.clock import wall_ms
from dimnode.store.journal import Journal

_DAY_MS = 86_400_000


class CabinetUse:
    """The use log of all cabinets, mirrored in memory as far as decisions need it."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._times: dict[str, list[int]] = {}
        self._masks: dict[str, dict[int, bytes]] = {}
        query = "SELECT cabinet, at_ms, rows, conditions FROM queries ORDER BY seq"
        for cabinet, at_ms, rows, conditions in journal.rows(query):
            self._take(cabinet, at_ms, int.from_bytes(rows, "little"), conditions)

    def now_ms(self) -> int:
        """Wall clock, for policies that expire and quotas by day."""
        return wall_ms()

    def so_far(self, cabinet: str, now_ms: int) -> tuple[int, list[int]]:
        """Queries in the last 24 hours, and the row sets of earlier allowed ones."""
        masks = self._masks.get(cabinet, {})
        if len(masks) >= LIMITS.cabinets.row_sets_kept_max:  # no room to compare with: better refuse than forget
            return LIMITS.cabinets.queries_per_day_max, list(masks)
        recent = [at_ms for at_ms in self._times.get(cabinet, ()) if at_ms > now_ms - _DAY_MS]
        self._times[cabinet] = recent
        return len(recent), list(masks)

    def repeated(self, cabinet: str, rows: int, conditions: bytes) -> bool:
        """These very conditions picked these very rows in an earlier allowed query."""
        return self._masks.get(cabinet, {}).get(rows) == conditions

    def note(self, cabinet: str, now_ms: int, submitter: bytes, rows: int, conditions: bytes = b"") -> None:
        """Write down a query; `rows` is its row mask when it was allowed, else 0."""
        self._take(cabinet, now_ms, rows, conditions)
        raw = rows.to_bytes((rows.bit_length() + 7) // 8, "little")
        self._journal.later({"queries": [(cabinet, now_ms, submitter, raw, conditions)]})

    def _take(self, cabinet: str, at_ms: int, rows: int, conditions: bytes) -> None:
        self._times.setdefault(cabinet, []).append(at_ms)
        masks = self._masks.setdefault(cabinet, {})
        if rows and len(masks) < LIMITS.cabinets.row_sets_kept_max:
            masks.setdefault(rows, conditions)
