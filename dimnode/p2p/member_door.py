"""The membership protocol `/dim/member/1`: who are you, who am I, and what has changed.

At a new connection the dialler speaks first, so that a stranger who dials learns nothing but its refusal:

    dialler                                listener
    ["chain", net, [envelopes], digest] ->            judges
            <- ["chain", net, [envelopes], digest]    or ["no", code, words, [removals]]
    ["news", [envelopes], [keys]]       ->            learns, judges again
            <- ["news", [envelopes], [keys]]          or ["no", code, words, [removals]]

Later, either side opens a stream of the same protocol and sends one "news": a removal, a new member, a new key.

Rule: news and keys go only to a peer that was judged a member, and what it tells counts only by its signatures.
"""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

import trio

from dimnode.errors import PeerFault, Refused
from dimnode.limits import LIMITS, SwarmLimits
from dimnode.p2p.admission import MemberBook
from dimnode.p2p.host.admission_gate import TurnedAway
from dimnode.p2p.host.host import Host
from dimnode.p2p.host.streams import DialFailed, Stream, StreamEnded, StreamLost
from dimnode.records.envelope import Record, payload_of
from dimnode.records.ids import PeerId, RecordId, record_id, short
from dimnode.records.kinds import open_record
from dimnode.wire import END, FrameDecoder, pack_frame, unpack_body

log = logging.getLogger(__name__)

MEMBER: Final = "/dim/member/1"
_WORDS_MAX: Final = 200
_RECORDS_PER_CHECKPOINT: Final = 16
_REMOVALS_SHOWN_MAX: Final = 4
OF_THE_INVITE: Final = frozenset({"E-swarm-04", "E-swarm-06", "E-swarm-11", "E-swarm-14", "E-swarm-15"})
"""Refusals that another invite mends."""


class Talk:
    """Messages over a stream: msgpack lists whose first entry says what they are. A stranger's are short."""

    def __init__(self, stream: Stream, message_bytes_max: int = LIMITS.wire.frame_bytes_max) -> None:
        self._stream = stream
        self._decoder = FrameDecoder(message_bytes_max)
        self._heard: list[bytes] = []

    async def say(self, *parts: Any) -> None:
        """Send one message."""
        await self._stream.write(pack_frame(list(parts)))

    def trust(self) -> None:
        """The other side is a member: its messages may be long."""
        self._decoder.allow(LIMITS.wire.frame_bytes_max)

    async def hear(self) -> list[Any]:
        """The next message. Raises `PeerFault` for what is none, `StreamEnded` or `StreamLost` at the end."""
        while not self._heard:
            self._heard = self._decoder.feed(await self._stream.read(LIMITS.wire.read_bytes))
            if self._decoder.ended and not self._heard:
                raise StreamEnded
        said = unpack_body(self._heard.pop(0), LIMITS.wire.peer_frame_containers_max)
        if type(said) is not list or not said or type(said[0]) is not str:
            raise PeerFault("member: message")
        return said


class MemberDoor:
    """The membership protocol of a node in a private swarm. Implements the host's `Admission`.

    `chain` are the envelopes that show this node's own membership; `keys` returns the pre-shared keys to hand on, and
    `take_keys` looks at some that were handed on; `changed` is called when the book has learned something; `own_invite`
    when a member refused this node's own invite ("CODE: words"), or took the node in ("").
    """

    protocol = MEMBER

    def __init__(
        self,
        me: PeerId,
        book: MemberBook,
        chain: Sequence[bytes],
        now_ms: Callable[[], int],
        changed: Callable[[], None],
        keys: Callable[[], list[bytes]] = list,
        take_keys: Callable[[list[bytes]], None] = lambda _: None,
        limits: SwarmLimits = LIMITS.swarm,
        own_invite: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._own_invite = own_invite
        self.book, self.chain = book, list(chain)
        self.refused: Counter[str] = Counter()
        self.turned_away_by: dict[PeerId, str] = {}
        self._me, self._now_ms, self._changed = me, now_ms, changed
        self._keys, self._take_keys, self._limits = keys, take_keys, limits

    def count(self, code: str) -> None:
        """This node refused a connection for this reason."""
        self.refused[code] += 1

    # ---- at a new connection

    async def exchange(self, stream: Stream, dialled: bool) -> None:
        """Show and judge. Raises `Refused`, said here or by the other side, and as `Talk.hear`."""
        talk, peer = Talk(stream, self._limits.chain_bytes_max), PeerId(stream.peer)
        mine = ["chain", self.book.net, self.chain, self.book.digest()]
        if dialled:
            await talk.say(*mine)
        said = await talk.hear()
        if dialled:  # who dials shows itself first: its no, before that, would be the word of anybody
            self._unless_no(said, peer)
        digest = await self._judge_chain(talk, peer, said)
        talk.trust()
        if not dialled:
            await talk.say(*mine)
            await self._hear_news(talk, peer)
        await talk.say(*self._news([] if digest == self.book.digest() else self.book.records()))
        if dialled:
            await self._hear_news(talk, peer)
        self._own_invite("")

    async def _judge_chain(self, talk: Talk, peer: PeerId, said: list[Any]) -> bytes:
        before = self.book.changes
        match said:
            case ["chain", bytes(net), list(chain), bytes(digest), *_] if (
                len(chain) <= self._limits.chain_envelopes_max
            ):
                try:
                    self.book.admit(peer, self._opened_chain(net, chain, peer), self._now_ms())
                except Refused as refused:
                    await talk.say(*self._no(refused, peer))
                    raise
            case _:
                raise PeerFault("member: chain")
        if self.book.changes != before:
            self._changed()
        return digest

    def _opened_chain(self, net: bytes, chain: list[Any], peer: PeerId) -> list[Record]:
        if net != self.book.net:
            raise Refused(
                "E-swarm-16", f"…{short(peer)} belongs to another swarm", "", f"join {self.book.name!r} first"
            )
        try:
            return [open_record(envelope) for envelope in chain if type(envelope) is bytes]
        except PeerFault as fault:
            raise Refused("E-swarm-11", f"the membership of …{short(peer)} does not hold", fault.rule) from None

    async def _hear_news(self, talk: Talk, peer: PeerId) -> None:
        await self._learn(self._unless_no(await talk.hear(), peer))
        try:
            self.book.judge(peer, self._now_ms())
        except Refused as refused:  # its own news, or ours, say that it was removed
            await talk.say(*self._no(refused, peer))
            raise

    def _unless_no(self, said: list[Any], peer: PeerId) -> list[Any]:
        """The message, unless the other side refuses us: then `TurnedAway` with its code and words."""
        match said:
            case ["no", str(code), str(words), list(about), *_] if code.startswith("E-swarm-") and len(code) <= 16:
                self._note_no(peer, code, words)
                self._learn_of_own_removal(about)
                raise TurnedAway(code, words[:_WORDS_MAX], f"said by …{short(peer)}")
        return said

    def _note_no(self, peer: PeerId, code: str, words: str) -> None:
        said = f"{code}: {words[:_WORDS_MAX]}"
        _remember(self.turned_away_by, peer, said)
        if code in OF_THE_INVITE:
            self._own_invite(said)

    def _learn_of_own_removal(self, about: list[Any]) -> None:
        """Whoever refuses a removed peer shows it why, so that its own book tells its operator."""
        before = self.book.changes
        try:
            shown = [open_record(each, kind="removal") for each in about[:_REMOVALS_SHOWN_MAX] if type(each) is bytes]
        except PeerFault:
            return  # the refusal stands all the same
        self.book.learn(record for record in shown if record.payload.get("peer") == self._me)
        if self.book.changes != before:
            self._changed()

    def _no(self, refused: Refused, peer: PeerId) -> list[Any]:
        about = [record.envelope for record in self.book.removals() if record.payload.get("peer") == peer]
        said = refused.complaint
        return ["no", said.code, said.what[:_WORDS_MAX], about[-_REMOVALS_SHOWN_MAX:]]

    async def turn_away(self, stream: Stream) -> None:
        """To somebody who showed nothing: the swarm's name stays untold."""
        await Talk(stream).say("no", "E-swarm-10", "this node is in a private swarm: an admin of it makes invites", [])
        await _until_read(stream)

    # ---- news

    def _news(self, records: Sequence[Record]) -> list[Any]:
        told, room_bytes = [], self._limits.news_bytes_max
        for record in reversed(records):  # removals stand last and matter most
            room_bytes -= len(record.envelope) + 8
            if room_bytes < 0:
                break
            told.append(record.envelope)
        return ["news", told, self._keys()]

    async def _learn(self, said: list[Any]) -> None:
        match said:
            case ["news", list(envelopes), list(keys), *_]:
                before = self.book.changes
                self.book.learn(await self._opened_news(envelopes))
                self._take_keys([key for key in keys[: self._limits.keys_max] if type(key) is bytes])
                if self.book.changes != before:
                    self._changed()
            case _:
                raise PeerFault("member: news")

    async def _opened_news(self, envelopes: list[Any]) -> list[Record]:
        """Signatures are checked a few at a time, and not again for what is known: other peers wait meanwhile."""
        found: list[Record] = []
        for place, envelope in enumerate(envelopes):
            if type(envelope) is not bytes:
                raise PeerFault("member: news")
            if place % _RECORDS_PER_CHECKPOINT == 0:
                await trio.lowlevel.checkpoint()
            if not self.book.knows(RecordId(record_id(payload_of(envelope)))):
                found.append(open_record(envelope))
        return found

    async def serve(self, stream: Stream) -> None:
        """A stream that an admitted peer opened later."""
        with trio.fail_after(self._limits.announce_seconds_max):
            said = await Talk(stream).hear()
        try:
            await self._learn(self._unless_no(said, PeerId(stream.peer)))
        except Refused as refused:
            log.warning("%s ends the connection: %s", short(stream.peer), refused)

    async def tell(self, host: Host, peer: PeerId, records: Sequence[Record]) -> None:
        """Send news to a connected peer; one that cannot be told now hears them at its next connection."""
        try:
            self.book.judge(peer, self._now_ms())  # keys go to members alone, and the news may be about this one
        except Refused:
            return
        with trio.move_on_after(self._limits.announce_seconds_max):
            try:
                stream = await host.open_stream(peer, MEMBER)
                try:
                    await stream.write(pack_frame(self._news(records)) + END)
                except trio.Cancelled:  # it does not read: the stream would stay as long as the connection
                    await stream.reset()
                    raise
                await stream.close()
            except (DialFailed, StreamLost) as error:
                log.debug("news could not be told: %s", error)

    async def dismiss(self, host: Host, peer: PeerId, refused: Refused) -> None:
        """Tell a connected peer why it is no member any more, and disconnect it; bounded."""
        with trio.move_on_after(self._limits.farewell_seconds_max):
            try:
                stream = await host.open_stream(peer, MEMBER)
                await stream.write(pack_frame(self._no(refused, peer)) + END)
                await _until_read(stream)
            except (DialFailed, StreamLost) as error:
                log.debug("could not say why: %s", error)
        self.count(refused.complaint.code)
        await host.disconnect(peer)


def _remember(turned_away_by: dict[PeerId, str], peer: PeerId, said: str) -> None:
    """The newest refusals; of too many the oldest goes."""
    turned_away_by.pop(peer, None)
    if len(turned_away_by) >= LIMITS.peers.peers_max:
        del turned_away_by[next(iter(turned_away_by))]
    turned_away_by[peer] = said


async def _until_read(stream: Stream) -> None:
    """Finish our side and wait until the other one has: a connection that ends at once takes the words with it."""
    await stream.close()
    try:
        while True:
            await stream.read(LIMITS.wire.question_bytes_max)
    except (StreamEnded, StreamLost):
        return


class OpenDoor:
    """The membership protocol of a node in the open swarm: it needs nobody's membership, and listens to refusals."""

    def __init__(self) -> None:
        self.turned_away_by: dict[PeerId, str] = {}

    async def serve(self, stream: Stream) -> None:
        """A peer of a private swarm shows its membership, or says that this node lacks one."""
        with trio.fail_after(LIMITS.swarm.announce_seconds_max):
            match await Talk(stream).hear():
                case ["no", str(code), str(words), *_] if code.startswith("E-swarm-") and len(code) <= 16:
                    log.warning("%s does not take this node in: %s %s", short(stream.peer), code, words[:_WORDS_MAX])
                    _remember(self.turned_away_by, PeerId(stream.peer), f"{code}: {words[:_WORDS_MAX]}")
                case ["chain", *_]:
                    await Talk(stream).say("no", "E-swarm-16", "this node is in the open swarm", [])
                case _:
                    raise PeerFault("member: message")
