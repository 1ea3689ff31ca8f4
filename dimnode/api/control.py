"""The control socket: the command line and the Python client talk to their node here.

Rule: frames of `wire`, one map per frame. A request is {"id", "op", …}; it gets any number of {"id", "event"} and then
exactly one {"id", "result"} or {"id", "error"}. File permissions are the only key: whoever can open the socket is the
operator. A client above its quota of open jobs is not refused: its next request is read when a job has ended. Nor is
one that has many answers to read: its next request is read when it has read some.
"""

import logging
import os
import stat
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

import trio

from dimnode.api.compiling import compile_aside
from dimnode.api.jobfile import new_nonce, read_job
from dimnode.api.port import Answer, NodePort
from dimnode.errors import ConfigError, DimError, PeerFault, Refused, why_of
from dimnode.jobs.effects import Refuse, Reply
from dimnode.limits import LIMITS, Limits
from dimnode.posix.sockets import local_socket
from dimnode.records.ids import RecordId
from dimnode.wire import FrameDecoder, is_deeper, pack_frame, unpack_body

log = logging.getLogger(__name__)

_OP_SHOWN: Final = 32


class ControlDoor:
    """Serves the socket until cancelled."""

    def __init__(self, node: NodePort, path: Path, limits: Limits = LIMITS) -> None:
        self._node, self._path, self._limits = node, path, limits

    async def serve(self, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        """Bind (0600), say started, accept clients; the socket file is gone afterwards."""
        listener = self._listen()
        inode = os.stat(self._path).st_ino
        try:
            async with trio.open_nursery() as nursery:  # a task per client
                task_status.started()
                while True:
                    try:
                        connection, _ = await listener.accept()
                    except OSError as error:  # too many open files, say: that passes, and who waits is let in then
                        log.warning("a client cannot be let in now: %s", error)
                        await trio.sleep(self._limits.api.accept_again_seconds)
                        continue
                    nursery.start_soon(self._client, trio.SocketStream(connection))
        finally:
            listener.close()
            try:
                if os.stat(self._path).st_ino == inode:
                    os.unlink(self._path)
            except FileNotFoundError:
                pass

    def _listen(self) -> trio.socket.SocketType:
        path = os.fspath(self._path)
        try:
            if stat.S_ISSOCK(os.stat(path).st_mode):
                os.unlink(path)  # the home is locked by us, so whoever left it is dead
        except FileNotFoundError:
            pass
        plain = local_socket()
        before = os.umask(0o177)
        try:
            plain.bind(path)
        except OSError as error:
            raise ConfigError("E-api-01", f"cannot open the control socket {path}", why_of(error)) from None
        finally:
            os.umask(before)
        plain.listen(self._limits.api.clients_waiting_max)
        plain.setblocking(False)
        return trio.socket.from_stdlib_socket(plain)

    async def _client(self, stream: trio.SocketStream) -> None:
        client = Client(self._node, stream, self._limits)
        try:
            async with stream, trio.open_nursery() as nursery:  # the client's reader, writer and open questions
                nursery.start_soon(client.write)
                await client.read(nursery)
                nursery.cancel_scope.cancel()
        except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as gone:
            log.debug("a client went away: %s", gone.exceptions[0])
        except* PeerFault as fault:
            log.warning("a client sent a bad frame: %s", fault.exceptions[0])
        finally:
            client.leave()


class Client:
    """One connection."""

    def __init__(self, node: NodePort, stream: trio.SocketStream, limits: Limits) -> None:
        self._node, self._stream, self._limits = node, stream, limits
        self._out: list[bytes] = []
        self._out_bytes = self._sending_bytes = 0
        self._written = trio.lowlevel.ParkingLot()
        self._room = trio.lowlevel.ParkingLot()
        self._open = 0
        self._nursery: trio.Nursery | None = None
        self._unwatch: dict[Callable[[Answer], None], Callable[[], None]] = {}
        self.gone = False

    # ---- frames

    async def read(self, nursery: trio.Nursery) -> None:
        """Answer requests until the client hangs up."""
        self._nursery = nursery
        try:
            await self._read(nursery)
        finally:
            self._nursery = None  # it closes now

    async def _read(self, nursery: trio.Nursery) -> None:
        decoder = FrameDecoder(self._limits.api.request_bytes_max)
        while not decoder.ended:
            chunk = await self._stream.receive_some(self._limits.wire.read_bytes)
            if not chunk:
                return
            for body in decoder.feed(chunk):
                request = unpack_body(body)
                if not _is_request(request, self._limits.api.request_id_length_max):
                    raise PeerFault("request: form")
                while self._has_enough():
                    await self._room.park()
                if is_deeper(request):  # whoever goes through it without knowing would end the node
                    no = Refused("E-api-03", "the request has too many lists and maps in each other")
                    self.put({"id": request["id"], "error": complaint_of(no)})
                elif request["op"] == "job.submit":
                    await self._submit(request)
                else:
                    self._open += 1
                    nursery.start_soon(self._ask, request)

    def _has_enough(self) -> bool:
        """Of questions that are open, or of answers that are not read yet."""
        unread_bytes = self._out_bytes + self._sending_bytes
        most = self._limits
        return self._open >= most.jobs.open_jobs_per_client or unread_bytes > most.api.client_unread_bytes_max // 2

    async def write(self) -> None:
        """Write what is queued, together."""
        while True:
            while not self._out:
                await self._written.park()
            chunk = b"".join(self._out)
            self._out.clear()
            self._out_bytes, self._sending_bytes = 0, len(chunk)
            await self._stream.send_all(chunk)
            self._sending_bytes = 0
            self._room.unpark_all()

    def put(self, message: Mapping[str, Any]) -> None:
        """Queue a frame; a client that does not read is cut off, its jobs go on."""
        if self.gone:
            return
        frame = pack_frame(message, self._limits.api.client_unread_bytes_max)
        if len(frame) > self._limits.api.request_bytes_max:  # large outputs, and all of them again in the receipt
            what = f"the answer has {len(frame)} bytes, at most {self._limits.api.request_bytes_max} go to a client"
            no = Refused("E-api-04", what, "", "ask for result and receipt one after the other")
            frame = pack_frame({"id": message["id"], "error": complaint_of(no)})
        self._out.append(frame)
        self._out_bytes += len(frame)
        if self._out_bytes > self._limits.api.client_unread_bytes_max:
            log.warning("a client does not read: it is cut off")
            self.gone = True
            self._stream.socket.close()
            return
        if self._written:
            self._written.unpark_all()

    def start(self, work: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        """Do this beside everything else for this client, if it is still there."""
        if not self.gone and self._nursery is not None:
            self._nursery.start_soon(work, *arguments)

    def leave(self) -> None:
        """The connection is over; watches end, jobs go on."""
        self.gone = True
        for stop in self._unwatch.values():
            stop()

    def done(self) -> None:
        """One open request less."""
        self._open -= 1
        if self._room:
            self._room.unpark()

    # ---- requests

    async def _ask(self, request: dict[str, Any]) -> None:
        identity, watch = request.get("id"), None
        try:
            if request["op"] == "job.watch":
                watch = self._watch(identity, request)
            else:
                self.put({"id": identity, "result": await self._node.ask(request["op"], request)})
        except Exception as error:  # noqa: BLE001 boundary: no question is worth the node
            self._complain(request, error)
        finally:
            self.done()  # a watch is no open question: any number of jobs may be followed
        if watch is not None:
            over, stop = watch
            await over.wait()
            stop()
            self.put({"id": identity, "result": {"ended": True}})

    def _complain(self, request: dict[str, Any], error: Exception) -> None:
        """Why there is no answer: also when the system refused, or when the mistake is our own."""
        if not isinstance(error, DimError | OSError):
            log.error("a request failed: %s", request["op"][:_OP_SHOWN], exc_info=error)
            error = Refused("E-api-99", "this is a bug in dimnode", "", "report the lines in the node's log")
        elif isinstance(error, OSError):
            error = Refused("E-api-05", f"{request['op']}: the system refused", str(error), "dim doctor")
        self.put({"id": request["id"], "error": complaint_of(error)})

    def _watch(self, identity: Any, request: dict[str, Any]) -> tuple[trio.Event, Callable[[], None]]:
        """Send the events of a job until told to stop. The event is set when it has ended; who waits for that runs
        after the last of them was queued."""
        if type(request.get("job")) not in (bytes, str):
            raise Refused("E-api-03", "job.watch: a wrong argument", "job is an id: bytes, text or its last letters")
        job, over = self._node.find_job(request["job"]), trio.Event()

        def hear(event: Answer) -> None:
            self.put({"id": identity, "event": event})
            if self._node.has_ended(job):
                over.set()

        stop = self.listen(job, hear)
        if self._node.has_ended(job):
            over.set()
        return over, stop

    async def _submit(self, request: dict[str, Any]) -> None:
        """Take a job in. The reply comes when it has ended, or when it is durable if `wait` is false."""
        waiting = Waiting(self, self._node, request)
        try:
            nonce = request.get("nonce") or new_nonce()
            if type(nonce) is not bytes or len(nonce) != 16:
                raise Refused("E-job-11", "a nonce has 16 bytes")
            known = self._node.known_job(nonce) if "nonce" in request else None
            if known is None:
                job = read_job(request.get("job", {}))
                compiled = await compile_aside(job, self._node, blobs_of(request))
                if "nonce" in request:  # meanwhile it may have come on another connection
                    known = self._node.known_job(nonce)
            if known is not None and (ended := await self._node.fetch_end(known)) is not None:
                self.put({"id": waiting.identity, "result": await waiting.with_receipt(known, ended)})
                return
            if known is not None:  # open, whoever could run it by now
                event = self._node.rejoin(known, waiting)
            else:
                event = self._node.compose_spec({**compiled.body, "nonce": nonce}, compiled.inputs, waiting)
        except Exception as error:  # noqa: BLE001 boundary: as above
            self._complain(request, error)
            return
        self._open += 1
        waiting.start(event.job)
        if known is not None:  # durable since it was first submitted
            waiting.tell_begun(known)
        try:
            await self._node.submit(self, event)
        except trio.Cancelled:  # the client hung up while the doors' lane was full
            self._node.abandon(event)
            raise

    def watch_job(self, identity: Any, job: RecordId) -> Callable[[], None]:
        """Send the events of a job; call the result to stop."""
        return self.listen(job, lambda event: self.put({"id": identity, "event": event}))

    def listen(self, job: RecordId, watcher: Callable[[Answer], None]) -> Callable[[], None]:
        """Watch a job until told to stop, at latest until the client hangs up."""
        stop = self._node.watch(job, watcher)
        self._unwatch[watcher] = stop

        def once() -> None:
            if self._unwatch.pop(watcher, None) is not None:
                stop()

        return once


class Waiting:
    """The token of a submitted job."""

    __slots__ = ("_client", "_node", "_request", "_stops", "_told", "_wanted", "identity")

    def __init__(self, client: Client, node: NodePort, request: dict[str, Any]) -> None:
        self._client, self._node, self._request = client, node, request
        self.identity = request.get("id")
        self._wanted = bool(request.get("wait", True))
        self._told = False
        self._stops: list[Callable[[], None]] = []

    def start(self, job: RecordId) -> None:
        """About to be put into the inbox."""
        if self._request.get("watch"):
            self._stops.append(self._client.watch_job(self.identity, job))
        if not self._wanted:  # a job's first event comes after the commit that made it durable
            self._stops.append(self._client.listen(job, lambda _: self.tell_begun(job)))

    def tell_begun(self, job: RecordId) -> None:
        """The job is durable: all that a client wants to know that does not wait for its end."""
        if not self._wanted and not self._told:
            self._told = True
            self._client.put({"id": self.identity, "result": {"job": job, "status": "submitted"}})

    def _unwatch(self) -> None:
        for stop in self._stops:
            stop()

    def ended(self, reply: Reply, outputs: tuple[bytes, ...]) -> None:
        """The job is over. Called by the loop, which a long receipt must not make late."""
        self._unwatch()
        ended: Answer = {"job": reply.job, "status": reply.status, "verdict": reply.verdict, "outputs": list(outputs)}
        if reply.code:
            ended |= {"code": reply.code, "reason": reply.reason}
        if not self._wanted:
            self.tell_begun(reply.job)  # two submissions with one nonce: the events were those of the other's id
            self._client.done()
        elif self._request.get("receipt"):
            self._client.start(self._hand_over, reply.job, ended)
        else:
            self._client.put({"id": self.identity, "result": ended})
            self._client.done()

    async def _hand_over(self, job: RecordId, ended: Answer) -> None:
        """The request stays open meanwhile: so many answers are held as a client may have requests."""
        try:
            self._client.put({"id": self.identity, "result": await self.with_receipt(job, ended)})
        except DimError as error:
            self._client.put({"id": self.identity, "error": complaint_of(error)})
        finally:
            self._client.done()

    def refused(self, refuse: Refuse) -> None:
        """The job was not taken."""
        self._unwatch()
        self._client.done()
        if self._told:
            return
        error = Refused(refuse.code, refuse.what, refuse.cause, refuse.hint, refuse.retry_after_ms)
        self._client.put({"id": self.identity, "error": complaint_of(error)})

    async def with_receipt(self, job: RecordId, ended: Answer) -> Answer:
        """The answer, with the receipt when the client asked for it."""
        return {**ended, "receipt": await self._node.fetch_receipt(job)} if self._request.get("receipt") else ended


def _is_request(request: Any, length_max: int) -> bool:
    """Whether it says what it asks, by an id that is short: each answer repeats it, also one that refuses another."""
    if type(request) is not dict or type(request.get("op")) is not str or "id" not in request:
        return False
    identity = request["id"]
    length = len(identity) if type(identity) in (str, bytes) else 0
    return type(identity) not in (list, dict) and length <= length_max


def blobs_of(request: Mapping[str, Any]) -> list[bytes]:
    """The inputs that came with a request. Raises `Refused`."""
    blobs = request.get("blobs", [])
    if type(blobs) is not list or any(type(blob) is not bytes for blob in blobs):
        raise Refused("E-api-03", f"{request['op']}: a wrong argument", "blobs is a list of bytes")
    return blobs


def complaint_of(error: DimError) -> Answer:
    """An error as it goes over the socket; `exit` is what the command line ends with.

    A file's name that is no UTF-8, in a stranger's folder, has half letters in it, which no frame can carry.
    """
    found = error.complaint
    words = {"code": found.code, "what": found.what, "cause": found.cause, "hint": found.hint}
    code = 4 if isinstance(error, Refused) else 2 if isinstance(error, ConfigError) else 1
    retry = error.retry_after_ms if isinstance(error, Refused) else 0
    told = {key: text.encode(errors="backslashreplace").decode() for key, text in words.items()}
    return {**told, "exit": code, "retry_after_ms": retry}
