"""Closed models of which this node holds some bytes and not the model: pulls that began, and models that were let go.

Rule: it is written down before the first byte comes, or a restart would open those bytes to whoever names them in a
manifest of its own. As many as the bound says; of more the oldest is forgotten, and its place on the disk used again.
What others make this node begin has places of its own: it costs them little, and would push out the operator's.
"""

from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from dimnode.errors import PeerFault
from dimnode.records.envelope import Record
from dimnode.records.ids import RecordId
from dimnode.records.kinds import open_record
from dimnode.records.manifest import Manifest
from dimnode.store.journal import Journal

_QUERY = "SELECT name, sequence, record FROM names WHERE name LIKE 'begun %' ORDER BY sequence"
_OTHERS: Final = "begun for others "


class Begun:
    """Read from the journal at start. Iterated: the manifests, the oldest first."""

    def __init__(self, journal: Journal, most: int) -> None:
        self._journal, self._sequence = journal, 0
        names = {False: "begun ", True: _OTHERS}
        self._free = {of: [f"{name}{place}" for place in reversed(range(most))] for of, name in names.items()}
        self._places: dict[RecordId, tuple[str, Manifest]] = {}
        for place, self._sequence, raw in journal.rows(_QUERY):
            with suppress(PeerFault, ValueError):  # nothing, or a manifest of a later version: its place is free
                record = open_record(raw, kind="manifest", check_signature=False)
                self._free[place.startswith(_OTHERS)].remove(place)
                self._places[record.id] = place, Manifest.of(record)

    def __iter__(self) -> Iterator[Manifest]:
        return (manifest for _, manifest in self._places.values())

    async def note(self, record: Record, *, for_others: bool = False) -> None:
        """From now on its files are its publisher's to open. Public ones are everybody's, and not noted."""
        manifest = Manifest.of(record)
        found = self._places.get(record.id)
        if manifest.access == "public" or (found and (for_others or not found[0].startswith(_OTHERS))):
            return
        self.over(record.id)  # others began it; the same commit gives it a place of the operator's
        place = self._place(for_others)
        self._places[record.id] = place, manifest
        self._sequence += 1
        await self._journal.commit({"names": [(place, self._sequence, record.envelope)]})

    def _place(self, for_others: bool) -> str:
        """A free one, or that of the oldest."""
        if free := self._free[for_others]:
            return free.pop()
        oldest = next(model for model, (place, _) in self._places.items() if place.startswith(_OTHERS) == for_others)
        return self._places.pop(oldest)[0]

    def over(self, model: RecordId) -> None:
        """It is here whole: the library says whose its files are."""
        if (found := self._places.pop(model, None)) is not None:
            self._free[found[0].startswith(_OTHERS)].append(found[0])
            self._journal.later({"names": [(found[0], self._sequence, b"")]})
