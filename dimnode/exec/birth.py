"""The first thing a worker hears: which model it is for, as bytes and back.

Rule: it is written by the node and read behind the walls, and what does not have its form is a `BrokenFrame`.
Pure: no I/O, no clock.
"""

from dataclasses import dataclass

import msgspec

from dimnode.exec.channel import BrokenFrame
from dimnode.exec.orders import Facts, ModelOrder


@dataclass(frozen=True, slots=True)
class Birth:
    """The model's files as (path, role, cid), in the order of the descriptors that come along, and its facts."""

    files: tuple[tuple[str, str, bytes], ...]
    facts: Facts


_DECODER = msgspec.msgpack.Decoder(Birth)


def birth_bytes(model: ModelOrder) -> bytes:
    """For the "load" frame."""
    return msgspec.msgpack.encode(Birth(tuple((file.path, file.role, file.cid) for file in model.files), model.facts))


def birth_from(packed: bytes) -> Birth:
    """The reverse. Raises `BrokenFrame`."""
    try:
        return _DECODER.decode(packed)
    except msgspec.MsgspecError as error:
        raise BrokenFrame(f"birth: {error}") from None
