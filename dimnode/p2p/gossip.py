"""What is announced to everybody: heartbeats, job states, verdict ids.

Rule: one message of at most 1 KiB per topic and second; nothing here is needed for a job to finish. Every message is a
record signed by its author, and counts only when author and gossip source are the same peer.
Pure: no I/O, no clock.
"""

from collections.abc import Sequence
from typing import Final

from dimnode.errors import PeerFault
from dimnode.limits import LIMITS
from dimnode.records.envelope import Record, SigningKey, seal
from dimnode.records.ids import RecordId
from dimnode.records.kinds import compose, open_record

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


def read_gossip(topic: str, source: bytes, message: bytes, net: RecordId) -> Record:
    """The record of a gossip message. Raises `PeerFault` unless author, source and kind fit."""
    if len(message) > LIMITS.peers.gossip_message_bytes_max:
        raise PeerFault("gossip: too long")
    record = open_record(message, kind=_KIND_OF[topic])
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
