"""Where the HTTP door listens and for whom. Rule: importing this costs nothing, so the command line may ask too."""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from dimnode.errors import ConfigError


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """`hosts` are further names that this door goes by; `origins` pages of other doors that may ask."""

    listen: str = "127.0.0.1:8710"
    hosts: Sequence[str] = ()
    origins: Sequence[str] = ()
    certificate: str = ""
    private_key: str = ""


def check_listen(listen: str) -> None:
    """Raises `ConfigError` E-http-20 for what is no HOST:PORT; empty is: never."""
    _, colon, port = listen.rpartition(":")
    if listen and not (colon and port.isascii() and port.isdigit() and int(port[:6]) < 1 << 16):
        cause = f"{port} is no port from 0 to 65535" if colon else f"{listen} names no port"
        raise ConfigError("E-http-20", "the HTTP door cannot listen there", cause, "HOST:PORT, as in 127.0.0.1:8710")


def is_loopback(listen: str) -> bool:
    """True when only this machine can reach it."""
    host = listen.rpartition(":")[0].strip("[]")
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
