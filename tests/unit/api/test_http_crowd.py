"""A crowd at the door: sockets and connections up to the caps and beyond, and an honest client among them."""

import os
import resource
import sys
import time
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from dimnode.limits import LIMITS
from tests.unit.api.http_stage import JOB, Stage, on_stage

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="counts descriptors in /proc")]

CROWD = 1000
FILES = 4096
CROWDS = ("127.0.0.2", "127.0.0.3")  # on Linux all of 127/8 is this machine
PATIENT = replace(LIMITS.http, keep_alive_seconds_max=3600.0)
"""A door of which nobody is sent away for idleness: who had to wait for a place of the crowd's would wait for ever."""
HONEST_CPU_SECONDS = 1.0  # of this process, in which both ends are: others on the machine are no part of it


@pytest.fixture(autouse=True)
def _room_for_both_ends() -> None:
    """Both ends of every connection are files of this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < FILES:
        pytest.skip(f"this process may open {hard} files, and a crowd takes {FILES}")
    if soft != resource.RLIM_INFINITY and soft < FILES:
        resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, hard))


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


async def status_of(stream: trio.SocketStream) -> int:
    """The status of the answer that comes."""
    found = b""
    while b"\r\n" not in found:
        more = await stream.receive_some(4096)
        if not more:
            return 0
        found += more
    return int(found.split(b" ", 2)[1])


async def upgrade(stage: Stage, key: str, job: str, come_from: str) -> tuple[trio.SocketStream, int]:
    """A WebSocket that then says nothing."""
    stream = await trio.open_tcp_stream(*stage.address, local_address=come_from)
    host, port = stage.address
    await stream.send_all(
        f"GET /dim/v1/jobs/{job}/ws HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        f"Authorization: Bearer {key}\r\n\r\n".encode()
    )
    return stream, await status_of(stream)


async def ask_honestly(stage: Stage, key: str) -> None:
    """A new connection and a job, in time."""
    began = time.process_time()
    async with stage.client(key) as client:
        assert (await client.get("/dim/v1/jobs")).status_code == 200
    assert time.process_time() - began < HONEST_CPU_SECONDS


async def all_gone(files: int) -> None:
    """Until every descriptor has been given back."""
    while open_files() > files:  # noqa: ASYNC110 the kernel tells nobody
        await trio.sleep(0.02)


def test_of_a_thousand_idle_websockets_those_beyond_the_caps_are_refused_and_all_are_released(tmp_path: Path) -> None:
    limits = LIMITS.http

    async def act(stage: Stage) -> None:
        stage.node.at_once = False
        honest = stage.key()
        await ask_honestly(stage, honest)
        files = open_files()
        keys = [stage.key() for _ in range(CROWD // limits.sockets_per_key_max + 1)]
        jobs = {}
        for key in keys:
            async with stage.client(key) as client:
                jobs[key] = (await client.post("/dim/v1/jobs", json=JOB)).json()["job"]
        # Each key tries for more than its share, until the door is full and then some.
        tries = [key for key in keys for _ in range(limits.sockets_per_key_max + 2)][:CROWD]
        crowd = []
        seen: dict[int, int] = {}
        for number, key in enumerate(tries):
            stream, status = await upgrade(stage, key, jobs[key], CROWDS[number % len(CROWDS)])
            crowd.append(stream)
            seen[status] = seen.get(status, 0) + 1
        assert seen == {101: limits.sockets_max, 429: CROWD - limits.sockets_max}
        await ask_honestly(stage, honest)
        for stream in crowd:
            await stream.aclose()
        await all_gone(files)
        stream, status = await upgrade(stage, keys[0], jobs[keys[0]], CROWDS[0])
        async with aclosing(stream):
            assert status == 101

    on_stage(tmp_path, act, PATIENT, seconds=300)


def test_an_address_with_more_idle_connections_than_its_share_leaves_room_and_all_are_released(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        honest = stage.key()
        await ask_honestly(stage, honest)
        files = open_files()
        share = LIMITS.http.connections_per_address_max
        crowd = [await trio.open_tcp_stream(*stage.address, local_address=CROWDS[0]) for _ in range(share + 50)]
        await ask_honestly(stage, honest)
        assert [await status_of(stream) for stream in crowd[share:]] == [0] * 50, "closed without a word"
        for stream in crowd:
            await stream.aclose()
        await all_gone(files)
        await ask_honestly(stage, honest)

    on_stage(tmp_path, act, PATIENT, seconds=300)
