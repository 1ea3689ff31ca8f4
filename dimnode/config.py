"""Settings: file, environment, flags -> one frozen Config. The only reader of settings.

Rule: flags override `DIM_*` variables, which override `config.toml`, which overrides the profile's defaults.
A wrong key or value is a `ConfigError` that names the place.
"""

import hashlib
import os
import re
import stat
import tempfile
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec

from dimnode.errors import ConfigError
from dimnode.limits import LIMITS

CONFIG_FILE: Final = "config.toml"
DEFAULT_P2P_PORT: Final = 4710
_OTHER_VARIABLES: Final = ("DIM_HOME",)
_TEST_VARIABLES: Final = "DIM_TEST_"
_LISTS: Final = ("listen", "bootstrap", "block", "allow", "http_hosts", "http_origins", "relays")
_SOCKET_PATH_BYTES_MAX: Final = 100  # sun_path holds 108 on Linux, 104 on macOS


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What an operator can set. Keys have the names that operators expect."""

    profile: Literal["dev", "prod"] = "dev"
    name: str = ""
    listen: tuple[str, ...] = (f"/ip4/0.0.0.0/tcp/{DEFAULT_P2P_PORT}",)
    bootstrap: tuple[str, ...] = ()
    block: Annotated[tuple[str, ...], msgspec.Meta(max_length=LIMITS.peers.blocked_entries_max)] = ()
    allow: Annotated[tuple[str, ...], msgspec.Meta(max_length=LIMITS.peers.blocked_entries_max)] = ()
    max_concurrent_jobs: Annotated[int, msgspec.Meta(ge=1, le=LIMITS.exec.queue_tasks_max)] = 10
    max_cache_gb: Annotated[float, msgspec.Meta(ge=0, le=1_000_000)] = 50.0
    cache_dir: str = ""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["text", "json"] = "text"
    task_timeout_seconds: Annotated[float, msgspec.Meta(gt=0, le=LIMITS.jobs.deadline_ms_max / 1000)] = 120.0
    execute: bool = True
    workers: Annotated[int, msgspec.Meta(ge=1, le=LIMITS.exec.workers_max)] = 2
    require_sandbox: bool = True
    relay: Literal["auto", "on", "off"] = "auto"
    """Relay for peers that cannot be dialled: when others were seen to reach this node, always, or never."""
    relays: Annotated[tuple[str, ...], msgspec.Meta(max_length=LIMITS.reach.relay_candidates_max)] = ()
    """Addresses of relays to keep a place at while this node cannot be dialled, before those it finds itself."""
    mdns: bool | Literal["auto"] = "auto"
    """Look for peers in the local network; `auto`: when the node listens beyond this machine."""
    http_listen: str = "127.0.0.1:8710"
    """Where the HTTP door listens once a key exists (`dim keys new`); empty: never."""
    http_hosts: tuple[str, ...] = ()
    http_origins: tuple[str, ...] = ()
    http_certificate: str = ""
    http_private_key: str = ""
    http_insecure: bool = False
    faults: str = ""
    """Fault point for tests: only the `dev` profile accepts one (see node.faults)."""


PROFILES: Final[Mapping[str, Mapping[str, Any]]] = {
    "dev": {"listen": [f"/ip4/127.0.0.1/tcp/{DEFAULT_P2P_PORT}"], "require_sandbox": True},
    "prod": {"listen": [f"/ip4/0.0.0.0/tcp/{DEFAULT_P2P_PORT}"], "require_sandbox": True},
}


_RENDERED: Final = (
    *("profile", "name", "listen", "bootstrap", "block", "allow"),
    *("max_concurrent_jobs", "max_cache_gb", "cache_dir", "log_level", "log_format", "task_timeout_seconds"),
    *("execute", "workers", "require_sandbox", "relay", "relays", "mdns"),
    *("http_listen", "http_hosts", "http_origins", "http_certificate", "http_private_key", "http_insecure"),
)
"""What `dim init` writes: everything that an operator may want to see and change."""


def default_home() -> Path:
    """DIM_HOME, else the user's data directory."""
    chosen = os.environ.get("DIM_HOME")
    if chosen:
        return Path(chosen).expanduser()
    data_home = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(data_home).expanduser() / "dimnode"


def socket_path(home: Path) -> Path:
    """Where the control socket is; elsewhere when the home's path is too long for a socket."""
    path = home / "control.sock"
    if len(os.fsencode(path)) <= _SOCKET_PATH_BYTES_MAX:
        return path
    name = "dim-" + hashlib.sha256(os.fsencode(home.resolve())).hexdigest()[:8]
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime:
        path = Path(runtime) / f"{name}.sock"
        if len(os.fsencode(path)) <= _SOCKET_PATH_BYTES_MAX:
            return path
    path = _private_folder(Path(tempfile.gettempdir()) / f"{name}-{os.getuid()}") / "control.sock"
    if len(os.fsencode(path)) > _SOCKET_PATH_BYTES_MAX:
        raise ConfigError("E-store-08", f"{path} is too long for a socket", "", "set XDG_RUNTIME_DIR to a short path")
    return path


def _private_folder(folder: Path) -> Path:
    """A folder of ours in a place where everybody may write: a stranger may have been there first."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise ConfigError("E-store-08", f"cannot use {folder}", str(error), "set XDG_RUNTIME_DIR") from None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise ConfigError("E-store-08", f"{folder} belongs to somebody else", "", "set XDG_RUNTIME_DIR")
    return folder


def load_config(home: Path, flags: Mapping[str, Any] | None = None) -> Config:
    """The settings in force for this home. Raises `ConfigError` naming key and place."""
    from_file = _read_file(home / CONFIG_FILE)
    from_environment = _read_environment(os.environ)
    from_flags = {key: value for key, value in (flags or {}).items() if value is not None}
    profile = {**from_file, **from_environment, **from_flags}.get("profile", "dev")
    merged = {**PROFILES.get(str(profile), {}), **from_file, **from_environment, **from_flags}
    try:
        config = msgspec.convert(merged, Config, strict=False)
    except msgspec.ValidationError as error:
        key = "".join(re.findall(r"\$\.(\w+)|unknown field `(\w+)`", str(error))[0])
        place = (
            "a flag" if key in from_flags else f"DIM_{key.upper()}" if key in from_environment else home / CONFIG_FILE
        )
        known = [field.encode_name for field in msgspec.structs.fields(Config)]
        near = get_close_matches(key, known, 1) if key not in known else []
        hint = f"did you mean {near[0]}?" if near else f"the keys are {', '.join(known)}"
        raise ConfigError("E-config-01", f"a setting is wrong: {error}", f"{key} was read from {place}", hint) from None
    if config.faults and config.profile != "dev":
        raise ConfigError("E-config-03", "fault points exist only in the dev profile")
    return config


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """One line for each `DIM_*` variable that is no setting: it changes nothing, and whoever set it thinks it does."""
    known = ["DIM_" + field.encode_name.upper() for field in msgspec.structs.fields(Config)]
    known += _OTHER_VARIABLES
    strange = sorted(
        name
        for name in environment
        if name.startswith("DIM_") and not name.startswith(_TEST_VARIABLES) and name not in known
    )
    near = {name: get_close_matches(name, known, 1) for name in strange}
    return [
        f"{name} is no setting and changes nothing" + (f"; did you mean {near[name][0]}?" if near[name] else "")
        for name in strange
    ]


def render_config(config: Config) -> str:
    """A commented config.toml with these settings."""
    lines = ["# dimnode settings; DIM_<KEY> variables and flags override them"]
    lines += [f"{key} = {_toml(getattr(config, key))}" for key in _RENDERED]
    return "\n".join(lines) + "\n"


def _read_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(
            "E-config-02", f"cannot read {path}", str(error), "dim init --force writes a new one"
        ) from None


def _read_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field in msgspec.structs.fields(Config):
        value = environment.get("DIM_" + field.encode_name.upper())
        if value is not None:
            many = field.encode_name in _LISTS
            found[field.encode_name] = [part for part in value.split(",") if part] if many else value
    return found


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return msgspec.json.encode(value).decode().replace("\x7f", "\\u007f")  # JSON may leave it, TOML may not
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(entry) for entry in value) + "]"
    return str(value)
