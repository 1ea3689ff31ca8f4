"""A stand-in for fastecdsa 2.3.2: the names libp2p 0.8.1 imports, and not one curve.

Rule: importing succeeds, using raises. Nothing here ever returns a number that someone could take for a key.
"""

from typing import NoReturn


def refuse(name: str) -> NoReturn:
    """Raise: the caller reached for elliptic-curve arithmetic that this stub does not have."""
    raise NotImplementedError(
        f"fastecdsa.{name}: this is the stub of dimnode, without P-256. Peers use Ed25519 and Noise; "
        "install the real fastecdsa (needs GMP) if you need P-256 keys"
    )
