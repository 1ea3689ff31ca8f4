"""Inbound streams: agreeing on the protocol, and the stream that libp2p's own handlers get.

Stock libp2p takes a lock for every line of the negotiation and for every read and write after it, sends each line in a
message of its own, and starts a task for each notice that a stream came or went. Here both lines of a proposal are
answered at once, and the answer leaves with the handler's first bytes. A handler gets the muxed stream itself (ours) or
a thin cover with libp2p's words for its ends (libp2p's).

Rule: a stream is negotiated in a bounded time with a bounded number of proposals, and reaches exactly one handler.

Source: https://github.com/multiformats/multistream-select
"""

import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any

import trio
from libp2p.host.exceptions import StreamFailure
from libp2p.network.connection.swarm_connection import SwarmConn
from libp2p.network.stream.exceptions import StreamClosed, StreamEOF, StreamReset
from libp2p.peer.id import ID
from libp2p.stream_muxer.exceptions import (
    MuxedConnError,
    MuxedStreamClosed,
    MuxedStreamEOF,
    MuxedStreamError,
)

from dimnode.limits import HostLimits
from dimnode.p2p.conduct import Offence
from dimnode.p2p.host.lazy import open_negotiated
from dimnode.p2p.host.multistream import Unnegotiable, answer_proposals
from dimnode.p2p.host.yamux import YamuxConnection
from dimnode.p2p.host.yamux_budget import Offend
from dimnode.p2p.host.yamux_stream import YamuxStream

log = logging.getLogger(__name__)

_stock_handle = SwarmConn._handle_muxed_stream


class CoveredStream:
    """A muxed stream with the names and the failures that libp2p's own handlers expect."""

    __slots__ = ("_protocol", "metric_send_channel", "muxed_conn", "muxed_stream")

    def __init__(self, muxed: YamuxStream, protocol: str) -> None:
        self.muxed_stream = muxed
        self.muxed_conn: YamuxConnection = muxed.muxed_conn
        self.metric_send_channel = None
        self._protocol = protocol

    def get_protocol(self) -> str:
        """The protocol that was agreed on."""
        return self._protocol

    def get_remote_address(self) -> tuple[str, int] | None:
        """Host and port of the peer."""
        return self.muxed_stream.get_remote_address()

    async def read(self, n: int | None = None) -> bytes:
        """As `YamuxStream.read`. Raises `StreamEOF` or `StreamReset`."""
        try:
            return await self.muxed_stream.read(n)
        except MuxedStreamEOF as error:
            raise StreamEOF from error
        except (MuxedStreamError, MuxedConnError) as error:
            raise StreamReset from error

    async def write(self, data: bytes) -> None:
        """As `YamuxStream.write`. Raises `StreamClosed` or `StreamReset`."""
        try:
            await self.muxed_stream.write(data)
        except MuxedStreamClosed as error:
            raise StreamClosed from error
        except (MuxedStreamError, MuxedConnError) as error:
            raise StreamReset from error

    async def close(self) -> None:
        """Finish our side."""
        await self.muxed_stream.close()

    async def reset(self) -> None:
        """Give up both directions."""
        self.muxed_stream.reset_nowait()


Narrow = Callable[[bytes], Collection[str] | None]
"""Which protocols a peer may open; None: all that are served."""


class Acceptor:
    """Takes the inbound streams of one host, and opens those that libp2p's services ask for."""

    def __init__(self, core: Any, limits: HostLimits, offend: Offend) -> None:
        self._handlers: dict[str, Callable[[Any], Awaitable[None]]] = core.get_mux().handlers
        self._swarm = core.get_network()
        self._limits = limits
        self._offend = offend
        self._new_stream = core.new_stream
        self.narrow: Narrow = lambda _: None
        self._swarm.acceptor = core.acceptor = self
        core.new_stream = self.new_stream

    async def serve(self, muxed: YamuxStream) -> None:
        """Agree on a protocol, then run its handler to the end of the stream."""
        protocol: str | None = None
        try:
            with trio.fail_after(self._limits.negotiate_seconds_max):
                protocol = await self._negotiate(muxed)
        except trio.TooSlowError:
            # It costs a place, a task and a deadline. An unknown protocol is no offence: that is how versions meet.
            self._offend(muxed.muxed_conn.peer_id.to_bytes(), Offence.SLOW)
        except (Unnegotiable, MuxedStreamError, MuxedConnError) as error:
            log.debug("no protocol agreed with %s: %r", muxed.muxed_conn.peer_id, error)
        if protocol is None:
            muxed.reset_nowait()
            return
        await self._handlers[protocol](CoveredStream(muxed, protocol))

    async def _negotiate(self, muxed: YamuxStream) -> str:
        """Return a protocol that has a handler. Raises `Unnegotiable`, and what the muxed stream raises."""

        async def with_the_first_answer(said: bytes) -> None:
            if not muxed.write_nowait(said, later=True):
                await muxed.write(said)

        only = self.narrow(muxed.muxed_conn.peer_id.to_bytes())
        offered = self._handlers if only is None else [each for each in only if each in self._handlers]
        return await answer_proposals(muxed, offered, self._limits, with_the_first_answer)

    async def new_stream(self, peer: ID, protocols: Sequence[str]) -> Any:
        """What libp2p's services call: without its books, and in one round trip. Raises `StreamFailure`."""
        live = [found for found in self._swarm.connections.get(peer, ()) if found.muxed_conn.is_established]
        if len(protocols) != 1 or not live:
            return await self._new_stream(peer, protocols)
        protocol = str(protocols[0])
        try:
            with trio.fail_after(self._limits.negotiate_seconds_max):
                return CoveredStream(await open_negotiated(live[0].muxed_conn, protocol, lazy=False), protocol)
        except (trio.TooSlowError, MuxedStreamError, MuxedConnError) as error:
            raise StreamFailure(f"no stream for {protocol} to {peer}") from error


async def handle_muxed_stream(self: SwarmConn, muxed: Any) -> None:
    """In place of stock's own: a host of ours has an acceptor, any other one in this process is left alone."""
    acceptor: Acceptor | None = getattr(self.swarm, "acceptor", None)
    if acceptor is None:
        await _stock_handle(self, muxed)
    else:
        await acceptor.serve(muxed)
