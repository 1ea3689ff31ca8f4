"""Keys of the HTTP door: made, listed and revoked here, whether or not the node runs.

Rule: a key's secret is printed once, on stdout, and kept nowhere.
"""

import argparse
import contextlib
import time
from pathlib import Path
from typing import Final

from dimnode.cli.durations import FORM, span_ms
from dimnode.cli.node import home_of
from dimnode.cli.output import clock, say, say_json, shown, table, talk
from dimnode.client import Client
from dimnode.errors import ConfigError, DimError, NoNode, Refused
from dimnode.limits import LIMITS
from dimnode.store.home import prepare_home
from dimnode.store.keys import SCOPES, ApiKey, KeyBook, has_keys

_DEFAULT_SCOPES: Final = ("submit", "read")
_NAME_LETTERS_MAX: Final = 64


def new(chosen: argparse.Namespace) -> int:
    """Make a key, open the door of a running node, and show how to use it. Exit code 1 when the door stays shut."""
    scopes = frozenset(chosen.scope or _DEFAULT_SCOPES)
    for scope in sorted(scopes - set(SCOPES)):
        raise ConfigError("E-keys-02", f"there is no scope {scope!r}", f"scopes: {', '.join(SCOPES)}")
    if len(chosen.name) > _NAME_LETTERS_MAX:
        raise ConfigError("E-keys-02", f"a key's name has at most {_NAME_LETTERS_MAX} letters")
    per_minute, open_jobs = chosen.per_minute, chosen.open_jobs
    for flag, number in (("--per-minute", per_minute), ("--open-jobs", open_jobs)):
        if number is not None and not 1 <= number <= 1_000_000:
            raise ConfigError("E-keys-02", f"{flag} is {number}", "from 1 to 1000000")
    now_ms = time.time_ns() // 1_000_000
    key = ApiKey(
        id="",
        name=chosen.name,
        scopes=scopes,
        models=tuple(chosen.model),
        created_ms=now_ms,
        expires_ms=_expiry_ms(chosen.expires, now_ms),
        revoked_ms=0,
        requests_per_minute=per_minute or LIMITS.http.requests_per_minute,
        open_jobs=open_jobs or LIMITS.http.open_jobs_per_key,
    )
    home = home_of(chosen)
    prepare_home(home)
    with contextlib.closing(KeyBook(home)) as book:
        text = book.create(key)
    url, shut = _opened(home)
    if chosen.json:
        say_json({"key": text, "id": text.split("_")[1], "url": url, "expires_ms": key.expires_ms})
    else:
        say(text)
        talk(f"scopes {', '.join(sorted(scopes))}; {_until(key)}; shown this once, so keep it now")
    if shut is not None:
        for line in shut.complaint.lines():
            talk(line)
        return 1
    if not chosen.json:
        path = "/dim/v1/models" if scopes & {"read", "admin"} else "/health"
        talk(f"try: curl -H 'Authorization: Bearer {text[:9]}…' {url}{path}" if url else "the door opens with: dim up")
    return 0


def _opened(home: Path) -> tuple[str, DimError | None]:
    """The door's URL, "" when no node runs; and why a running node cannot open it: the key is made all the same."""
    try:
        with Client(home) as client:
            return str(client.ask("http.open")["url"]), None
    except DimError as error:
        nobody = isinstance(error, NoNode) and error.complaint.code == "E-cli-01"
        return "", None if nobody else error


def ls(chosen: argparse.Namespace) -> int:
    """Every key that was ever made here."""
    keys: list[ApiKey] = []
    if has_keys(home_of(chosen)):  # to look makes nothing
        with contextlib.closing(KeyBook(home_of(chosen))) as book:
            keys = book.all()
    now_ms = time.time_ns() // 1_000_000
    if chosen.json:
        say_json({"keys": [_map(key, now_ms) for key in keys]})
        return 0
    rows = [
        [
            key.id,
            shown(key.name),
            ", ".join(sorted(key.scopes)),
            ", ".join(map(shown, key.models)) or "all",
            clock(key.created_ms, date=True),
            _state(key, now_ms),
        ]
        for key in keys
    ]
    table(("id", "name", "scopes", "models", "made", "state"), rows, "no key yet: dim keys new")
    return 0


def revoke(chosen: argparse.Namespace) -> int:
    """From now on it is refused, by a running node too."""
    if not has_keys(home_of(chosen)):
        raise Refused(
            "E-keys-01", f"no key with the id or name {chosen.key!r}", "no key was ever made here", "dim keys ls"
        )
    with contextlib.closing(KeyBook(home_of(chosen))) as book:
        key = book.revoke(chosen.key, time.time_ns() // 1_000_000)
    if chosen.json:
        say_json({"revoked": key.id})
    else:
        say(f"revoked {key.id}" + (f" ({shown(key.name)})" if key.name else ""))
    return 0


def _expiry_ms(text: str, now_ms: int) -> int:
    if text == "never":
        return 0
    if (span := span_ms(text)) is None:
        raise ConfigError("E-keys-02", f"--expires {text} is not understood", FORM, "30m, 12h, 7d, 4w or never")
    return now_ms + span


def _until(key: ApiKey) -> str:
    return f"until {clock(key.expires_ms, date=True)}" if key.expires_ms else "does not expire"


def _state(key: ApiKey, now_ms: int) -> str:
    if key.revoked_ms:
        return "revoked"
    return _until(key) if key.is_valid(now_ms) else "expired"


def _map(key: ApiKey, now_ms: int) -> dict[str, object]:
    return {
        "id": key.id,
        "name": key.name,
        "scopes": sorted(key.scopes),
        "models": list(key.models),
        "created_ms": key.created_ms,
        "expires_ms": key.expires_ms,
        "revoked_ms": key.revoked_ms,
        "valid": key.is_valid(now_ms),
        "requests_per_minute": key.requests_per_minute,
        "open_jobs": key.open_jobs,
    }
