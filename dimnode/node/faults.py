"""Fault points: how a test makes a node die at the one moment that luck never hits, or makes it a liar.

Rule: they exist in the dev profile alone, and harm nobody but this very node's good name.
`kill-after-commit:KIND:N` ends the node by SIGKILL after the Nth commit that holds an own record of KIND, that is
between journal and network.
`run-instead:NAME:OTHER` runs this node's model OTHER whenever it is asked for NAME, and signs that NAME ran: what an
operator can do who changes this program.
"""

import os
from collections.abc import Callable

from dimnode.errors import ConfigError
from dimnode.node.library import Library
from dimnode.node.model_orders import LocalModel
from dimnode.posix.processes import kill
from dimnode.records.envelope import open_envelope
from dimnode.records.ids import PeerId
from dimnode.records.manifest import Manifest
from dimnode.store.journal import Rows


def fault_point(setting: str, me: PeerId) -> Callable[[Rows], None]:
    """What the loop calls after each commit."""
    if not setting:
        return lambda _: None
    match setting.split(":"):
        case ["kill-after-commit", kind, count] if count.isdecimal():
            left = int(count)
        case ["run-instead", claimed, real] if claimed and real:
            return lambda _: None
        case _:
            raise ConfigError(
                "E-config-04",
                f"unknown fault point {setting!r}",
                "",
                "kill-after-commit:answer:1, or run-instead:NAME:OTHER",
            )

    def after_commit(rows: Rows) -> None:
        nonlocal left
        for row in rows.get("records", ()):
            if row[0] == kind and open_envelope(row[5], check_signature=False).by == me:
                left -= 1
                if left == 0:
                    kill(os.getpid())

    return after_commit


def model_to_run(setting: str, library: Library) -> Callable[[LocalModel], LocalModel]:
    """Which model this node runs when it is asked for one: that one, unless its operator made it a liar."""
    if not setting.startswith("run-instead:"):
        return lambda asked: asked
    _, claimed, real = setting.split(":")

    def instead(asked: LocalModel) -> LocalModel:
        if Manifest.of(asked.manifest).name != claimed:
            return asked
        return library.models[library.registry.find(real, library.chosen()).id]

    return instead
