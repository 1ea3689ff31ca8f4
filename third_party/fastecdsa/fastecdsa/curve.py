"""The curve type and the one curve libp2p names."""

from fastecdsa import refuse


class Curve:
    """Named in annotations only; cannot be made."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        refuse("curve.Curve")


def __getattr__(name: str) -> object:
    """Curves such as `P256` are looked up at the moment of use, and refused there."""
    if name.startswith("__"):
        raise AttributeError(name)
    refuse(f"curve.{name}")
