"""The wall clock of this room, in the unit that records have."""

import time


def wall_ms() -> int:
    """Milliseconds since 1970. It may jump, also backwards: durations are measured on trio's clock."""
    return time.time_ns() // 1_000_000
