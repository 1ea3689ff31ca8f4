"""Closed models of which this node holds some bytes and not the model: pulls that began, and models that were let go.

Rule: it is written down before the first byte comes, or a restart would open those bytes to whoever names them in a
manifest of its own. As many as the bound says; of more the oldest is forgotten, and its place on the disk used again.
"""

from collections.abc import Iterator
from contextlib import suppress

from dimnode.errors import PeerFault
from dimnode.records.envelope import Record
from dimnode.records.ids import RecordId
from dimnode.records.kinds import open_record
from dimnode.records.manifest import Manifest
from dimnode.store.journal import Journal

_QUERY = "SELECT name, sequence, record FROM names WHERE name LIKE 'begun %' ORDER BY sequence"


class Begun:
    """Read from the journal at start. Iterated: the manifests, the oldest first."""

    def __init__(self, journal: Journal, most: int) -> None:
        self._journal, self._sequence = journal, 0
        self._free = [f"begun {place}" for place in reversed(range(most))]
        self._places: dict[RecordId, tuple[str, Manifest]] = {}
        for place, self._sequence, raw in journal.rows(_QUERY):
            with suppress(PeerFault, ValueError):  # nothing, or a manifest of a later version: its place is free
                record = open_record(raw, kind="manifest", check_signature=False)
                self._free.remove(place)
                self._places[record.id] = place, Manifest.of(record)

    def __iter__(self) -> Iterator[Manifest]:
        return (manifest for _, manifest in self._places.values())

    async def note(self, record: Record) -> None:
        """From now on its files are its publisher's to open. Public ones are everybody's, and not noted."""
        manifest = Manifest.of(record)
        if manifest.access == "public" or record.id in self._places:
            return
        place = self._free.pop() if self._free else self._places.pop(next(iter(self._places)))[0]
        self._places[record.id] = place, manifest
        self._sequence += 1
        await self._journal.commit({"names": [(place, self._sequence, record.envelope)]})

    def over(self, model: RecordId) -> None:
        """It is here whole: the library says whose its files are."""
        if (found := self._places.pop(model, None)) is not None:
            self._free.append(found[0])
            self._journal.later({"names": [(found[0], self._sequence, b"")]})
