"""Ends of circuits and their relays (`circuit_end.py`) on the machines of a laboratory, and what they say."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.netns.lab import Place
from tests.netns.machines import until

PROGRAM = str(Path(__file__).with_name("circuit_end.py"))


def start_end(place: Place, log: Path, *words: str) -> subprocess.Popen[bytes]:
    """Start one end, or a relay."""
    return place.start([sys.executable, PROGRAM, *words], log=log)


def documents(log: Path) -> list[dict[str, Any]]:
    """What it said so far."""
    return [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]


def address_of(log: Path) -> str:
    """Where it is dialled, once it is ready."""
    until(lambda: bool(documents(log)), f"{log.name} is ready")
    return str(documents(log)[0]["peer"])
