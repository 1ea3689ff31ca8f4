"""Settings: file, environment, flags -> one frozen Config. The only reader of settings.

Rule: flags override `DIM_*` variables, which override `config.toml`, which overrides the profile's defaults.
A wrong key or value is a `ConfigError` that names the place.
"""

import hashlib
import ipaddress
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

from dimnode.errors import ConfigError, why_of
from dimnode.limits import LIMITS
from dimnode.posix.files import is_ours, user
from dimnode.schema_words import in_words

CONFIG_FILE: Final = "config.toml"
DEFAULT_P2P_PORT: Final = 4710
_OTHER_VARIABLES: Final = ("DIM_HOME",)
_TEST_VARIABLES: Final = "DIM_TEST_"
_LISTS: Final = (
    *("listen", "bootstrap", "block", "allow", "http_hosts", "http_origins", "relays"),
    *("prewarm", "pinned_models"),
)
_TABLES: Final = ("bitswap", "kubo", "quotas")
"""Settings that are tables of the file: no variable of their name sets them."""
_API: Final = re.compile(
    r"/(?P<kind>ip4|ip6|dns|dns4|dns6)/(?P<host>[0-9A-Za-z:.-]{1,253})/tcp/(?P<port>\d{1,5})(?:/(?P<scheme>https?))?"
)
_SOCKET_PATH_BYTES_MAX: Final = 100  # sun_path holds 108 on Linux, 104 on macOS


class KuboConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The table `[kubo]`: an IPFS daemon of this operator (docs/kubo.md). Without `api` nothing of it is used."""

    api: str = ""
    """Where its RPC listens, as a multiaddress."""
    remote: bool = False
    """Allow an `api` on another machine: whoever can reach it rules that daemon, and reads what is sent to it."""
    models: bool = True
    """Add public models of this node, and pin them."""
    receipts: Literal["redacted", "whole", "off"] = "redacted"
    """Add receipts of this node's jobs: every signature without what it speaks about, with it, or not at all."""
    fetch: Literal["local", "network", "off"] = "local"
    """Take blobs from what the daemon has, from what it can find among its peers, or not at all."""
    name: bool = True
    """Keep an IPNS name that points to the index of this node's public models."""
    private_swarm: bool = False
    """Do all this in a private swarm, too: what a daemon holds, the public network can ask it for."""


class BitswapConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[bitswap]`: IPFS peers that are no dimnodes (docs/content.md). Of no effect in a private swarm."""

    serve: bool = False
    """Hand out to them what everybody may fetch here, and let them stay connected for it."""
    fetch: bool = False
    """Allow `dim blobs get CID --from MULTIADDRESS` to ask one of them."""


class QuotaTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[quotas.peers."PEER"]`: what is set here for one identity instead of what `[quotas]` says."""

    max_queued: Annotated[int, msgspec.Meta(ge=0, le=LIMITS.exec.queue_tasks_max)] | None = None
    share: Annotated[float, msgspec.Meta(ge=0.01, le=1000)] | None = None
    max_priority: Literal["low", "normal", "high"] | None = None


class QuotasTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[quotas]`: what one identity may have waiting here, its share of worker time, the best priority it may ask for.

    `peers` maps a peer id, or `self` for the jobs of this node, to what differs.
    """

    max_queued: Annotated[int, msgspec.Meta(ge=0, le=LIMITS.exec.queue_tasks_max)] = 256
    share: Annotated[float, msgspec.Meta(ge=0.01, le=1000)] = 1.0
    max_priority: Literal["low", "normal", "high"] = "high"
    peers: Annotated[dict[str, QuotaTable], msgspec.Meta(max_length=LIMITS.exec.quotas_max)] = {}


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
    fetch_models: Literal["never", "own", "members", "anyone"] = "members"
    """Whose jobs may make this node fetch a model that it lacks: this node's own, also those of a private swarm's
    members (nobody else's in the open swarm), or anyone's."""
    fetch_model_gb_max: Annotated[float, msgspec.Meta(ge=0, le=1_000)] = 2.0
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
    kubo: KuboConfig = KuboConfig()
    bitswap: BitswapConfig = BitswapConfig()
    onnx_device: Literal["auto", "cpu", "cuda", "coreml"] = "auto"
    """What ONNX models run on; `auto`: CUDA where it is and works behind the walls, else the processor."""
    torch_device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """The same for models of torch and transformers; `auto`: CUDA or MPS."""
    benchmark: bool = True
    """Measure at the first start how many jobs per second this machine does, and say so in the advert."""
    prewarm: Annotated[tuple[str, ...], msgspec.Meta(max_length=LIMITS.exec.workers_loaded_max)] = ()
    """Models that are loaded at the start."""
    pinned_models: Annotated[tuple[str, ...], msgspec.Meta(max_length=LIMITS.exec.workers_loaded_max)] = ()
    """Models that, once loaded, stay so, whatever is used more."""
    max_loaded_gb: Annotated[float, msgspec.Meta(ge=0, le=1_000_000)] = 0.0
    """GiB that loaded models may take in all; 0: half of the machine's memory."""
    runtime_idle_seconds: Annotated[
        float, msgspec.Meta(ge=LIMITS.exec.runtime_idle_seconds_min, le=LIMITS.exec.runtime_idle_seconds_max)
    ] = 900.0
    """After so long without a loaded model a runtime other than ONNX is ended, and started again when it is needed."""
    quotas: QuotasTable = QuotasTable()
    faults: str = ""
    """Fault point for tests: only the `dev` profile accepts one (see node.faults)."""


PROFILES: Final[Mapping[str, Mapping[str, Any]]] = {
    "dev": {"listen": [f"/ip4/127.0.0.1/tcp/{DEFAULT_P2P_PORT}"], "require_sandbox": True},
    "prod": {"listen": [f"/ip4/0.0.0.0/tcp/{DEFAULT_P2P_PORT}"], "require_sandbox": True},
}


_RENDERED: Final = (
    *("profile", "name", "listen", "bootstrap", "block", "allow"),
    *("max_concurrent_jobs", "max_cache_gb", "cache_dir", "log_level", "log_format", "task_timeout_seconds"),
    *("execute", "workers", "require_sandbox", "fetch_models", "fetch_model_gb_max", "relay", "relays", "mdns"),
    *("onnx_device", "torch_device", "benchmark", "prewarm", "pinned_models", "max_loaded_gb", "runtime_idle_seconds"),
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
    """Where the control socket is; elsewhere when the home's path is too long for a socket. From wherever somebody
    names a home, it is the same place. Raises `ConfigError` E-store-08."""
    home = home.absolute()
    path = home / "control.sock"
    if len(os.fsencode(path)) <= _SOCKET_PATH_BYTES_MAX:
        return path
    name = "dim-" + hashlib.sha256(os.fsencode(home.resolve())).hexdigest()[:8]
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime:
        path = Path(runtime) / f"{name}.sock"
        if len(os.fsencode(path)) <= _SOCKET_PATH_BYTES_MAX:
            return path
    path = _private_folder(Path(tempfile.gettempdir()) / f"{name}-{user()}") / "control.sock"
    if len(os.fsencode(path)) > _SOCKET_PATH_BYTES_MAX:
        raise ConfigError("E-store-08", f"{path} is too long for a socket", "", "set XDG_RUNTIME_DIR to a short path")
    return path


def _private_folder(folder: Path) -> Path:
    """A folder of ours in a place where everybody may write: a stranger may have been there first."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise ConfigError("E-store-08", f"cannot use {folder}", why_of(error), "set XDG_RUNTIME_DIR") from None
    if not stat.S_ISDIR(found.st_mode) or not is_ours(found) or found.st_mode & 0o077:
        raise ConfigError("E-store-08", f"{folder} belongs to somebody else", "", "set XDG_RUNTIME_DIR")
    return folder


def load_config(home: Path, flags: Mapping[str, Any] | None = None) -> Config:
    """The settings in force for this home. Raises `ConfigError` naming key and place."""
    from_file = _read_file(home / CONFIG_FILE)
    from_environment = _read_environment(os.environ)
    from_flags = {key: value for key, value in (flags or {}).items() if value is not None}
    profile = {**from_file, **from_environment, **from_flags}.get("profile", "dev")
    merged = {**PROFILES.get(str(profile), {}), **from_file, **from_environment, **from_flags}
    kubo = [table for table in (from_file.get("kubo"), from_environment.get("kubo")) if isinstance(table, dict)]
    if len(kubo) == 2:
        merged["kubo"] = {**kubo[0], **kubo[1]}
    try:
        config = msgspec.convert(merged, Config, strict=False)
    except msgspec.ValidationError as error:
        key = _wrong_key(str(error))
        first, _, inner = key.partition(".")
        variable = f"DIM_{key.replace('.', '_').upper()}"
        in_environment = inner in from_environment.get(first, ()) if inner else first in from_environment
        place = "a flag" if first in from_flags else variable if in_environment else home / CONFIG_FILE
        tables: dict[str, type[msgspec.Struct]] = {"bitswap": BitswapConfig, "kubo": KuboConfig, "quotas": QuotasTable}
        struct, word = (tables.get(first, Config), inner) if inner else (Config, key)
        known = [field.encode_name for field in msgspec.structs.fields(struct)]
        near = get_close_matches(word, known, 1) if word not in known else []
        hint = f"did you mean {near[0]}?" if near else f"the keys are {', '.join(known)}"
        hint = f"give {key} such a value, or leave it out" if word in known else hint
        what = in_words(error, Config).partition(";")[0]  # the hint knows the tables' names too
        raise ConfigError("E-config-01", f"a setting is wrong: {what}", f"{key} was read from {place}", hint) from None
    if config.kubo.api:
        check_api(config.kubo)
    if config.faults and config.profile != "dev":
        raise ConfigError("E-config-03", "fault points exist only in the dev profile")
    return config


def _wrong_key(text: str) -> str:
    """`workers` or `kubo.api`, out of what msgspec says."""
    place = ".".join(re.findall(r"\$\.([\w.]+)", text)[:1])
    unknown = re.findall(r"unknown field `(\w+)`", text)[:1]
    return ".".join(filter(None, (place, *unknown)))


def api_url(api: str) -> str:
    """The URL of a daemon's multiaddress: /ip4/…/tcp/… (ip6, dns too), then nothing, /http or /https. Raises
    `ConfigError`."""
    found = _API.fullmatch(api)
    if found is None or not 0 < int(found["port"]) < 65536:
        raise ConfigError(
            "E-kubo-02", f"[kubo] api = {api!r} is no address of a daemon", "", 'api = "/ip4/127.0.0.1/tcp/5001"'
        )
    host = f"[{found['host']}]" if found["kind"] == "ip6" else found["host"]
    return f"{found['scheme'] or 'http'}://{host}:{found['port']}"


def check_api(kubo: KuboConfig) -> None:
    """Raises `ConfigError` E-kubo-02: the address is none, or not of this machine without `remote`."""
    api_url(kubo.api)
    found = _API.fullmatch(kubo.api)
    assert found is not None
    try:
        here = ipaddress.ip_address(found["host"]).is_loopback
    except ValueError:
        here = found["host"] == "localhost"
    if not here and not kubo.remote:
        cause = "whoever can reach that interface rules the daemon, and it is not encrypted"
        hint = "tunnel it to 127.0.0.1, or set remote = true in [kubo]"
        raise ConfigError("E-kubo-02", f"[kubo] api = {kubo.api!r} is on another machine", cause, hint)


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """One line for each `DIM_*` variable that is no setting: it changes nothing, and whoever set it thinks it does."""
    known = [
        "DIM_" + field.encode_name.upper() for field in msgspec.structs.fields(Config) if field.name not in _TABLES
    ]
    known += ["DIM_KUBO_" + field.encode_name.upper() for field in msgspec.structs.fields(KuboConfig)]
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
    lines += [
        "",
        "# an IPFS daemon of yours that models and receipts are added to; empty api: none (docs/kubo.md)",
        "[kubo]",
    ]
    lines += [
        f"{field.name} = {_toml(getattr(config.kubo, field.name))}" for field in msgspec.structs.fields(KuboConfig)
    ]
    lines += ["", "# IPFS peers that are no dimnodes (docs/content.md)", "[bitswap]"]
    lines += [f"{key} = {_toml(getattr(config.bitswap, key))}" for key in ("serve", "fetch")]
    return "\n".join([*lines, *_quota_lines(config.quotas)]) + "\n"


def _quota_lines(quotas: QuotasTable) -> list[str]:
    """Tables come last: whatever follows a table's head belongs to it."""
    lines = ["", "[quotas]"]
    lines += [f"{key} = {_toml(getattr(quotas, key))}" for key in ("max_queued", "share", "max_priority")]
    for peer, quota in quotas.peers.items():
        said = msgspec.structs.asdict(quota).items()
        lines += ["", f"[quotas.peers.{_toml(peer)}]"]
        lines += [f"{key} = {_toml(value)}" for key, value in said if value is not None]
    return lines


def _read_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:  # lists in lists in lists; a number of 5,000 digits
        hint = "mend it there; dim init --force writes a new one, without what you set"
        if isinstance(error, NotADirectoryError):  # a file was named as the home
            hint = "choose another DIM_HOME"
        raise ConfigError("E-config-02", f"cannot read {path}", why_of(error), hint) from None


def _read_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field in msgspec.structs.fields(Config):
        if field.name in _TABLES:
            continue
        value = environment.get("DIM_" + field.encode_name.upper())
        if value is not None:
            many = field.encode_name in _LISTS
            found[field.encode_name] = [part for part in value.split(",") if part] if many else value
    names = {field.name: f"DIM_KUBO_{field.name.upper()}" for field in msgspec.structs.fields(KuboConfig)}
    table = {key: environment[name] for key, name in names.items() if name in environment}
    if table:
        found["kubo"] = table
    return found


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return msgspec.json.encode(value).decode().replace("\x7f", "\\u007f")  # JSON may leave it, TOML may not
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(entry) for entry in value) + "]"
    return str(value)
