"""What a demo leaves of the one before it."""

from pathlib import Path

import pytest

from dimnode.demo.swarm import MARKER, kept_before, prepare, settle
from dimnode.errors import ConfigError

NAMES = {"alba": "hospital A"}


def tell(folder: Path, name: str, *, holds: bool) -> None:
    """What a story does to its folder."""
    prepare(folder, NAMES)
    (folder / "receipts" / name).write_bytes(b"a receipt")
    if holds:
        settle(folder)


def receipts(folder: Path) -> dict[str, list[str]]:
    return {part.name: sorted(path.name for path in part.iterdir()) for part in folder.glob("receipts*")}


def test_a_story_that_fails_leaves_the_receipts_of_the_last_one_that_held(tmp_path) -> None:
    folder = tmp_path / "demo"
    tell(folder, "first", holds=True)
    assert receipts(folder) == {"receipts": ["first"]}
    assert kept_before(folder) is None
    for name in ("second", "third"):
        tell(folder, name, holds=False)
        assert receipts(folder) == {"receipts": [name], "receipts.before": ["first"]}
    assert kept_before(folder) == folder / "receipts.before"
    tell(folder, "fourth", holds=True)
    assert receipts(folder) == {"receipts": ["fourth"]}


def test_a_folder_of_somebody_else_is_left_alone(tmp_path) -> None:
    (tmp_path / "mine").touch()
    with pytest.raises(ConfigError, match="E-demo-13"):
        prepare(tmp_path, NAMES)
    assert not (tmp_path / MARKER).exists()
