"""What this node publishes, told to the swarm: its index as a blob, and an IPNS record in the DHT that names it.

Rule: a record's sequence number is on the disk before anybody hears of it, so that after a crash no two records have
one number; a disk that forgot its number hears it from those who keep the last record. A record is valid for half an
hour and renewed at a third of it: of a publisher that went away nobody believes an old index for long.
"""

import io
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

import trio

from dimnode.errors import DimError, PeerFault, Refused
from dimnode.limits import Limits
from dimnode.node.clock import wall_ms
from dimnode.node.content import Content
from dimnode.p2p.host.host import Host
from dimnode.p2p.host.streams import DialFailed, StreamLost
from dimnode.records.envelope import Record, SigningKey
from dimnode.records.ids import Cid, RecordId, blob_cid, short
from dimnode.records.index import path_of, root_of, write_index
from dimnode.records.ipns import Name, read_name, seal_name
from dimnode.store.journal import Journal

log = logging.getLogger(__name__)

INDEX_PIN: Final = "index"
_ROW: Final = "index"
_SEQUENCE_MAX: Final = 2**62

Published = Callable[[], tuple[Sequence[Record], Sequence[Record]]]
"""Manifests of this node's own that everybody may hear of, and its withdrawals of manifests."""


class OwnIndex:
    """One for a node. `record` is what it tells of itself now, None before it published anything."""

    def __init__(
        self, key: SigningKey, net: RecordId, journal: Journal, content: Content, published: Published, limits: Limits
    ) -> None:
        self._key, self._net, self._journal, self._content = key, net, journal, content
        self._published, self._limits = published, limits.index
        self._keepers_max = limits.host.dht_keepers_max
        self._news = trio.Event()
        self._again_at, self._somebody_came = 0.0, False
        self._raw = b""
        self.record: Name | None = None
        self.root: Cid | None = None
        self.kept_by = 0
        content.rules.append(lambda _, root: root == self.root)
        for (raw,) in journal.rows("SELECT record FROM names WHERE name=?", (_ROW,)):
            with suppress(PeerFault):  # of a later version, perhaps: its number will be heard from others
                self._take(raw, read_name(raw, key.peer))

    def _take(self, raw: bytes, name: Name) -> None:
        self._raw, self.record, self.root = raw, name, root_of(name.value)

    def news(self) -> None:
        """What is published may have changed."""
        self._news.set()

    def met(self) -> None:
        """A link came: while few keep the record, whoever is there now is brought it soon."""
        if self.kept_by < self._keepers_max:
            self._again_at, self._somebody_came = 0.0, True
            self.news()

    async def run(self, host: Host) -> None:
        """Until cancelled: seal, tell, and tell again."""
        while True:
            wait_seconds = self._limits.again_seconds
            try:
                wait_seconds = await self._round(host)
            except (DimError, PeerFault, DialFailed, StreamLost) as error:
                log.warning("the index of this node was not published: %s", error)
            with trio.move_on_after(wait_seconds):
                await self._news.wait()
            self._news = trio.Event()
            await trio.sleep(self._limits.change_seconds_min)  # many changes at once are one

    async def _round(self, host: Host) -> float:
        """Say how things stand; how long that will do, in seconds."""
        manifests, withdrawals = self._published()
        if not manifests and self.record is None:
            return self._limits.renew_seconds
        content = await trio.to_thread.run_sync(write_index, self._key.peer, self._net, manifests, withdrawals)
        if self.root != blob_cid(content) or self._renew_in_seconds() <= 0:
            await self._seal(content, 0)
        elif (left := self._again_at - trio.current_time()) > 0:  # what changed was something else
            return left
        self._somebody_came = False
        self.kept_by, heard = await host.dht_publish(self._raw)
        assert self.record is not None
        if heard.name is not None and heard.name.age_key > self.record.age_key:
            log.warning("others keep a newer record of this node's than its disk: its number is taken over")
            await self._seal(content, heard.name.sequence)
            self.kept_by, _ = await host.dht_publish(self._raw)
        wait_seconds = self._renew_in_seconds()
        if self.kept_by < self._keepers_max:
            again = self._limits.few_keepers_seconds if self.kept_by else self._limits.again_seconds
            wait_seconds = min(again, wait_seconds)
        if not self._somebody_came:  # meanwhile
            self._again_at = trio.current_time() + wait_seconds
        return wait_seconds

    def _renew_in_seconds(self) -> float:
        """Until a third of the time is over. A clock that was set back, or far ahead, makes it now."""
        assert self.record is not None
        left = (self.record.valid_until_ms - wall_ms()) / 1000
        renew = left - (self._limits.valid_seconds - self._limits.renew_seconds)
        return renew if renew <= self._limits.renew_seconds else 0.0

    async def _seal(self, content: bytes, heard_sequence: int) -> None:
        """A new record under the next number: blob and number on the disk first."""
        root = blob_cid(content)
        await trio.to_thread.run_sync(self._keep, root, content)
        before = self.record.sequence if self.record is not None else 0
        sequence = min(max(before, heard_sequence) + 1, _SEQUENCE_MAX)
        valid_until_ms = wall_ms() + self._limits.valid_seconds * 1000
        name = Name(path_of(root), sequence, valid_until_ms, self._limits.ttl_seconds * 1000)
        raw = seal_name(self._key, name)
        await self._journal.commit({"names": [(_ROW, sequence, raw)]})
        if self.root is not None and self.root != root:
            self._content.withdraw(self.root)
        self._take(raw, name)
        self.kept_by = 0
        self._content.announce(root)
        log.debug("index …%s, number %d", short(root), sequence)

    def _keep(self, root: Cid, content: bytes) -> None:
        """In the store, and the one before it out of it, unless somebody keeps or reads it. Blocks."""
        store = self._content.store
        store.add(io.BytesIO(content), pin=INDEX_PIN)
        for other, reasons in store.pins().items():
            if other != root and INDEX_PIN in reasons:
                store.unpin(other, INDEX_PIN)
                with suppress(Refused):
                    store.remove(other)
