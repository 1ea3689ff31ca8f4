"""What tests of several files share: what is slow to make, and patience with a machine that is busy."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest

from dimnode.exec.launch import Zygote, start_zygote
from dimnode.exec.runtimes.choice import PACKAGES
from dimnode.limits import LIMITS, HostLimits

PATIENT_SECONDS = 20.0


@pytest.fixture(scope="session")
def zygotes() -> Iterator[list[Zygote]]:
    """One of each runtime: torch takes seconds to import on a busy machine."""
    with ExitStack() as stack:
        yield [stack.enter_context(start_zygote(runtime=form)) for form in PACKAGES]


@pytest.fixture(autouse=True)
def patient_dials(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dial waits for cores as well, in this process for those of both ends: the product's 5 s fail tests of all else.

    Who tests how long a dial takes gives limits of its own.
    """
    room: Any = sys.modules.get("dimnode.p2p.host.host")
    if room is None:  # nobody has a host here
        return
    stock = room.Dialler

    def patient(core: Any, limits: HostLimits, *more: Any) -> Any:
        if limits.dial_seconds_max == LIMITS.host.dial_seconds_max:
            limits = replace(limits, dial_seconds_max=PATIENT_SECONDS)
        return stock(core, limits, *more)

    monkeypatch.setattr(room, "Dialler", patient)
