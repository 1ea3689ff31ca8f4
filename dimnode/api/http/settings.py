"""Where the HTTP door listens and for whom. Rule: importing this costs nothing, so the command line may ask too."""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """`hosts` are further names that this door goes by; `origins` pages of other doors that may ask."""

    listen: str = "127.0.0.1:8710"
    hosts: Sequence[str] = ()
    origins: Sequence[str] = ()
    certificate: str = ""
    private_key: str = ""


def is_loopback(listen: str) -> bool:
    """True when only this machine can reach it."""
    host = listen.rpartition(":")[0].strip("[]")
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
