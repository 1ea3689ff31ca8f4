"""One connection to a node's control socket, which any number of questions share; the client stands on it.

Whoever waits for an answer reads the socket and sorts what comes in for everybody else, so that no thread of its own
is needed, and a question may come from any thread.

A node may be stopped or hang without hanging up. A question may also take long. So whoever waits asks on a second
connection whether anybody is there, whenever nothing has come for a while: `NoNode` E-cli-07 when nobody is.
"""

import contextlib
import shlex
import socket as sockets
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from pathlib import Path
from threading import Condition, Lock
from typing import Any, Final

from dimnode.config import default_home, socket_path
from dimnode.errors import NoNode, PeerFault, Refused
from dimnode.limits import LIMITS, ApiLimits
from dimnode.posix.sockets import AT_ONCE, READABLE, WRITABLE, connected, poll
from dimnode.wire import FrameDecoder, pack_frame, unpack_body

_READ_BYTES: Final = 1024 * 1024
_FRAME_BYTES_UNCHECKED: Final = 2**32 - 1
_OTHERS_TURN_SECONDS: Final = 0.1
_SAYINGS: Final = frozenset({"event", "result", "error"})


class Slot:
    """Where the answer to one request arrives. A finished slot is put into `sink` when there is one."""

    __slots__ = ("answered", "error", "events", "index", "result", "sent", "sink")

    def __init__(self, sink: "deque[Slot] | None" = None, index: int = 0) -> None:
        self.events: deque[dict[str, Any]] = deque()
        self.result: dict[str, Any] | None = None
        self.error: dict[str, Any] | None = None
        self.sink, self.index = sink, index
        self.sent = self.answered = 0.0

    @property
    def done(self) -> bool:
        """Whether its answer has come."""
        return self.result is not None or self.error is not None


class Line:
    """The connection to the node of `home` (default: DIM_HOME). Raises `NoNode` when none answers."""

    def __init__(self, home: Path | str | None, socket: Path | str | None, limits: ApiLimits = LIMITS.api) -> None:
        self._path, self._limits = str(socket or socket_path(Path(home) if home else default_home())), limits
        try:
            self._socket = connected(self._path, limits.probe_seconds_max)
        except BlockingIOError:
            raise self._silence() from None
        except OSError as error:
            cause = f"nothing listens on {self._path} ({error.strerror})"
            elsewhere = home is not None and Path(home).absolute() != default_home().absolute()
            hint = f"dim up --home {shlex.quote(str(home))}" if elsewhere else "dim up, or --home DIR of another node"
            raise NoNode("E-cli-01", "no node is running here", cause, hint) from None
        self._alive_at = time.monotonic()  # when something came last, or was asked while nobody waited
        self._silent = False
        self._decoder = FrameDecoder(LIMITS.api.request_bytes_max)
        self._numbers = count(1)
        self._slots: dict[int, Slot] = {}
        self._sending = Lock()
        self._turn = Condition()  # guards _slots' contents and whose turn it is to read
        self._reading = False
        self._lost = ""  # why nothing more comes or goes

    def close(self) -> None:
        """Hang up; who waits in another thread is told so."""
        self._lost = self._lost or "this client is closed"
        with contextlib.suppress(OSError):  # wakes a thread that reads; fails when the node hung up first
            self._socket.shutdown(sockets.SHUT_RDWR)
        self._socket.close()

    def frame(self, slot: Slot, op: str, **arguments: Any) -> tuple[int, bytes]:
        """The request's number and frame; its answer will arrive in `slot`. Raises `Refused` E-cli-04."""
        number = next(self._numbers)
        try:
            frame = pack_frame({"id": number, "op": op, **arguments}, _FRAME_BYTES_UNCHECKED)
        except (TypeError, ValueError, OverflowError) as error:  # a NumPy number, 2**64, a list within itself
            hint = "texts, bytes, plain numbers, lists and maps; a NumPy array's are array.tolist()"
            raise Refused("E-cli-04", "the request holds what no frame can carry", str(error)[:120], hint) from None
        most = LIMITS.api.request_bytes_max
        if len(frame) - 4 > most:
            raise Refused("E-cli-04", f"the request has {len(frame)} bytes", f"at most {most} go to the node at once")
        self._slots[number] = slot
        return number, frame

    def forget(self, number: int) -> None:
        """Nobody waits for the answer to this request any more."""
        self._slots.pop(number, None)

    def send(self, frames: bytes, slots: Sequence[Slot]) -> None:
        """Write the frames of these slots, all at once. Raises `NoNode` when the connection broke.

        What comes meanwhile is read: a node hangs up on who has more and more answers and reads none.
        """
        now = time.monotonic()
        for slot in slots:
            slot.sent = now
        if len(self._slots) <= len(slots):  # nothing else is owed: silence begins here
            self._alive_at = now
        rest = memoryview(frames)
        try:
            with self._sending:
                while rest:
                    try:
                        rest = rest[self._socket.send(rest, AT_ONCE) :]
                    except BlockingIOError:  # it reads nothing: it is stopped, or has as many jobs of ours as it takes
                        self._wait_for_room()
        except OSError:
            raise self._gone() from None

    def advance(self, ready: Callable[[], bool], deadline: float | None) -> bool:
        """Read, or let another thread read, until `ready`; False when the deadline passes first."""
        while True:
            with self._turn:
                if ready():
                    return True
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return False
                if self._reading:
                    self._turn.wait(left)
                    continue
                self._reading = True
            self._take_turn(left)

    def catch_up(self) -> None:
        """Read what is there, without waiting, unless another thread reads. A lost node is told to who waits next."""
        with contextlib.suppress(NoNode):
            while self._is_free() and self._take_turn(0.0):
                pass

    def _wait_for_room(self) -> None:
        """Until the node reads on, or has said something, or so long that whoever calls has to look again."""
        if self._is_free():
            self._take_turn(None, READABLE | WRITABLE)
        else:
            _ready([self._socket], _OTHERS_TURN_SECONDS, WRITABLE)

    def _is_free(self) -> bool:
        """Whether nobody reads; if so, it is the caller's turn."""
        with self._turn:
            free, self._reading = not self._reading, True
        return free

    def _take_turn(self, left_seconds: float | None, wanted: int = READABLE) -> bool:
        """Read once and sort what came; whether something did."""
        chunk = b""
        try:
            chunk = self._receive(left_seconds, wanted)
        finally:
            with self._turn:
                self._reading = False
                self._turn.notify_all()  # also when what came is none of ours: nobody else would wake them
                self._sort(chunk)
        return bool(chunk)

    def _receive(self, left_seconds: float | None, wanted: int) -> bytes:
        """Some bytes; none when the time is up, or something else that is `wanted` is there. Raises `NoNode` at the end
        of the connection, or of its patience."""
        quiet_seconds = self._alive_at + self._limits.silence_seconds_max - time.monotonic()
        seconds = quiet_seconds if left_seconds is None else min(left_seconds, quiet_seconds)
        try:
            if not _ready([self._socket], seconds, wanted):
                if quiet_seconds <= seconds:
                    self._probe()
                return b""
            chunk = self._socket.recv(_READ_BYTES, AT_ONCE)
        except BlockingIOError:
            return b""
        except OSError:
            chunk = b""
        if not chunk:
            raise self._gone()
        self._alive_at = time.monotonic()
        return chunk

    def _probe(self) -> None:
        """Ask on a second connection whether anybody is there; an answer that comes on the first will do.

        Raises `NoNode` E-cli-07, after hanging up, when there is none in time.
        """
        seconds = self._limits.probe_seconds_max
        try:
            with connected(self._path, seconds) as probe:
                probe.sendall(pack_frame({"id": 1, "op": "ping"}))
                alive = _ready([probe, self._socket], seconds)
        except OSError:  # no longer listens, or takes nobody in
            alive = _ready([self._socket], 0)
        if not alive:
            self._silent = True
            raise self._gone()
        self._alive_at = time.monotonic()

    def _sort(self, chunk: bytes) -> None:
        """Put what came in where it is waited for."""
        try:
            messages = [_message(body) for body in self._decoder.feed(chunk)] if chunk else []
        except PeerFault as fault:
            self.close()
            raise NoNode("E-cli-02", "the node sent what is no frame", fault.rule, "dim doctor") from None
        now = time.monotonic()
        for message in messages:
            number = message["id"]
            if "event" in message:
                slot = self._slots.get(number)
                if slot is not None:
                    slot.events.append(message["event"])
                continue
            slot = self._slots.pop(number, None)
            if slot is not None:
                slot.answered, slot.result, slot.error = now, message.get("result"), message.get("error")
                if slot.sink is not None:
                    slot.sink.append(slot)

    def _gone(self) -> NoNode:
        if self._silent:
            self.close()
            return self._silence()
        self._lost = self._lost or "the connection to the node broke"
        self.close()
        cause = "the node stopped or crashed; jobs that it had taken in go on when it is up again"
        return NoNode("E-cli-02", self._lost, cause, "dim status, then dim job ls")

    def _silence(self) -> NoNode:
        what = "the node does not answer"
        cause = f"something listens on {self._path}, but its process is stopped, or hangs; its jobs are kept"
        return NoNode("E-cli-07", what, cause, "let its process go on (kill -CONT), or end it and dim up")


def _ready(waited: Iterable[sockets.socket], seconds: float, wanted: int = READABLE) -> bool:
    """Whether something came to one of these, or else what is wanted, or it was hung up, within this time."""
    waiting = poll()  # not select(): a process with many files open is no reason to fail
    try:
        for each in waited:
            waiting.register(each, wanted)
    except ValueError:  # another thread has closed it
        return True
    return bool(waiting.poll(max(0.0, seconds * 1000)))


def _message(body: bytes) -> dict[str, Any]:
    """An event of a request, or its result or error. Raises `PeerFault`."""
    found = unpack_body(body)
    if type(found) is not dict or type(found.get("id")) is not int or not found.keys() & _SAYINGS:
        raise PeerFault("answer: form")
    return found
