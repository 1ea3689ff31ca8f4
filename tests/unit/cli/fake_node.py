"""A node that says what a test told it to say, over a real socket in the real frames.

Rule: it speaks the protocol of `api.control` and nothing else; what it was asked is kept in `requests`.
"""

import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dimnode.config import socket_path
from dimnode.wire import FrameDecoder, pack_frame, unpack_body

Reply = dict[str, Any]
"""{"result": …} or {"error": …}, with "events": […] to send before; {"hang_up": True}; {} for no answer at all."""
Answer = Reply | Callable[[Reply], Reply]

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
REQUEST_BYTES_MAX = 72 * 1024 * 1024


def refusal(code: str, what: str, exit_code: int = 4) -> Reply:
    """An error as a node sends it."""
    words = {"code": code, "what": what, "cause": "a cause", "hint": "a hint"}
    return {"error": {**words, "exit": exit_code, "retry_after_ms": 7}}


class FakeNode:
    """Listens where a node of this home would until closed; one thread per client."""

    def __init__(self, home: Path, **answers: Answer) -> None:
        self.home = home
        self.requests: list[Reply] = []
        self.answers: dict[str, Answer] = {name.replace("__", "."): answer for name, answer in answers.items()}
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket = socket_path(home)  # pytest's folders can be too deep for a socket, as a home can
        self._listener.bind(str(self._socket))
        self._listener.listen()
        self._clients: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> "FakeNode":
        return self

    def __exit__(self, *_: object) -> None:
        for open_socket in (self._listener, *self._clients):
            try:
                open_socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            open_socket.close()
        self._socket.unlink(missing_ok=True)
        for thread in self._threads:
            thread.join(5.0)

    def asked(self, op: str) -> list[Reply]:
        """The requests of this name so far."""
        return [request for request in self.requests if request["op"] == op]

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._clients.append(client)
            thread = threading.Thread(target=self._serve, args=(client,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        decoder = FrameDecoder(REQUEST_BYTES_MAX)
        try:
            while chunk := client.recv(65536):
                for body in decoder.feed(chunk):
                    self._reply(client, unpack_body(body))
        except OSError:
            return

    def _reply(self, client: socket.socket, request: Reply) -> None:
        self.requests.append(request)
        answer = self.answers.get(request["op"], {"result": {}})
        reply = answer(request) if callable(answer) else answer
        if reply.get("hang_up"):
            client.shutdown(socket.SHUT_RDWR)
            return
        out = [pack_frame({"id": request["id"], "event": event}) for event in reply.get("events", ())]
        out += [
            pack_frame({"id": request["id"], kind: reply[kind]}, REQUEST_BYTES_MAX)
            for kind in ("result", "error")
            if kind in reply
        ]
        client.sendall(b"".join(out))
