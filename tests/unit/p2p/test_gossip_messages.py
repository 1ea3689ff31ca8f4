"""What is announced: signed by its source, small, about its topic."""

import pytest
from frame_stage import NET, OTHER_NET, OWNER, STRANGER, sign

from dimnode.errors import PeerFault
from dimnode.p2p.gossip import (
    HEARTBEAT_TOPIC,
    JOBS_PER_MESSAGE,
    JOBS_TOPIC,
    RESULTS_TOPIC,
    announcement,
    heartbeat,
    read_gossip,
)
from dimnode.records.ids import RECORD_PREFIX, RecordId
from dimnode.records.kinds import VERDICT_STATUS

JOBS = [RecordId(RECORD_PREFIX + bytes([number]) * 32) for number in range(20)]


def test_a_heartbeat_is_read_back() -> None:
    record = read_gossip(HEARTBEAT_TOPIC, OWNER.peer, heartbeat(OWNER, NET, 5, JOBS[0], 3, 250), NET)
    assert (record.by, record.payload["free_slots"], record.payload["advert"]) == (OWNER.peer, 3, JOBS[0])


def test_ten_jobs_with_the_longest_state_fit_in_a_kilobyte_and_more_are_left_for_later() -> None:
    longest = max((*VERDICT_STATUS, "submitted"), key=len)
    message = announcement(OWNER, NET, 2**50, [(job, longest) for job in JOBS])
    assert len(message) <= 1024
    said = read_gossip(JOBS_TOPIC, OWNER.peer, message, NET).payload
    assert said["jobs"] == [[job, longest] for job in JOBS[:JOBS_PER_MESSAGE]]
    verdicts = announcement(OWNER, NET, 2**50, (), JOBS)
    assert read_gossip(RESULTS_TOPIC, OWNER.peer, verdicts, NET).payload["verdicts"] == JOBS[:JOBS_PER_MESSAGE]


def test_a_message_over_a_kilobyte_is_refused_before_it_is_looked_at() -> None:
    body = {"jobs": [[job, "x" * 16] for job in JOBS[:16]], "verdicts": []}
    record = sign(OWNER, "event", body)
    assert len(record.envelope) > 1024
    with pytest.raises(PeerFault, match="too long"):
        read_gossip(JOBS_TOPIC, OWNER.peer, record.envelope, NET)


def test_the_author_must_be_the_source() -> None:
    with pytest.raises(PeerFault, match="author"):
        read_gossip(HEARTBEAT_TOPIC, STRANGER.peer, heartbeat(OWNER, NET, 5, JOBS[0], 3, 250), NET)


LIES = {
    "of another swarm": (HEARTBEAT_TOPIC, heartbeat(OWNER, OTHER_NET, 5, JOBS[0], 3, 250)),
    "of another topic": (JOBS_TOPIC, heartbeat(OWNER, NET, 5, JOBS[0], 3, 250)),
    "an event as heartbeat": (HEARTBEAT_TOPIC, announcement(OWNER, NET, 5)),
    "an event without jobs": (JOBS_TOPIC, sign(OWNER, "event", {"verdicts": []}).envelope),
    "an event without verdicts": (RESULTS_TOPIC, sign(OWNER, "event", {"jobs": []}).envelope),
    "an event about nothing": (JOBS_TOPIC, sign(OWNER, "event", {}).envelope),
    "nothing": (JOBS_TOPIC, b""),
    "garbage": (RESULTS_TOPIC, b"x" * 500),
    "badly signed": (HEARTBEAT_TOPIC, heartbeat(OWNER, NET, 5, JOBS[0], 3, 250)[:-1] + b"?"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_message_that_is_not_what_its_topic_carries_is_a_fault(lie) -> None:
    topic, message = LIES[lie]
    with pytest.raises(PeerFault):
        read_gossip(topic, OWNER.peer, message, NET)
