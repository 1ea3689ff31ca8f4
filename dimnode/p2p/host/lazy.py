"""Agreeing on the protocol of a new outbound stream in one round trip, or in none.

multistream-select lets both sides speak first: we send its greeting and the protocol id together, the peer echoes both.
Waiting for the echo costs one round trip instead of stock libp2p's two. For a protocol the peer is known to speak even
that is not needed: the first payload leaves with the proposal, and the first read checks the echo ("lazy" in go).

Rule: payload is never read before the echo was compared, byte by byte.

Source: https://github.com/multiformats/multistream-select
"""

from dimnode.p2p.host.multistream import proposal
from dimnode.p2p.host.yamux import YamuxConnection
from dimnode.p2p.host.yamux_stream import YamuxStream


async def open_negotiated(connection: YamuxConnection, protocol: str, *, lazy: bool) -> YamuxStream:
    """Open a stream and propose `protocol`; with `lazy` do not wait for the answer.

    Raises `ProtocolRefused` (only when not lazy; a lazy stream raises it at its first read), `MuxedConnUnavailable` or
    `MuxedStreamReset` when the connection is lost. A cancel leaves no stream behind.
    """
    stream = await connection.open_stream()
    hello = proposal(protocol)
    try:
        if not stream.write_nowait(hello, later=True):
            await stream.write(hello)
        stream.bytes_out = 0  # the counters are about payload
        stream.expect(hello)
        if not lazy:
            await stream.confirm()
    except BaseException:
        stream.reset_nowait()
        raise
    return stream
