"""What can be checked when no node runs: settings, key, runtime, disk.

Rule: it looks and changes nothing, not even a directory.
"""

import shutil
from pathlib import Path
from typing import Any

from dimnode.config import load_config
from dimnode.errors import ConfigError
from dimnode.exec.runtimes.choice import installed

_DISK_BYTES_MIN = 1024**3


def look_around(home: Path) -> list[dict[str, Any]]:
    """One map per check, as a node's own doctor gives them: check, ok, detail, mend."""
    return [_home(home), _settings(home), _key(home), _runtime(), _disk(home)]


def _finding(check: str, ok: bool, detail: str, mend: str = "") -> dict[str, Any]:
    return {"check": check, "ok": ok, "detail": detail, "mend": "" if ok else mend}


def _home(home: Path) -> dict[str, Any]:
    if not home.is_dir():
        return _finding("directory", False, f"{home} does not exist", "dim init")
    closed = not home.stat().st_mode & 0o077
    return _finding("directory", closed, f"{home}" + ("" if closed else " can be read by others"), f"chmod 700 {home}")


def _settings(home: Path) -> dict[str, Any]:
    try:
        config = load_config(home)
    except ConfigError as error:
        return _finding("settings", False, error.complaint.what, error.complaint.cause)
    return _finding("settings", True, f"profile {config.profile}, listens on {', '.join(config.listen)}")


def _key(home: Path) -> dict[str, Any]:
    path = home / "identity.key"
    if not path.exists():
        return _finding("key", True, "none yet: dim init or dim up makes one")
    closed = not path.stat().st_mode & 0o077
    return _finding("key", closed, f"{path}" + ("" if closed else " can be read by others"), f"chmod 600 {path}")


def _runtime() -> dict[str, Any]:
    found, missing = installed(), "no runtime is installed"
    return _finding("runtime", bool(found), ", ".join(found) or missing, "pip install 'dimnode[onnx]'")


def _disk(home: Path) -> dict[str, Any]:
    there = next(path for path in (home, *home.parents) if path.is_dir())
    free = shutil.disk_usage(there).free
    return _finding("disk", free >= _DISK_BYTES_MIN, f"{free / 1024**3:.1f} GiB free at {there}", "free some space")
