"""What tests of several files share, because it is slow to make."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from dimnode.exec.launch import Zygote, start_zygote
from dimnode.exec.runtimes.choice import PACKAGES


@pytest.fixture(scope="session")
def zygotes() -> Iterator[list[Zygote]]:
    """One of each runtime: torch takes seconds to import on a busy machine."""
    with ExitStack() as stack:
        yield [stack.enter_context(start_zygote(runtime=form)) for form in PACKAGES]
