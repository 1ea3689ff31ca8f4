"""A job's events, live and from any earlier point: the one source for SSE and WebSocket.

Rule: an event with an id is a record in the journal, so a client that lags, or comes back with the last id it saw,
misses none of them; what passes in between (running, busy, progress) has no id and is dropped when nobody reads it.
A reader costs the node one flag and a short queue, however slow it is.
"""

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import aclosing
from typing import Any

import msgspec
import trio
from starlette.responses import Response

from dimnode.api.http.closing import Closing
from dimnode.api.port import Answer, NodePort
from dimnode.limits import HttpLimits
from dimnode.records.ids import RecordId, peer_text

Event = dict[str, Any]
_PASSING = frozenset({"running", "accepted", "progress", "busy", "lost"})
_PASSING_KEPT = 32


async def job_events(
    node: NodePort, job: RecordId, after: int, limits: HttpLimits, closing: Closing
) -> AsyncGenerator[Event | None, None]:
    """Events after this id until the job has ended or the door closes; None now and then when there is nothing to say.

    The caller closes it (`aclosing`); cancelled at any moment it leaves nothing behind.
    """
    passing: deque[Answer] = deque(maxlen=_PASSING_KEPT)
    news = trio.lowlevel.ParkingLot()
    fresh = True

    def hear(event: Answer) -> None:
        nonlocal fresh
        fresh = True
        if event["what"] in _PASSING:
            passing.append(event)
        news.unpark_all()

    stop = node.watch(job, hear)
    try:
        while True:
            fresh, over = False, node.has_ended(job)
            page = node.trail(job, after, limits.events_per_page)
            for event in page:
                after = event["id"]
                yield event
                if event["what"] == "ended":
                    return
            while passing:
                yield _plain(passing.popleft())
            if closing.begun or (over and not page):  # who has seen the last event waits for none
                return
            if page or fresh:
                continue
            with trio.move_on_after(limits.keep_alive_comment_seconds) as quiet, closing.wakes(news.unpark_all):
                await news.park()
            if quiet.cancelled_caught:
                yield None
    finally:
        stop()


def _plain(event: Answer) -> Event:
    return {
        "id": None,
        "at_ms": event["at_ms"],
        "what": event["what"],
        "task": event["task"],
        "epoch": event["epoch"],
        "peer": peer_text(event["peer"]) if event["peer"] else "",
        "text": event["text"],
    }


class EventStream(Response):
    """Server-sent events. Ends with the job, or when the client hangs up: then the generator is closed at once.

    Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[Event | None, None]) -> None:
        super().__init__(headers={"X-Accel-Buffering": "no"})
        self._events = events

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ) -> None:
        """Send until either side has had enough."""
        del self.headers["content-length"]
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async with aclosing(self._events) as events, trio.open_nursery() as nursery:  # the events, and the hanging up
            nursery.start_soon(_until_gone, receive, nursery.cancel_scope)
            async for event in events:
                await send({"type": "http.response.body", "body": sse_lines(event), "more_body": True})
            nursery.cancel_scope.cancel()
        await send({"type": "http.response.body", "body": b""})


def sse_lines(event: Event | None) -> bytes:
    """One event as SSE text; a comment for None."""
    if event is None:
        return b": still there\n\n"
    number = b"" if event["id"] is None else b"id: %d\n" % event["id"]
    return number + b"event: " + str(event["what"]).encode() + b"\ndata: " + msgspec.json.encode(event) + b"\n\n"


async def _until_gone(receive: Callable[[], Awaitable[MutableMapping[str, Any]]], scope: trio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


async def send_over_socket(socket: Any, events: AsyncGenerator[Event | None, None], closing: Closing) -> None:
    """The same events as text messages; closed with 1000 after the last, with 1001 when the door closes before."""

    async def until_gone(scope: trio.CancelScope) -> None:
        while (await socket.receive())["type"] != "websocket.disconnect":
            pass
        scope.cancel()

    async with aclosing(events), trio.open_nursery() as nursery:  # the events, and the client's hanging up
        nursery.start_soon(until_gone, nursery.cancel_scope)
        await _send_all(socket, events)
        await socket.close(1001 if closing.begun else 1000)
        nursery.cancel_scope.cancel()


async def _send_all(socket: Any, events: AsyncIterator[Event | None]) -> None:
    async for event in events:
        if event is not None:
            await socket.send_text(msgspec.json.encode(event).decode())
