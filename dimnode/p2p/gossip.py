"""What is announced to everybody: heartbeats, job states, verdict ids.

Rule: one message of at most 1 KiB per topic and second; nothing here is needed for a job to finish. Every message is a
record signed by its author, and counts only when author and gossip source are the same peer.
Pure: no I/O, no clock.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from dimnode.errors import PeerFault
from dimnode.limits import LIMITS, PeerLimits
from dimnode.p2p.conduct import Judgement
from dimnode.records.envelope import Record, SigningKey, open_envelope, seal
from dimnode.records.ids import PeerId, RecordId
from dimnode.records.kinds import check_schema, compose

HEARTBEAT_TOPIC: Final = "dim.nodes.heartbeat"
JOBS_TOPIC: Final = "dim.jobs.updates"
RESULTS_TOPIC: Final = "dim.results.ready"
TOPICS: Final = (HEARTBEAT_TOPIC, JOBS_TOPIC, RESULTS_TOPIC)
JOBS_PER_MESSAGE: Final = 10  # 16 pairs fit a record, ten fit 1 KiB with its envelope
_KIND_OF: Final = {HEARTBEAT_TOPIC: "heartbeat", JOBS_TOPIC: "event", RESULTS_TOPIC: "event"}

_FIELD_OF: Final = {HEARTBEAT_TOPIC: "advert", JOBS_TOPIC: "jobs", RESULTS_TOPIC: "verdicts"}


def heartbeat(key: SigningKey, net: RecordId, at_ms: int, advert: RecordId, free_slots: int, load: int) -> bytes:
    """The envelope of a heartbeat."""
    body = {"advert": advert, "free_slots": free_slots, "load_permille": load}
    return _sealed(key, "heartbeat", net, at_ms, body)


def announcement(
    key: SigningKey,
    net: RecordId,
    at_ms: int,
    jobs: Sequence[tuple[RecordId, str]] = (),
    verdicts: Sequence[RecordId] = (),
) -> bytes:
    """The envelope of an event: states of jobs, or ids of verdicts."""
    body = {"jobs": [list(pair) for pair in jobs[:JOBS_PER_MESSAGE]], "verdicts": list(verdicts[:JOBS_PER_MESSAGE])}
    return _sealed(key, "event", net, at_ms, body)


class Stamps:
    """The times of an author's own messages, each later than the one before also when its clock was set back.

    Else whoever heard the newer ones would take all that it says for replays until its clock has caught up. Times that
    were too far ahead for anybody to listen are not held on to. After a restart nothing is known of earlier ones: who
    has no link to the node hears of it when its clock has caught up. To believe the author itself then, on its own
    stream, would help nobody: what its neighbours passed on, the next ones would hold against them.
    """

    def __init__(self, limits: PeerLimits = LIMITS.peers) -> None:
        self._limits = limits
        self._last_ms = 0

    def next_ms(self, now_ms: int) -> int:
        """The time of one more message."""
        ahead_ms = self._last_ms - now_ms
        self._last_ms = self._last_ms + 1 if 0 <= ahead_ms <= self._limits.heartbeat_age_ms_max else now_ms
        return self._last_ms


class Freshness:
    """Which messages are news, by author and topic. Bounded; whoever was silent longest is forgotten first.

    A message that is a little older than the newest one of its author lost a race and is let go without a word; one
    that is much older was kept and sent again on purpose: whoever heard the newer one passes the old one on no more.
    Clocks that are far off are nobody's offence: what they say is merely not news.
    """

    def __init__(self, limits: PeerLimits = LIMITS.peers) -> None:
        self._limits = limits
        self._newest: OrderedDict[tuple[PeerId, str], int] = OrderedDict()

    def judge(self, author: PeerId, topic: str, at_ms: int, now_ms: int) -> Judgement:
        """Take note of a message of this time: ACCEPT when it is news, IGNORE or REPLAYED when it is not."""
        if abs(at_ms - now_ms) > self._limits.heartbeat_age_ms_max:
            return Judgement.IGNORE
        newest = self._newest.get((author, topic))
        if newest is not None and at_ms <= newest:
            return Judgement.IGNORE if newest - at_ms < self._limits.gossip_late_ms_max else Judgement.REPLAYED
        self._newest[author, topic] = at_ms
        self._newest.move_to_end((author, topic))
        if len(self._newest) > self._limits.gossip_authors_max:
            self._newest.popitem(last=False)
        return Judgement.ACCEPT


def judge_gossip(
    topic: str, source: bytes, message: bytes, net: RecordId, freshness: Freshness, now_ms: int
) -> tuple[Judgement, Record | None]:
    """What to do with a message whose gossip signature is `source`'s, before it is passed on; the record if accepted.

    INVALID is what no version of dimnode would pass on. What another version or swarm may mean is not held against
    whoever forwards it.
    """
    try:
        opened = open_envelope(message)
    except PeerFault:
        return Judgement.INVALID, None
    if opened.by != source:
        return Judgement.INVALID, None
    try:
        record = read_gossip(topic, source, message, net, opened)
    except PeerFault:
        return Judgement.IGNORE, None
    judgement = freshness.judge(record.by, topic, record.payload["at_ms"], now_ms)
    return judgement, record if judgement is Judgement.ACCEPT else None


def read_gossip(topic: str, source: bytes, message: bytes, net: RecordId, opened: Record | None = None) -> Record:
    """The record of a gossip message, `opened` if its signature was checked. Raises `PeerFault` unless all fits."""
    if len(message) > LIMITS.peers.gossip_message_bytes_max:
        raise PeerFault("gossip: too long")
    record = opened or open_envelope(message)
    if record.kind != _KIND_OF[topic]:
        raise PeerFault("gossip: kind")
    check_schema(record.kind, record.payload)
    if record.by != source or record.payload["net"] != net:
        raise PeerFault("gossip: author or swarm")
    if _FIELD_OF[topic] not in record.payload:  # an event may say either; who listens to a topic expects its own
        raise PeerFault("gossip: nothing about its topic")
    return record


def _sealed(key: SigningKey, kind: str, net: RecordId, at_ms: int, body: dict[str, object]) -> bytes:
    _, payload = compose(kind, {"net": net, "by": key.peer, "at_ms": at_ms}, body)
    envelope = seal(key, kind, payload)
    assert len(envelope) <= LIMITS.peers.gossip_message_bytes_max
    return envelope
