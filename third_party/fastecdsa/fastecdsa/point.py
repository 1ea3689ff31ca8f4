"""The point type."""

from fastecdsa import refuse


class Point:
    """Named in annotations only; cannot be made."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        refuse("point.Point")
