"""Fault points: how a test makes a node die at the one moment that luck never hits.

Rule: they exist in the dev profile alone and only ever kill this very process.
`kill-after-commit:KIND:N` ends the node by SIGKILL after the Nth commit that holds an own record of KIND, that is
between journal and network.
"""

import os
import signal
from collections.abc import Callable

from dimnode.errors import ConfigError
from dimnode.records.envelope import open_envelope
from dimnode.records.ids import PeerId
from dimnode.store.journal import Rows


def fault_point(setting: str, me: PeerId) -> Callable[[Rows], None]:
    """What the loop calls after each commit."""
    if not setting:
        return lambda _: None
    match setting.split(":"):
        case ["kill-after-commit", kind, count] if count.isdecimal():
            left = int(count)
        case _:
            raise ConfigError("E-config-04", f"unknown fault point {setting!r}", "", "kill-after-commit:answer:1")

    def after_commit(rows: Rows) -> None:
        nonlocal left
        for row in rows.get("records", ()):
            if row[0] == kind and open_envelope(row[5], check_signature=False).by == me:
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

    return after_commit
