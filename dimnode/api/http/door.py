"""The HTTP door: FastAPI on Hypercorn's trio connections, inside the node's nursery.

Rule: no exception, slow client or lost connection on this side of the door ever ends the node; closing takes at most
the stop limit.
"""

import logging
import ssl
from collections.abc import Sequence
from socket import socket as Socket  # noqa: N812
from typing import Any

import anyio.to_thread
import trio
from hypercorn.config import Config as ServerConfig

from dimnode.api.http.app import make_app
from dimnode.api.http.closing import Closing
from dimnode.api.http.guard import Keys, Yard
from dimnode.api.http.inside import Inside
from dimnode.api.http.meter import Meter
from dimnode.api.http.routes_blobs import Shelf
from dimnode.api.http.server import Server
from dimnode.api.http.settings import HttpSettings
from dimnode.api.http.submission import Account, Submission
from dimnode.api.http.text import Texts
from dimnode.api.port import NodePort
from dimnode.errors import ConfigError
from dimnode.limits import LIMITS, Limits

log = logging.getLogger(__name__)

_THREADS_MAX = 8


class HttpDoor:
    """Serves until cancelled or told to stop."""

    def __init__(
        self,
        node: NodePort,
        keys: Keys,
        account: Account,
        shelf: Shelf,
        settings: HttpSettings,
        limits: Limits = LIMITS,
    ) -> None:
        self._settings, self._limits = settings, limits.http
        self._stop = trio.Event()
        self._meter = Meter(node.numbers)
        self._closing, self.closed = Closing(), trio.Event()
        submission = Submission(node, account, limits.http, self._closing)
        self._inside = Inside(node, account, submission, Texts(node), self._meter, shelf, self._closing, limits.http)
        self._keys = keys
        self.url = ""

    async def serve(self, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        """Bind, say started, answer. Raises `ConfigError` E-http-20 or E-http-21 when it cannot listen."""
        anyio.to_thread.current_default_thread_limiter().total_tokens = _THREADS_MAX
        config = self._server_config()
        tls, sockets = self._tls(config), self._sockets(config)
        self.url = f"{'https' if tls else 'http'}://{_host_text(sockets[0])}"
        origins = frozenset(map(str.lower, self._settings.origins))
        yard = Yard(self._keys, self._meter, self._limits, self._names(sockets), sockets[0].getsockname()[1], origins)
        app = make_app(self._inside, yard, self._settings.origins)
        task_status.started(self.url)
        try:
            await Server(app, config, self._limits, tls).serve(sockets, self._stop.wait)
        finally:
            self.closed.set()

    def stop(self) -> None:
        """Take nobody new; streams end, waits are answered as things stand. `closed` follows within the stop limit."""
        self._stop.set()
        self._closing.begin()

    def _server_config(self) -> ServerConfig:
        config, limits = ServerConfig(), self._limits
        config.bind = [self._settings.listen]
        config.alpn_protocols = ["http/1.1"]
        config.h11_max_incomplete_size = limits.header_bytes_max
        # The clock of an idle connection runs until a request's headers are whole, so it also ends a slow loris. (The
        # server's read timeout would end long answers too, whose clients have nothing to say.)
        config.keep_alive_timeout = limits.keep_alive_seconds_max
        config.keep_alive_max_requests = limits.requests_per_connection_max
        config.ssl_handshake_timeout = limits.tls_handshake_seconds_max
        config.websocket_max_message_size = limits.socket_message_bytes_max
        config.include_server_header = False
        config.accesslog = None
        config.errorlog = logging.getLogger("hypercorn.error")
        return config

    def _tls(self, config: ServerConfig) -> ssl.SSLContext | None:
        if not self._settings.certificate:
            return None
        config.certfile, config.keyfile = self._settings.certificate, self._settings.private_key
        try:
            return config.create_ssl_context()
        except (OSError, ssl.SSLError) as error:
            what = f"the certificate {config.certfile} or its key cannot be used"
            raise ConfigError("E-http-21", what, str(error), "http_certificate and http_private_key") from None

    def _sockets(self, config: ServerConfig) -> list[Socket]:
        try:
            found = config.create_sockets()
            sockets: list[Socket] = [*found.secure_sockets, *found.insecure_sockets]
            for listening in sockets:
                listening.set_inheritable(False)
                listening.listen(config.backlog)
        except (OSError, ValueError, OverflowError) as error:
            what = f"the HTTP door cannot listen on {self._settings.listen}"
            raise ConfigError("E-http-20", what, str(error), "http_listen in config.toml, or --http ADDRESS") from None
        return sockets

    def _names(self, sockets: Sequence[Socket]) -> frozenset[str]:
        """What this door goes by in a Host header beside its addresses: `localhost`, and what the operator says."""
        port = sockets[0].getsockname()[1]
        return frozenset(name.lower() for name in (f"localhost:{port}", *self._settings.hosts))


def _host_text(listening: Socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
