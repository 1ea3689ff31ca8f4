"""Who tells the story: lines for a person, or one JSON document at the end.

Rule: facts are told as they happen and kept as values; what is printed is always derived from a kept fact.
"""

import json
import os
import sys
import time
from typing import Any

_LABEL_COLUMNS = 16
_BOLD, _DIM, _RESET = "\033[1m", "\033[2m", "\033[0m"


class Narrator:
    """Prints lines unless the facts are wanted as JSON."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        self._began = time.monotonic()
        self.facts: dict[str, Any] = {"acts": {}, "receipts": [], "ok": True}

    def title(self, text: str) -> None:
        """The first line."""
        self._print(self._bold(text))

    def act(self, number: int, name: str, what: str) -> dict[str, Any]:
        """Open an act; its facts go into the returned map."""
        self._print("")
        self._print(f"{self._bold(f'{number} {name}')}   {what}")
        facts: dict[str, Any] = {"what": what}
        self.facts["acts"][name] = facts
        return facts

    def say(self, who: str, text: str) -> None:
        """One fact, one line."""
        self._print(f"   {who:<{_LABEL_COLUMNS - 4}} {text}")

    def plain(self, text: str = "") -> None:
        """A line as it is."""
        self._print(text)

    def check(self, held: bool) -> str:
        """A tick for what held; anything else makes the whole story fail."""
        if not held:
            self.facts["ok"] = False
        return "✓" if held else "✗ DOES NOT HOLD"

    def seconds(self) -> float:
        """Since the story began."""
        return time.monotonic() - self._began

    def finish(self) -> None:
        """The JSON document, when that was wanted."""
        if self._as_json:
            print(json.dumps(self.facts, indent=2, ensure_ascii=False))

    def _bold(self, text: str) -> str:
        return f"{_BOLD}{text}{_RESET}" if self._colour else text

    def _print(self, text: str) -> None:
        if not self._as_json:
            print(text, flush=True)
