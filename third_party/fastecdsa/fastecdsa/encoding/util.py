"""One function that libp2p binds at import."""

from fastecdsa import refuse


def int_bytelen(n: int) -> int:
    """Refuse: only the secio key exchange calls it."""
    refuse("encoding.util.int_bytelen")
