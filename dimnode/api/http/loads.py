"""How much memory requests hold in this process while they are answered: of each key, and of all together.

Rule: bytes are counted before they are read or parsed, and given back when the request is over, however it ends.
Pure: no I/O, no clock.
"""

from collections import Counter
from dataclasses import dataclass, field

from dimnode.errors import Refused

_VALUE_BYTES = 100
"""What a number, row or field of JSON costs beside its text, once parsed twice: a generous mean, measured at 90."""
_RETRY_MS = 1000


@dataclass(slots=True)
class Loads:
    """All requests of one door."""

    bytes_max: int
    bytes_per_key_max: int
    held: Counter[str] = field(default_factory=Counter)
    total: int = 0

    def of(self, key: str) -> "Load":
        """What one request of this key holds: nothing yet."""
        return Load(self, key)


@dataclass(slots=True)
class Load:
    """One request's share."""

    loads: Loads
    key: str
    held: int = 0

    def add(self, count: int) -> None:
        """Hold so many bytes more. Raises `Refused` E-http-08 for the key's share, E-http-12 for the door's."""
        loads = self.loads
        if loads.held[self.key] + count > loads.bytes_per_key_max:
            what = "the open requests of this key hold too many bytes"
            raise Refused("E-http-08", what, "", "wait for one to end, or hand less in at once", _RETRY_MS)
        if loads.total + count > loads.bytes_max:
            raise Refused("E-http-12", "this node answers too many large requests now", "", "try again", _RETRY_MS)
        self.held += count
        loads.held[self.key] += count
        loads.total += count

    def release(self) -> None:
        """The request is over. Harmless when repeated."""
        loads = self.loads
        loads.total -= self.held
        loads.held[self.key] -= self.held
        if not loads.held[self.key]:
            del loads.held[self.key]
        self.held = 0


def values_in(chunk: bytes) -> int:
    """At least as many as there are values in this piece of JSON, counted without parsing it."""
    return chunk.count(b",") + chunk.count(b"[") + chunk.count(b"{")


def cost_bytes(chunk: bytes, values: int) -> int:
    """What a piece of a JSON body costs in memory: its text twice, and its values."""
    return 2 * len(chunk) + _VALUE_BYTES * values
