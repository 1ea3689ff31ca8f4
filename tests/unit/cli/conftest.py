"""What every test of the command line needs: a home, a way to type, and no settings from outside."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from dimnode.cli.main import main


@dataclass(frozen=True, slots=True)
class Typed:
    """What came of a command."""

    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("DIM_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("DIM_HOME", str(tmp_path))
    monkeypatch.setenv("TZ", "UTC")


@pytest.fixture
def dim(capsys: pytest.CaptureFixture[str]) -> Callable[..., Typed]:
    """Type a command: `dim("job", "ls")`."""

    def typed(*arguments: object) -> Typed:
        code = main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return Typed(code, said.out, said.err)

    return typed
