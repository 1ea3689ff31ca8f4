"""The host beside its physical limit: streams of dimnode's Noise and Yamux against trio TCP with TLS.

Two processes on loopback, both kinds in the same run and in turns, so that a busy machine slows both: the ratio is what
counts. `python benchmarks/muxer.py [--rounds 3] [--seconds 1] [--megabytes 200] [--json]`.

    kept        100-byte round trips per second on one kept stream
    32 at once  the same on 32 streams of one connection (TLS: 32 connections)
    new         streams opened, used once and closed per second (TLS: connections; lazy: no round trip to negotiate)
    bulk        MB/s one way
"""

import argparse
import json
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
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

ECHO, SINK = "/bench/echo/1", "/bench/sink/1"
MESSAGE = bytes(100)
PIECE = bytes(1 << 20)
Opener = Callable[[str], Awaitable[Any]]


class TlsStream:
    """The same four methods over a TLS connection."""

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
    got = await stream.read(size)
    while len(got) < size:
        got += await stream.read(size - len(got))
    return got


async def echo(stream: Any) -> None:
    while True:
        await stream.write(await read_exactly(stream, len(MESSAGE)))


async def sink(stream: Any) -> None:
    """Take the announced number of bytes, then answer with one."""
    left = int.from_bytes(await read_exactly(stream, 8), "big")
    while left > 0:
        left -= len(await stream.read(1 << 18))
    await stream.write(b"!")


# The serving process


def write_certificate(folder: Path) -> tuple[Path, Path]:
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
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:
        context.load_cert_chain(*write_certificate(Path(folder)))

    async def serve_tls(carrier: trio.SocketStream) -> None:
        stream = TlsStream(trio.SSLStream(carrier, context, server_side=True))
        try:
            await (echo if await read_exactly(stream, 1) == b"e" else sink)(stream)
        except (StreamEnded, trio.BrokenResourceError):
            await stream.close()

    handlers: dict[str, Callable[[Stream], Awaitable[None]]] = {ECHO: echo, SINK: sink}
    async with (
        open_host(bytes([1]) * 32, ["/ip4/127.0.0.1/tcp/0"], handlers, dht=False) as host,
        trio.open_nursery() as nursery,
    ):
        listeners = await nursery.start(partial(trio.serve_tcp, serve_tls, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        print(json.dumps({"address": host.addresses()[0], "tls_port": port}), flush=True)
        await trio.sleep_forever()


# The measuring process


async def round_trips(stream: Any, until: float, took: list[float]) -> None:
    while (started := time.perf_counter()) < until:
        await stream.write(MESSAGE)
        await read_exactly(stream, len(MESSAGE))
        took.append(time.perf_counter() - started)


async def measure(opener: Opener, seconds: float, megabytes: int) -> dict[str, float]:
    """Run the four measurements over streams from `opener`."""
    result = {}
    stream = await opener(ECHO)
    took: list[float] = []
    await round_trips(stream, time.perf_counter() + seconds, took)
    result["kept_per_second"] = len(took) / seconds
    result["kept_p50_us"] = statistics.median(took) * 1e6
    await stream.close()

    streams = [await opener(ECHO) for _ in range(32)]
    took = []
    until = time.perf_counter() + seconds
    async with trio.open_nursery() as nursery:
        for stream in streams:
            nursery.start_soon(round_trips, stream, until, took)
    result["concurrent_per_second"] = len(took) / seconds
    for stream in streams:
        await stream.close()

    count, until = 0, time.perf_counter() + seconds
    while time.perf_counter() < until:
        stream = await opener(ECHO)
        await round_trips_once(stream)
        await stream.close()
        count += 1
    result["new_per_second"] = count / seconds

    stream = await opener(SINK)
    started, used = time.perf_counter(), time.process_time()
    await stream.write((megabytes << 20).to_bytes(8, "big"))
    for _ in range(megabytes):
        await stream.write(PIECE)
    await read_exactly(stream, 1)
    result["bulk_mb_per_second"] = megabytes * 1.048576 / (time.perf_counter() - started)
    result["bulk_cpu_ms_per_mb"] = (time.process_time() - used) * 1000 / (megabytes * 1.048576)
    await stream.close()
    return result


async def round_trips_once(stream: Any) -> None:
    await stream.write(MESSAGE)
    await read_exactly(stream, len(MESSAGE))


@asynccontextmanager
async def openers(address: str, tls_port: int) -> AsyncIterator[dict[str, Opener]]:
    """Yield the kinds that are compared, by name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE

    async def open_tls(protocol: str) -> TlsStream:
        carrier = await trio.open_tcp_stream("127.0.0.1", tls_port)
        stream = TlsStream(trio.SSLStream(carrier, context))
        await stream.write(b"e" if protocol == ECHO else b"s")
        return stream

    async with open_host(bytes([2]) * 32, [], {}, dht=False) as host:
        peer = await host.connect(address)
        yield {
            "tls": open_tls,
            "dimnode": lambda protocol: host.open_stream(peer, protocol),
            "dimnode lazy": lambda protocol: host.open_stream(peer, protocol, lazy=True),
        }


async def compare(
    address: str, tls_port: int, rounds: int, seconds: float, megabytes: int
) -> dict[str, dict[str, float]]:
    """Return the medians over all rounds, by kind and measurement."""
    rows: dict[str, list[dict[str, float]]] = {}
    async with openers(address, tls_port) as kinds:
        for _ in range(rounds):
            for kind, opener in kinds.items():
                rows.setdefault(kind, []).append(await measure(opener, seconds, megabytes))
    return {
        kind: {name: round(statistics.median(row[name] for row in found), 2) for name in found[0]}
        for kind, found in rows.items()
    }


def print_table(result: dict[str, dict[str, float]]) -> None:
    print(f"{'':24}{''.join(f'{kind:>16}' for kind in result)}{'ratio':>16}")
    for name in result["tls"]:
        values = [row[name] for row in result.values()]
        print(f"{name:24}{''.join(f'{value:16,.1f}' for value in values)}{values[-1] / values[0]:16.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        trio.run(serve)
        return
    server = subprocess.Popen([sys.executable, __file__, "--serve"], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        where = json.loads(server.stdout.readline())
        result = trio.run(
            compare, where["address"], where["tls_port"], options.rounds, options.seconds, options.megabytes
        )
    finally:
        server.terminate()
        server.wait()
    if options.json:
        print(json.dumps(result))
    else:
        print_table(result)


if __name__ == "__main__":
    main()
