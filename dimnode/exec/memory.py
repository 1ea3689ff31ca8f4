"""How much memory processes and this machine have, and what is known of a graphics processor.

Rule: a figure is measured now or it is None; nothing here is estimated. Reads are cheap enough for once a second.
On Linux a process's own part is its resident set less what it maps from files or shares (statm); elsewhere the
resident set, which counts shared pages too.
"""

import ctypes
import functools
import platform
import sys
from collections.abc import Mapping
from typing import Any

import psutil

from dimnode.posix.processes import process_peak_bytes


def process_bytes(pid: int) -> int | None:
    """What this process takes for itself; None when it is gone or may not be looked at."""
    try:
        found = psutil.Process(pid).memory_info()
    except (psutil.Error, OSError, ValueError):
        return None
    return max(0, int(found.rss) - int(getattr(found, "shared", 0)))


def process_use(pid: int) -> tuple[int, int]:
    """Processor time of this process in microseconds and its peak of memory; (0, 0) when it is gone or not known."""
    if not pid:
        return 0, 0
    try:
        times = psutil.Process(pid).cpu_times()
    except (psutil.Error, OSError, ValueError):
        return 0, 0
    return int((times.user + times.system) * 1e6), process_peak_bytes(pid) or process_bytes(pid) or 0


_last_read: list[tuple[int, int]] = []


def machine_bytes() -> tuple[int, int]:
    """Total and available memory of this machine; as last read while no file is left to read it from."""
    try:
        found = psutil.virtual_memory()
    except OSError:  # strangers' connections may have taken all files: no reason for a node to end
        return _last_read[0] if _last_read else (0, 0)
    _last_read[:] = [(int(found.total), int(found.available))]
    return _last_read[0]


@functools.cache
def graphics() -> Mapping[str, Any]:
    """The graphics processor that a runtime here could use: kind, name, memory; kind "none" where there is none.

    Asks the driver's own library (NVML) without loading a runtime. Written for CUDA and Apple silicon, and untested on
    both (docs/platforms.md).
    """
    if sys.platform == "darwin" and platform.machine() == "arm64":
        return {"kind": "mps", "name": "Apple silicon", "memory_bytes": machine_bytes()[0]}
    return _nvidia() or {"kind": "none"}


def graphics_used_bytes() -> int | None:
    """Memory in use on the first CUDA device now; None where there is none."""
    found = _nvidia() if graphics()["kind"] == "cuda" else None
    return int(found["used_bytes"]) if found is not None else None


def _nvidia() -> dict[str, Any] | None:
    """The first device as NVML sees it (docs.nvidia.com/deploy/nvml-api); None without a driver."""
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None
    device, name, memory = ctypes.c_void_p(), ctypes.create_string_buffer(96), (ctypes.c_ulonglong * 3)()
    steps = (
        (library.nvmlInit_v2,),
        (library.nvmlDeviceGetHandleByIndex_v2, 0, ctypes.byref(device)),
        (library.nvmlDeviceGetName, device, name, len(name)),
        (library.nvmlDeviceGetMemoryInfo, device, memory),
    )
    if any(call(*arguments) != 0 for call, *arguments in steps):
        return None
    total, _, used = memory
    return {"kind": "cuda", "name": name.value.decode(errors="replace"), "memory_bytes": total, "used_bytes": used}
