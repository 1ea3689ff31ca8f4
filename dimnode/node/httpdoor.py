"""The HTTP door's place in the node: shut until a key exists, because without one nobody could come in.

Rule: FastAPI and what it brings are imported when the door opens and not before, so a node without keys stays small.
"""

from __future__ import annotations

import time
from collections import Counter
from contextlib import suppress
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from dimnode.api.http.settings import HttpSettings, check_listen, is_loopback
from dimnode.errors import ConfigError, Refused
from dimnode.limits import HttpLimits
from dimnode.records.ids import Cid
from dimnode.store.keys import Asked, KeyBook, has_keys
from dimnode.store.uploads import Draft, Uploads

if TYPE_CHECKING:
    from dimnode.api.http.door import HttpDoor
    from dimnode.node.backstage import Backstage
    from dimnode.node.node import Node


class Account:
    """`api.http.submission.Account` over the key book."""

    def __init__(self, book: KeyBook, limits: HttpLimits) -> None:
        self._book, self._notes_max = book, limits.notes_before_checkpoint
        self._notes, self._many = 0, trio.lowlevel.ParkingLot()
        self.job, self.repeated, self.jobs_of = book.job, book.repeated, book.jobs_of

    def note(self, job: bytes, key: str, repeat: str, digest: bytes, at_ms: int) -> None:
        """Remember who asked."""
        self._book.note_job(Asked(job, key, repeat, digest, at_ms))
        self._notes += 1
        if self._notes >= self._notes_max:
            self._many.unpark_all()

    async def watch(self) -> None:
        """Keep the book's log short, in a thread, because the disk takes its time; until cancelled."""
        while True:
            while self._notes < self._notes_max:
                await self._many.park()
            self._notes = 0
            with suppress(Refused):  # who notes next is told of it
                await trio.to_thread.run_sync(self._book.checkpoint)


class Shelf:
    """`api.http.routes_blobs.Shelf` over the uploads and the key book."""

    def __init__(self, book: KeyBook, uploads: Uploads, limits: HttpLimits) -> None:
        self._book, self._uploads, self._limits = book, uploads, limits
        self._open: Counter[str] = Counter()

    def begin(self, key: str) -> Draft:
        """Raises `Refused` beyond the key's bytes of a day, or the uploads that may go on at once."""
        limits = self._limits
        room = limits.uploads_bytes_per_key_max - self._book.uploaded_bytes(key, self._since_ms())
        if room <= 0:
            raise Refused("E-http-08", "this key handed in as many bytes as it may in a day", "", "tomorrow", 3_600_000)
        if self._open[key] >= limits.uploads_per_key_at_once_max or self._open.total() >= limits.uploads_at_once_max:
            raise Refused("E-http-08", "too many uploads go on at once", "", "one after the other", 1000)
        draft = self._uploads.begin(room, partial(self._over, key))
        self._open[key] += 1
        return draft

    def _over(self, key: str) -> None:
        self._open[key] -= 1
        if not self._open[key]:
            del self._open[key]

    def _since_ms(self) -> int:
        return _now_ms() - int(self._limits.upload_kept_seconds * 1000)

    def keep(self, draft: Draft, key: str) -> tuple[Cid, int]:
        """On the disk, and on the key's account."""
        cid = draft.keep()
        # A small file costs the disk more than its bytes.
        self._book.note_upload(cid, key, max(draft.bytes, self._limits.upload_least_bytes), _now_ms())
        return cid, draft.bytes

    def path(self, cid: Cid, key: str, anybodys: bool) -> Path | None:
        """Nobody learns whether another key has the same file."""
        return self._uploads.path(cid) if anybodys or self._book.uploaded(cid, key) else None

    async def watch(self) -> None:
        """Sweep now and then, until cancelled."""
        while True:
            await trio.to_thread.run_sync(self._uploads.sweep)
            with suppress(Refused):  # the book is told of elsewhere
                self._book.forget_uploads(self._since_ms())
            await trio.sleep(self._limits.uploads_look_seconds)


class HttpPlace:
    """Opens the door at most once."""

    def __init__(self, node: Node, backstage: Backstage) -> None:
        self._node, self._backstage = node, backstage
        self._door: HttpDoor | None = None
        self._opening = trio.Lock()

    @property
    def url(self) -> str:
        """Where it listens; empty while it is shut."""
        return self._door.url if self._door is not None else ""

    async def open(self, nursery: trio.Nursery) -> str:
        """Open it if there is a key and the operator has not turned it off; the URL, also for who asks meanwhile.

        Raises `ConfigError` when it cannot listen or its packages are not installed; then nothing of it is left.
        """
        async with self._opening:
            return await self._open(nursery)

    async def _open(self, nursery: trio.Nursery) -> str:
        config = self._node.config
        if self._door is not None or not config.http_listen or not has_keys(self._node.home):
            return self.url
        check_listen(config.http_listen)
        if find_spec("fastapi") is None or find_spec("hypercorn") is None:
            raise ConfigError("E-http-22", "the HTTP door is not installed", "", "pip install 'dimnode[http]'")
        # Half a second of imports: in a thread, so that no peer waits for a ping meanwhile.
        await trio.to_thread.run_sync(import_module, "dimnode.api.http.door")
        from dimnode.api.http.door import HttpDoor

        if not is_loopback(config.http_listen) and not config.http_certificate and not config.http_insecure:
            cause = f"{config.http_listen} can be reached by others, and keys would travel in clear"
            hint = "set http_certificate and http_private_key, or http_insecure = true behind a proxy that has them"
            raise ConfigError("E-http-23", "the HTTP door needs TLS", cause, hint)
        settings = HttpSettings(
            config.http_listen, config.http_hosts, config.http_origins, config.http_certificate, config.http_private_key
        )
        book = KeyBook(self._node.home)
        limits = self._node.limits
        uploads = Uploads(self._node.home, limits.http, limits.store.free_bytes_min)
        shelf = Shelf(book, uploads, limits.http)
        account = Account(book, limits.http)
        door = HttpDoor(self._backstage, book, account, shelf, settings, limits)
        try:
            await nursery.start(door.serve)
        except (ConfigError, trio.Cancelled):  # the latter when who asked for it left meanwhile
            book.close()
            raise
        nursery.start_soon(shelf.watch)
        nursery.start_soon(account.watch)
        self._door = door
        return self.url

    async def close(self) -> None:
        """Let streams end, within the stop limit."""
        if self._door is not None:
            self._door.stop()
            with trio.move_on_after(self._node.limits.http.stop_seconds_max):
                await self._door.closed.wait()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
