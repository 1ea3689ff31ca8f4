"""Key functions, all refused."""

from fastecdsa import refuse


class PEMEncoder:
    """Passed by name to `export_key`, which refuses."""


def gen_private_key(*args: object, **kwargs: object) -> int:
    """Refuse to make a key."""
    refuse("keys.gen_private_key")


def get_public_key(*args: object, **kwargs: object) -> object:
    """Refuse to derive a key."""
    refuse("keys.get_public_key")


def export_key(*args: object, **kwargs: object) -> str:
    """Refuse to export a key."""
    refuse("keys.export_key")
