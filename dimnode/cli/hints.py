"""Commands inside what is said, made for the node that was spoken to.

Rule: whoever gave --home reads commands with the same --home, so that a copied hint never acts on another node. Every
line of talk and every hint passes here; whoever writes one writes the bare command.
"""

import re
import shlex
from contextvars import ContextVar
from pathlib import Path
from typing import Final

_HOME: Final[ContextVar[str]] = ContextVar("home", default="")
_ALONE: Final = "connect|doctor|drain|init|run|status|stop|up"
_GROUPS: Final = "blobs|data|job|keys|kubo|models|rep|swarm"
_COMMAND: Final = re.compile(
    # What stands in backticks is talked about, and whoever asks for --help or names a home needs none.
    rf"(?<![`\w])dim (?:(?:{_GROUPS}) [a-z]+|peers(?: (?:block|allow|blocked)\b)?|(?:{_ALONE}))\b"
    r"(?![:`]| --help| there\b|[^,;·()]* --home)"
)
_ELSEWHERE: Final = re.compile(r"\b(?:there|on one of them|its (?:operator|publisher) can): ")


def speak_for(home: Path | None) -> None:
    """From now on hints are for the node of this --home; None: the one that commands find by themselves."""
    _HOME.set(shlex.quote(str(home)) if home else "")


def with_home(text: str) -> str:
    """The text with --home in each `dim …` to type; what comes after `there: ` is for another machine."""
    home = _HOME.get()
    if not home or "dim " not in text:
        return text
    there = _ELSEWHERE.search(text)
    ours = text[: there.start()] if there else text
    return _COMMAND.sub(lambda found: f"{found[0]} --home {home}", ours) + text[len(ours) :]
