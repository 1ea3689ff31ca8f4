"""How far the model of a job is that waits for it, while this node fetches it.

Rule: it is told now and then on stderr; what other nodes fetch for a job this node does not know.
"""

from collections import deque
from collections.abc import Collection

from dimnode.cli.durations import span_text
from dimnode.cli.output import shown, size_text, talk
from dimnode.client import Client

_LOOK_SECONDS = 1.0
_TELL_SECONDS = 5.0
_LOOKS_KEPT = 10


class FetchNews:
    """Of the models with these titles, which nobody offered when the job was handed in."""

    def __init__(self, client: Client, titles: Collection[str]) -> None:
        self._client, self._titles = client, titles
        self._look_at = self._tell_at = 0.0
        self._looks: dict[str, deque[tuple[float, int]]] = {}
        """The last ones at each: when, and how many bytes. What is long past is no part of the rate."""

    def tell(self, now: float) -> None:
        """A line for each that comes in now, if it is time. `now`: seconds of a clock that only goes on."""
        if not self._titles or now < self._look_at:
            return
        self._look_at = now + _LOOK_SECONDS
        due = now >= self._tell_at
        for row in self._client.ask("blobs.progress")["progress"]:
            if row["what"] != "pull" or row["title"] not in self._titles:
                continue
            looks = self._looks.setdefault(row["name"], deque(maxlen=_LOOKS_KEPT))
            looks.append((now, row["bytes"]))
            since, before = looks[0]
            if due and row["bytes"] > before:
                self._tell_at = now + _TELL_SECONDS
                rate = (row["bytes"] - before) / (now - since)
                far = f"{size_text(row['bytes'])} of {size_text(row['of'])}, {size_text(rate)}/s"
                talk(f"fetching {shown(row['title'])}: {far}, {span_text((row['of'] - row['bytes']) / rate)} left")
