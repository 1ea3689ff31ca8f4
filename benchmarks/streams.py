"""What the overlay's benchmarks compare: streams of our host, and trio TCP with TLS, behind the same four methods.

One serving process answers both kinds; `openers` gives the measuring process a way to open a stream of each kind.
"""

import json
import ssl
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from dimnode.p2p.host.host import Stream, StreamEnded, open_host

ECHO, SINK, CALL = "/bench/echo/1", "/bench/sink/1", "/bench/call/1"
MESSAGE = bytes(100)
_PREFIX_BYTES = 8
_READ_BYTES = 1 << 18

Opener = Callable[[str], Awaitable[Any]]


class TlsStream:
    """The methods of our stream over a TLS connection."""

    def __init__(self, stream: trio.SSLStream[trio.SocketStream]) -> None:
        self._stream = stream

    async def read(self, n: int) -> bytes:
        got = await self._stream.receive_some(n)
        if not got:
            raise StreamEnded
        return bytes(got)

    async def write(self, b: bytes) -> None:
        await self._stream.send_all(b)

    async def close(self) -> None:
        await trio.aclose_forcefully(self._stream)


async def read_exactly(stream: Any, size: int) -> bytes:
    """So many bytes, however they arrive."""
    got = await stream.read(size)
    if len(got) == size:
        return bytes(got)
    parts, left = [got], size - len(got)
    while left:
        parts.append(await stream.read(left))
        left -= len(parts[-1])
    return b"".join(parts)


# What the serving process answers


async def echo(stream: Any) -> None:
    """Return every message of 100 bytes."""
    while True:
        await stream.write(await read_exactly(stream, len(MESSAGE)))


async def sink(stream: Any) -> None:
    """Take the announced number of bytes, then answer with one."""
    left = int.from_bytes(await read_exactly(stream, _PREFIX_BYTES), "big")
    while left > 0:
        left -= len(await stream.read(_READ_BYTES))
    await stream.write(b"!")


async def answer_calls(stream: Any) -> None:
    """Return every request whole: eight bytes of length, then the body."""
    while True:
        prefix = await read_exactly(stream, _PREFIX_BYTES)
        body = await read_exactly(stream, int.from_bytes(prefix, "big"))
        await stream.write(prefix + body)


async def call(stream: Any, body: bytes) -> bytes:
    """One request and its reply."""
    await stream.write(len(body).to_bytes(_PREFIX_BYTES, "big") + body)
    size = int.from_bytes(await read_exactly(stream, _PREFIX_BYTES), "big")
    return await read_exactly(stream, size)


HANDLERS: dict[str, Callable[[Stream], Awaitable[None]]] = {ECHO: echo, SINK: sink, CALL: answer_calls}
_TLS_LETTER = {ECHO: b"e", SINK: b"s", CALL: b"c"}


def write_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate and its key that nobody will check."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bench")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = (
        builder.serial_number(1).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    )
    certificate = builder.sign(key, hashes.SHA256())
    paths = folder / "certificate.pem", folder / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8
    paths[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    return paths


async def serve() -> None:
    """The serving process: print where it listens, then answer until ended."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:
        context.load_cert_chain(*write_certificate(Path(folder)))
    by_letter = {letter: HANDLERS[protocol] for protocol, letter in _TLS_LETTER.items()}

    async def serve_tls(carrier: trio.SocketStream) -> None:
        stream = TlsStream(trio.SSLStream(carrier, context, server_side=True))
        try:
            await by_letter[await read_exactly(stream, 1)](stream)  # type: ignore[arg-type]
        except (StreamEnded, trio.BrokenResourceError):
            await stream.close()

    async with (
        open_host(bytes([1]) * 32, ["/ip4/127.0.0.1/tcp/0"], HANDLERS, dht=False) as host,
        trio.open_nursery() as nursery,
    ):
        listeners = await nursery.start(partial(trio.serve_tcp, serve_tls, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        print(json.dumps({"address": host.addresses()[0], "tls_port": port}), flush=True)
        await trio.sleep_forever()


@contextmanager
def serving_process() -> Iterator[tuple[str, int, int]]:
    """Run `serve` in a process of its own: address, port of TLS, process id."""
    server = subprocess.Popen([sys.executable, "-m", "benchmarks.streams"], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        where = json.loads(server.stdout.readline())
        yield where["address"], where["tls_port"], server.pid
    finally:
        server.terminate()
        server.wait()


@asynccontextmanager
async def openers(address: str, tls_port: int) -> AsyncIterator[dict[str, Opener]]:
    """Yield the kinds that are compared, by name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE

    async def open_tls(protocol: str) -> TlsStream:
        carrier = await trio.open_tcp_stream("127.0.0.1", tls_port)
        stream = TlsStream(trio.SSLStream(carrier, context))
        await stream.write(_TLS_LETTER[protocol])
        return stream

    async with open_host(bytes([2]) * 32, [], {}, dht=False) as host:
        peer = await host.connect(address)
        yield {
            "tls": open_tls,
            "dimnode": lambda protocol: host.open_stream(peer, protocol),
            "dimnode lazy": lambda protocol: host.open_stream(peer, protocol, lazy=True),
        }


if __name__ == "__main__":
    trio.run(serve)
