"""Fetching one large blob from several peers at once: a worker for each, one queue, every leaf checked as it comes.

Rule: nothing that came over the wire is believed before its hash holds: nodes of the tree against the root, leaves
against the tree. Who sent something else is a liar: dropped at once, told of, and not asked again.
Who is asked is decided by `exchange.py`; what is kept, by the sink.
"""

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Protocol

import trio

from dimnode.errors import ConfigError, PeerFault, Refused
from dimnode.limits import LIMITS, ExchangeLimits
from dimnode.p2p.blob_keeping import Arrival, Keeper
from dimnode.p2p.blob_leaves import LeafAnswers, Rooms
from dimnode.p2p.blob_words import BlobStream, Have, Leaf, Node, Open, Refusal, read_bits
from dimnode.p2p.blobs import BLOB
from dimnode.p2p.exchange import Exchange, Share
from dimnode.p2p.host.host import Host
from dimnode.p2p.host.streams import DialFailed, StreamEnded, StreamLost
from dimnode.p2p.loop_load import LoopLoad
from dimnode.records.ids import BLOB_PREFIX, Cid, PeerId, blob_cid, cid_text, short
from dimnode.records.unixfs import LEAF_BYTES, PROFILE, Layout, Tree, TreeReader, WrongHash, single_leaf

log = logging.getLogger(__name__)

_GONE = (StreamEnded, StreamLost, DialFailed, Refusal, trio.TooSlowError)


class TreeFault(PeerFault):
    """A node has the right hash and is none of ours."""


class Sink(Protocol):
    """Where leaves go. Its methods block: they are called in threads."""

    have: bytearray
    done_bytes: int

    def write(self, leaf: int, pieces: Sequence[bytes | memoryview], digest: bytes | None = None) -> bool:
        """Check and keep; False when it was there. digest: SHA-256 of the pieces, where it was computed already.

        Raises `PeerFault` for a wrong leaf, `Refused` for a full disk.
        """

    def missing(self) -> list[int]:
        """Leaves that are not here."""


OpenSink = Callable[[Tree], Sink]
"""Blocks: called in a thread. Raises `Refused` and `ConfigError`."""


class Download:
    """One blob on its way. `offer` peers at any time; `run` until it is whole."""

    def __init__(
        self,
        host: Host,
        root: Cid,
        open_sink: OpenSink,
        reach: Callable[[PeerId], Awaitable[None]],
        lied: Callable[[PeerId], None],
        size_bytes: int | None = None,
        first: int = 0,
        limits: ExchangeLimits = LIMITS.exchange,
    ) -> None:
        """reach: connects to a peer, or raises `DialFailed`. lied: told of each peer that sent wrong bytes.

        size_bytes: what the blob has to have, when somebody said so. first: where in the blob to begin.
        """
        self.root, self._size_bytes, self._first = root, size_bytes, first
        self._host, self._open_sink, self._reach, self._lied, self._limits = host, open_sink, reach, lied, limits
        self._reader = TreeReader(root, LIMITS.store.blob_bytes_max)
        self._tree_turn = trio.Lock()
        self._keeper = Keeper(self._keep, self._landed, limits.keeper_linger_seconds)
        self._rooms = Rooms(limits.leaves_held_max, self._keeper.hurry)
        self._answers: dict[PeerId, LeafAnswers] = {}
        self._load = LoopLoad(limits.load_seconds)
        self._changed = trio.Event()
        self._workers: dict[PeerId, trio.CancelScope] = {}
        self._streams: dict[PeerId, BlobStream] = {}
        self._taking_part: set[PeerId] = set()
        self._substitutes: deque[PeerId] = deque()
        self._enough_until = 0.0  # while nobody was called in
        self._past_bytes_in = 0
        self._nursery: trio.Nursery | None = None
        self._failure: Exception | None = None
        self._only: list[bytes] = []
        self.liars: set[PeerId] = set()
        self.idle_since: float | None = None
        self.tree: Tree | None = None
        self.sink: Sink | None = None
        self.exchange: Exchange | None = None

    # ---- what is known of it

    @property
    def done_bytes(self) -> int:
        """Bytes of the blob that are here."""
        return self.sink.done_bytes if self.sink is not None else 0

    @property
    def all_bytes(self) -> int:
        """Bytes of the blob; 0 while nobody knows."""
        return self.tree.file_bytes if self.tree is not None else self._size_bytes or 0

    @property
    def bytes_in(self) -> int:
        """Bytes that came over streams for it, questions' answers and all."""
        return self._past_bytes_in + sum(stream.bytes_in for stream in self._streams.values())

    def shares(self) -> list[Share]:
        """What each provider gave."""
        return [] if self.exchange is None else self.exchange.shares()

    @property
    def done(self) -> bool:
        """Whether every leaf is here."""
        return self.exchange is not None and self.exchange.done

    # ---- its life

    async def run(self) -> Sink:
        """Until every leaf is here: the sink, which the caller finishes. Cancel it at will: the sink keeps what it has.

        Raises `Refused`: of the disk, or because the blob is not what was asked for; `ConfigError`: a damaged book of
        blobs. It ends only so: who offers peers decides when it is hopeless (`idle_since`).
        """
        async with trio.open_nursery() as nursery:  # a worker for each provider, and the one that checks and writes
            self._nursery = nursery
            self.idle_since = trio.current_time()
            nursery.start_soon(self._watch_silence)
            nursery.start_soon(self._watch_need)
            nursery.start_soon(self._check)
            while not self.done and self._failure is None:
                self._call_in()
                await self._changed.wait()
                self._changed = trio.Event()
            self._nursery = None  # nobody is called in any more
            nursery.cancel_scope.cancel()
        if self._failure is not None:
            raise self._failure
        assert self.sink is not None
        return self.sink

    async def _watch_silence(self) -> None:
        """A provider that says nothing gives its leaves back."""
        while True:
            await trio.sleep(self._limits.silence_seconds_max / 4)
            now = trio.current_time()
            for peer, stream in list(self._streams.items()):
                if stream.overdue(now) and peer in self._workers:
                    log.info("%s is silent: others are asked for %s", short(peer), short(self.root))
                    self._workers[peer].cancel()

    def offer(self, peer: PeerId) -> None:
        """Somebody who may have it: who is offered first is asked first. It waits while others are enough.

        Nothing happens when it takes part, waits already or lied, or when too many wait.
        """
        known = peer in self._workers or peer in self._substitutes or peer in self.liars
        if not known and len(self._substitutes) < self._limits.substitutes_max:
            self._substitutes.append(peer)
            self._call_in()

    async def _watch_need(self) -> None:
        while True:
            await trio.sleep(self._limits.look_again_seconds)
            self._call_in()

    def _call_in(self) -> None:
        """Take on who waits, unless those at work bring as much as this node takes: more of them would only cost.

        The first one of all has a head start, in which that shows.
        """
        while self._nursery and self._substitutes and len(self._workers) < self._limits.providers_max:
            if self._workers and trio.current_time() < self._enough_until:
                return
            if not self._enough_until:
                self._enough_until = trio.current_time() + self._limits.head_start_seconds
            peer = self._substitutes.popleft()
            if peer not in self.liars and not self.done:
                self._workers[peer] = trio.CancelScope()
                self._nursery.start_soon(self._work, peer, self._workers[peer])

    def _change(self) -> None:
        """Leaves may be there to be asked of others, or none any more."""
        self._changed.set()
        for answers in self._answers.values():
            answers.wake()

    async def _work(self, peer: PeerId, scope: trio.CancelScope) -> None:
        """One provider, from the dial to the end."""
        stream: BlobStream | None = None
        try:
            with scope:
                await self._reach(peer)
                stream = BlobStream(await self._host.open_stream(peer, BLOB), self._limits)
                self._streams[peer] = stream
                await self._with(peer, stream)
        except _GONE as error:
            log.debug("%s gives no more of %s: %r", short(peer), short(self.root), error)
        except PeerFault as fault:
            self._liar(peer, fault)
        except (Refused, ConfigError) as no:  # of the disk, or a damaged book of blobs: no fault of the peer's
            self._failure = no
        finally:
            self._end(peer, stream)
            if stream is not None:
                await stream.reset()

    def _end(self, peer: PeerId, stream: BlobStream | None) -> None:
        self._keeper.collect()
        self._workers.pop(peer, None)
        if stream is not None:
            self._past_bytes_in += stream.bytes_in
            del self._streams[peer]
        if self.exchange is not None:
            self.exchange.leave(peer)
        took_part = peer in self._taking_part
        self._taking_part.discard(peer)
        if took_part and not self._taking_part:
            self.idle_since = trio.current_time()
        self._change()

    def _liar(self, peer: PeerId, fault: PeerFault) -> None:
        if peer in self.liars:  # several of its leaves were being checked
            return
        log.warning("%s sent wrong bytes of %s: %s", short(peer), cid_text(self.root), fault.rule)
        self.liars.add(peer)
        self._lied(peer)
        if (scope := self._workers.get(peer)) is not None:
            scope.cancel()

    async def _with(self, peer: PeerId, stream: BlobStream) -> None:
        await stream.ask(Open(self.root))
        size, bits = await stream.opened()
        self._taking_part.add(peer)  # one that refuses does not: it may be asked for ever
        self.idle_since = None
        async with self._tree_turn:
            if self.tree is None:
                await self._begin(stream, size)
        if self.done or self._failure is not None:
            return
        assert self.exchange is not None and self.tree is not None
        if size != self.tree.file_bytes:
            raise PeerFault("blob: size")
        self.exchange.join(peer, self._bytes_of(bits))
        await self._leaves(peer, stream)

    def _bytes_of(self, bits: bytes) -> bytes | None:
        assert self.tree is not None
        return read_bits(bits, self.tree.layout.leaves) if bits else None

    # ---- the tree

    async def _begin(self, stream: BlobStream, size: int) -> None:
        """The first provider gives the tree. What it gave is kept when it breaks off: the next one goes on."""
        try:
            tree = await (self._only_leaf if self.root.startswith(BLOB_PREFIX) else self._nodes)(stream, size)
        except WrongHash:
            raise
        except TreeFault as fault:  # the bytes have the hash that was asked for: whoever gave them is honest
            cause = f"{fault.rule}: it was made by other rules than {PROFILE}"
            raise Refused("E-p2p-62", f"{cid_text(self.root)} is no blob that this version takes", cause, "") from None
        await self.resume(tree)

    async def resume(self, tree: Tree) -> None:
        """The tree is known. Raises `Refused`: of the disk, or because it is not what was announced."""
        if self._size_bytes is not None and self._size_bytes != tree.file_bytes:
            cause = f"it has {tree.file_bytes} bytes, {self._size_bytes} were announced"
            raise Refused("E-p2p-62", f"{cid_text(self.root)} is not what was announced", cause, "")
        self.tree, self.sink = tree, await trio.to_thread.run_sync(self._open_sink, tree)
        if self._only and self.sink.missing():
            await trio.to_thread.run_sync(self.sink.write, 0, self._only)
        self.exchange = Exchange(tree.layout.leaves, self.sink.missing(), self._first, self._limits)
        self._change()

    async def _nodes(self, stream: BlobStream, size: int) -> Tree:
        """Raises `TooSlowError`: others wait meanwhile."""
        root = Layout(size)
        if not root.is_tree:
            raise PeerFault("blob: size")
        with trio.fail_after(self._limits.tree_seconds_max):
            if self._reader.layout is None:
                await self._take(stream, [(root.height, 0)])
            while self._reader.tree is None:
                await self._take(stream, list(self._reader.wanted)[: self._limits.questions_waiting_max // 2])
        return self._reader.tree

    async def _take(self, stream: BlobStream, places: Sequence[tuple[int, int]]) -> None:
        for level, index in places:
            await stream.ask(Node(level, index))
        for level, index in places:
            raw = await stream.node()
            if raw is None:
                raise Refusal
            await trio.to_thread.run_sync(self._check_node, level, index, raw)

    def _check_node(self, level: int, index: int, raw: bytes) -> None:
        """Blocks for the time of a thousand hashes."""
        try:
            if self._reader.layout is None:
                self._reader.take_root(raw)
            else:
                self._reader.take(level, index, raw)
        except WrongHash:
            raise
        except PeerFault as fault:
            raise TreeFault(fault.rule) from None

    async def _only_leaf(self, stream: BlobStream, size: int) -> Tree:
        """A blob of one leaf: its root is its hash."""
        if size > LEAF_BYTES:
            raise PeerFault("blob: size")
        await stream.ask(Leaf(0))
        content = await stream.leaf(0)
        if content is None:
            raise Refusal
        if blob_cid(content) != self.root:
            raise WrongHash("blob: wrong leaf")
        self._only = [content]
        return single_leaf(self.root, len(content))

    # ---- leaves

    async def _leaves(self, peer: PeerId, stream: BlobStream) -> None:
        assert self.exchange is not None
        came, absent = partial(self._came, peer), partial(self._not_there, peer)
        answers = LeafAnswers(self._rooms, came, absent, lambda: self._keeper.waiting > 0)
        self._answers[peer] = answers
        stream.pour(answers)
        try:
            had_at = trio.current_time()
            while not self.exchange.done:
                self._keeper.collect()
                await self._ask(peer, stream, answers)
                if answers.asked or self._is_crowded:
                    await answers.news(None if answers.asked else self._limits.look_again_seconds)
                    stream.check_readable()
                    continue
                before, had_at = had_at, await self._nothing_to_ask(peer, stream, had_at)
                if had_at > before and self._substitutes and not self.exchange.useful(peer):
                    return  # it has nothing new either; another one may have. It will be offered again
        finally:
            stream.pour(None)
            answers.leave()
            del self._answers[peer]
            self._pour_on()

    @property
    def _is_crowded(self) -> bool:
        """Whether the disk has enough to do."""
        return self._keeper.waiting >= self._limits.leaves_waiting_max

    async def _ask(self, peer: PeerId, stream: BlobStream, answers: LeafAnswers) -> None:
        """As much as it may have, once it has at most half of that to do: so several questions are one message."""
        assert self.exchange is not None
        if self._is_crowded or len(answers.asked) > self.exchange.depth(peer) // 2:
            return
        questions = list[Leaf]()
        while (leaf := self.exchange.ask(peer, trio.current_time())) is not None:
            answers.expect(leaf)
            questions.append(Leaf(leaf))
        if questions:
            await stream.ask(*questions)

    def _came(self, peer: PeerId, leaf: int, content: memoryview, room: bytearray, digest: bytes | None) -> None:
        assert self.exchange is not None
        now = trio.current_time()
        if self._is_crowded or self._load.share(now) > self._limits.enough_loop_share:
            self._enough_until = now + self._limits.enough_seconds
            self.exchange.crowd(peer, now)
        if self.exchange.came(peer, leaf, now):
            self._keeper.put(Arrival(peer, leaf, content, room, digest))
        else:
            self._rooms.give(room)
            self._pour_on()
        more = len(self._answers[peer].asked) > self.exchange.depth(peer) // 2
        self._keeper.patient = more and not self._rooms.are_wanted
        self._keeper.collect()

    def _not_there(self, peer: PeerId, leaf: int) -> None:
        assert self.exchange is not None
        self.exchange.absent(peer, leaf)
        self._change()

    async def _nothing_to_ask(self, peer: PeerId, stream: BlobStream, had_at: float) -> float:
        """Wait a little; ask a partial holder now and then what it has by now. When that was asked last."""
        assert self.exchange is not None
        now, answers, seconds = trio.current_time(), self._answers[peer], self._limits.look_again_seconds
        if (rest_seconds := self.exchange.rests_until(peer) - now) > 0:
            seconds = min(rest_seconds, seconds)
        elif now - had_at >= self._limits.have_again_seconds and not self.exchange.useful(peer):
            stream.pour(None)
            await stream.ask(Have())
            self.exchange.update(peer, self._bytes_of(await stream.have()))
            stream.pour(answers)
            return now
        await answers.news(seconds)  # also of a peer that says what nobody asked for
        stream.check_readable()
        return had_at

    async def _check(self) -> None:
        try:
            await self._keeper.run()
        except* Refused as no:
            self._failure = no.exceptions[0]
            self._change()

    def _keep(self, leaf: int, content: memoryview, digest: bytes | None) -> None:
        """Blocks. Raises `PeerFault` for a wrong leaf, `Refused` for a full disk."""
        assert self.sink is not None
        self.sink.write(leaf, [content], digest)

    def _landed(self, arrival: Arrival, fault: PeerFault | None) -> None:
        assert self.exchange is not None
        now = trio.current_time()
        if fault is None:
            self.exchange.take(arrival.leaf)
        else:
            self.exchange.wrong(arrival.leaf)
            self._liar(arrival.peer, fault)
        self._rooms.give(arrival.room)
        self._pour_on()
        for peer, answers in self._answers.items():
            may_ask = self.exchange.rests_until(peer) <= now
            if may_ask and len(answers.asked) <= self.exchange.depth(peer) // 2:
                answers.wake()
        if self.done:
            self._change()

    def _pour_on(self) -> None:
        """There is memory for a leaf again."""
        for peer, answers in self._answers.items():
            if answers.waits_for_room:
                self._streams[peer].resume()
