"""HTTP clients that cost little: one kept connection, and many that one thread drives."""

import http.client
import json
import selectors
import socket
import time
from typing import Any
from urllib.parse import urlsplit

AT_ONCE = 32


class Kept:
    """A kept connection of the standard library's client, which sends each request in one piece where it can."""

    def __init__(self, url: str, key: str) -> None:
        where = urlsplit(url)
        assert where.hostname is not None
        self._line = http.client.HTTPConnection(where.hostname, where.port, timeout=60)
        self._line.connect()
        self._line.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    def send(self, path: str, body: dict[str, Any] | None) -> None:
        """Ask: POST with a body, GET without."""
        if body is None:
            self._line.request("GET", path, headers=self._headers)
        else:
            headers = self._headers | {"Content-Type": "application/json"}
            self._line.request("POST", path, json.dumps(body), headers)

    def answer(self) -> dict[str, Any]:
        """The whole answer. Any other status than 200 ends the run, with what was said."""
        found = self._line.getresponse()
        raw = found.read()
        if found.status != 200:
            raise SystemExit(f"the door answered {found.status}: {raw.decode(errors='replace')[:500]}")
        said: dict[str, Any] = json.loads(raw)
        return said

    def fileno(self) -> int:
        """For a selector."""
        return self._line.sock.fileno()

    def close(self) -> None:
        """Hang up."""
        self._line.close()


class Load:
    """`AT_ONCE` kept connections with one request open on each, driven by one thread."""

    def __init__(self, url: str, key: str, bodies: list[dict[str, Any]]) -> None:
        where = urlsplit(url)
        self._path, self._bodies = f"{where.path}?{where.query}", bodies
        self._lines = [Kept(url, key) for _ in range(AT_ONCE)]

    def rate(self, seconds: float = 1e9, most: float = float("inf")) -> float:
        """Answers a second, for so long or so many; then everything that is open is answered, and it hangs up."""
        began = time.perf_counter()
        asked = answered = 0
        with selectors.DefaultSelector() as waiting:
            for line in self._lines:
                waiting.register(line, selectors.EVENT_READ)
                line.send(self._path, self._bodies[asked % len(self._bodies)])
                asked += 1
            while answered < asked:
                for ready, _ in waiting.select(60) or [(None, 0)]:
                    assert ready is not None, "nothing was answered for a minute"
                    line = ready.fileobj
                    assert isinstance(line, Kept)
                    line.answer()
                    answered += 1
                    if asked < most and time.perf_counter() - began < seconds:
                        line.send(self._path, self._bodies[asked % len(self._bodies)])
                        asked += 1
        found = answered / (time.perf_counter() - began)
        for line in self._lines:
            line.close()
        return found
