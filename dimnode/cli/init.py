"""`dim init`: settings and a key, once; what others will be able to reach is said before they can.

Rule: nothing that exists is overwritten without --force, and the key never is.
"""

import argparse
import datetime
import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dimnode.cli.node import home_of
from dimnode.cli.output import facts, say_json, talk
from dimnode.config import CONFIG_FILE, PROFILES, Config, render_config
from dimnode.errors import ConfigError
from dimnode.records.ids import peer_text

_NOTHING = "nobody but this machine"


@dataclass(frozen=True, slots=True)
class Tls:
    """Files of the HTTP door, as text for the settings; empty without."""

    certificate: str = ""
    private_key: str = ""
    ends: datetime.datetime | None = None


def init(chosen: argparse.Namespace) -> int:
    """Write config.toml and the key; say what comes next."""
    from dimnode.store.home import load_key, prepare_home

    home = home_of(chosen)
    path = home / CONFIG_FILE
    if path.exists() and not chosen.force:
        hint = "dim up, or dim init --force to write new settings (the key stays)"
        raise ConfigError("E-cli-20", f"{home} is set up already", f"{path} exists", hint)
    _check_http(chosen)
    _check_addresses(chosen)
    prepare_home(home)
    tls = _tls(chosen, home)
    config = _config(chosen, tls)
    peer = peer_text(load_key(home).peer)
    _write(path, render_config(config))
    if chosen.json:
        said = {"peer": peer, "home": str(home), "config": str(path), "exposed": exposed(config)}
        say_json(said | {"certificate": tls.certificate})
        return 0
    lines: list[tuple[str, Any]] = [("peer id", peer), ("settings", path)]
    lines += [("key", f"{home / 'identity.key'} (keep a copy)"), *(("exposed", line) for line in exposed(config))]
    if tls.ends is not None:
        lines.append(("TLS", f"{tls.certificate}, until {tls.ends:%Y-%m-%d}"))
    facts(lines)
    talk("next: dim up")
    return 0


def _write(path: Path, settings: str) -> None:
    """All of it or nothing: what stood there stays until this is on the disk. Raises `ConfigError` E-cli-21."""
    place = path.resolve()  # where it is a link, the file that it leads to
    partial = place.with_suffix(".new")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(settings)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, place)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise ConfigError("E-cli-21", f"cannot write {path}", error.strerror or "", "choose another DIM_HOME") from None


def exposed(config: Config) -> list[str]:
    """Who will reach what, in words."""
    from dimnode.api.http.settings import is_loopback

    inner = all("/127." in address or "/::1/" in address for address in config.listen)
    lines = [f"peers: {_NOTHING if inner else 'whoever reaches ' + ', '.join(config.listen)}; Noise, no plaintext"]
    if not config.http_listen:
        return [*lines, "HTTP: shut"]
    how = "TLS" if config.http_certificate else "in clear"
    whom = _NOTHING if is_loopback(config.http_listen) else f"whoever reaches {config.http_listen}"
    return [*lines, f"HTTP: {whom}, {how}, once a key exists (dim keys new)"]


def _check_addresses(chosen: argparse.Namespace) -> None:
    """What `dim up` would not listen on, or join through, is not written down. Raises `ConfigError` E-p2p-03, -05."""
    if not chosen.listen and not chosen.bootstrap:
        return
    from dimnode.p2p.host.addresses import check_dial, parse_listen

    parse_listen(chosen.listen or ())
    for address in chosen.bootstrap or ():
        check_dial(address)


def _config(chosen: argparse.Namespace, tls: Tls) -> Config:
    said: dict[str, Any] = {
        "profile": chosen.profile,
        "name": chosen.name or "",
        "listen": tuple(chosen.listen or PROFILES[chosen.profile]["listen"]),
        "bootstrap": tuple(chosen.bootstrap or ()),
        "http_certificate": tls.certificate,
        "http_private_key": tls.private_key,
    }
    if chosen.http is not None:
        said["http_listen"] = chosen.http
    return Config(**said)


def _check_http(chosen: argparse.Namespace) -> None:
    """What `dim up` would not do is not written down. Raises `ConfigError` E-http-20, -23."""
    from dimnode.api.http.settings import check_listen, is_loopback

    check_listen(chosen.http or "")
    tls = chosen.self_signed or chosen.certificate or (chosen.profile == "prod" and sys.stdin.isatty())
    insecure = os.environ.get("DIM_HTTP_INSECURE", "").lower() in ("1", "true")
    if not chosen.http or is_loopback(chosen.http) or tls or insecure:
        return
    cause = f"{chosen.http} can be reached by others, and keys would travel in clear"
    hint = "--self-signed, or --certificate FILE --private-key FILE; behind a proxy that has TLS: --http 127.0.0.1:8710"
    raise ConfigError("E-http-23", "the HTTP door needs TLS", cause, hint)


def _tls(chosen: argparse.Namespace, home: Path) -> Tls:
    """Files that were given or asked for, checked; in profile prod a person at a terminal is asked."""
    from dimnode.store.certificates import check_pair, make_self_signed

    if chosen.self_signed:
        names = ["localhost", "127.0.0.1", "::1", socket.gethostname()]
        try:
            pair = make_self_signed(home, list(dict.fromkeys(names)))
        except OSError as error:
            what = f"cannot write the certificate in {home}"
            raise ConfigError("E-cli-21", what, error.strerror or "", "choose another DIM_HOME") from None
        return Tls(str(pair[0]), str(pair[1]), check_pair(*pair))
    given = (chosen.certificate, chosen.private_key)
    if not any(given) and chosen.profile == "prod" and sys.stdin.isatty() and not chosen.json:
        given = _asked()
    if not any(given):
        return Tls()
    if not all(given):
        raise ConfigError("E-cli-10", "--certificate and --private-key go together", "", "dim init --help")
    certificate, private_key = (Path(part).expanduser().absolute() for part in given if part)
    try:
        ends = check_pair(certificate, private_key)
    except (OSError, ValueError) as error:
        hint = "both as PEM (-----BEGIN …), the key without a password and of this certificate; or --self-signed"
        raise ConfigError("E-http-21", "the certificate or its key cannot be used", str(error), hint) from None
    return Tls(str(certificate), str(private_key), ends)


def _asked() -> tuple[Path | None, Path | None]:
    talk("TLS for the HTTP door (empty: it stays on this machine)")
    certificate = input("certificate file (PEM): ").strip()
    if not certificate:
        return None, None
    return Path(certificate), Path(input("private key file (PEM): ").strip())
