"""Durations as people write and read them."""

import re
from collections.abc import Mapping
from typing import Final

_UNITS_MS: Final[Mapping[str, int]] = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 7 * 86_400_000}
FORM: Final = "a number and a unit: s, m, h, d or w"


def span_ms(text: str) -> int | None:
    """Milliseconds of `90s`, `30m`, `12h`, `7d`, `2w`; None for what is no duration, or none at all."""
    found = re.fullmatch(r"(\d{1,6})([smhdw])", text.strip())
    return int(found[1]) * _UNITS_MS[found[2]] or None if found is not None else None


def span_text(seconds: float) -> str:
    """`2 h 5 min`, `5 min 3 s`, `3 s`."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"
