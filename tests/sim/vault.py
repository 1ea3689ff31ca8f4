"""The memory of a simulated node: records and blobs, counted by holder.

Rule: whoever is named is held, whoever is let go was held: a count below zero or a missing entry is a failed invariant.
"""

from collections import Counter

from dimnode.jobs.effects import Release
from dimnode.records.ids import Cid, RecordId, blob_cid, record_id


class Vault:
    """Bytes by id. `crashed` nodes simply throw theirs away."""

    def __init__(self) -> None:
        self._bytes: dict[RecordId | Cid, bytes] = {}
        self._holds: Counter[RecordId | Cid] = Counter()

    def __len__(self) -> int:
        return len(self._holds)

    def __contains__(self, identity: RecordId | Cid) -> bool:
        return identity in self._holds

    def hold_record(self, payload: bytes) -> RecordId:
        """One more holder of a record."""
        identity = record_id(payload)
        self._bytes[identity] = payload
        self._holds[identity] += 1
        return identity

    def hold_blob(self, blob: bytes) -> Cid:
        """One more holder of a blob."""
        cid = blob_cid(blob)
        self._bytes[cid] = blob
        self._holds[cid] += 1
        return cid

    def release(self, effect: Release) -> None:
        """One holder fewer of each."""
        for name in (*effect.records, *effect.blobs):
            assert self._holds[name] > 0, "released what nobody holds"
            self._holds[name] -= 1
            if not self._holds[name]:
                del self._holds[name]
                del self._bytes[name]

    def record(self, identity: RecordId) -> bytes:
        """The payload of a held record."""
        assert identity in self._bytes, "a record that is needed is not held"
        return self._bytes[identity]

    def blob(self, cid: Cid) -> bytes:
        """The bytes of a held blob."""
        assert cid in self._bytes, "a blob that is needed is not held"
        return self._bytes[cid]
