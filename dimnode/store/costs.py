"""What models cost on this machine, kept over a restart: without it a node takes what it knew it has no room for.

Rule: measurements are of one kind of device; a home that was moved to another machine starts anew there, and finds its
own again when it comes back. Written atomically, bounded in rows and bytes; a damaged file costs the measurements.
"""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from dimnode.limits import LIMITS

log = logging.getLogger(__name__)

COSTS_FILE: Final = "costs.json"

_Size = Annotated[int, msgspec.Meta(ge=0, le=64)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
_Positive = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
_Rows = Annotated[float, msgspec.Meta(ge=1, le=2**53)]
"""On an average. A tensor without a number may have two thousand million rows."""


class MeasuredModel(msgspec.Struct, frozen=True):
    """One model: `load` seconds, deviation, count; `runs` size class, seconds, deviation, count, rows; `peaks` size
    class, bytes."""

    model: Annotated[str, msgspec.Meta(max_length=256)]
    load: tuple[_Positive, _Positive, _Count]
    runs: Annotated[tuple[tuple[_Size, _Positive, _Positive, _Count, _Rows], ...], msgspec.Meta(max_length=64)]
    base_bytes: _Count
    peaks: Annotated[tuple[tuple[_Size, _Count], ...], msgspec.Meta(max_length=64)]


class _File(msgspec.Struct, frozen=True, kw_only=True):
    v: Literal[1] = 1
    devices: dict[str, tuple[MeasuredModel, ...]] = {}


class CostBook:
    """The measurements of one home on one kind of device, those used last at the end."""

    def __init__(self, home: Path, device: str) -> None:
        self._path, self._device = home / COSTS_FILE, device
        self._devices = _load(self._path)

    def models(self) -> tuple[MeasuredModel, ...]:
        """What an earlier run measured on such a device."""
        return self._devices.get(self._device, ())

    def keep(self, models: Sequence[MeasuredModel]) -> None:
        """Write, when something is new. A full disk costs the measurements, not the node."""
        kept = tuple(models[-LIMITS.exec.models_estimated_max :])
        if kept == self.models():
            return
        self._devices.pop(self._device, None)
        self._devices[self._device] = kept
        raw = msgspec.json.encode(_File(devices=self._devices))
        while len(raw) > LIMITS.exec.costs_file_bytes_max:
            self._make_room()
            raw = msgspec.json.encode(_File(devices=self._devices))
        partial = self._path.with_suffix(".new")
        try:
            partial.write_bytes(raw)
            os.replace(partial, self._path)
        except OSError:
            partial.unlink(missing_ok=True)

    def _make_room(self) -> None:
        """The device seen longest ago goes first, then half of the models of this one."""
        oldest = next(iter(self._devices))
        if oldest != self._device:
            del self._devices[oldest]
            return
        models = self.models()
        self._devices[self._device] = models[(len(models) + 1) // 2 :]


def _load(path: Path) -> dict[str, tuple[MeasuredModel, ...]]:
    most = LIMITS.exec.costs_file_bytes_max
    try:
        with path.open("rb") as file:
            raw = file.read(most + 1)
        if len(raw) > most:
            raise ValueError("it is too large")
        return msgspec.json.decode(raw, type=_File).devices
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        log.warning("%s cannot be read (%s): what models cost here is measured anew", path, error)
        return {}
