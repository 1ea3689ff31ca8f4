"""What is announced: signed by its source, small, about its topic."""

from dataclasses import replace

import pytest
from frame_stage import NET, OTHER_NET, OWNER, STRANGER, sign

from dimnode.errors import PeerFault
from dimnode.limits import LIMITS
from dimnode.p2p.conduct import Judgement
from dimnode.p2p.gossip import (
    HEARTBEAT_TOPIC,
    JOBS_PER_MESSAGE,
    JOBS_TOPIC,
    RESULTS_TOPIC,
    Freshness,
    announcement,
    heartbeat,
    judge_gossip,
    read_gossip,
)
from dimnode.records.envelope import SigningKey
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


# ---- what is news, and who is held to account for what is not

NOW_MS = 1_700_000_000_000


def judged(message: bytes, freshness: Freshness, source: bytes = OWNER.peer, now_ms: int = NOW_MS) -> Judgement:
    return judge_gossip(HEARTBEAT_TOPIC, source, message, NET, freshness, now_ms)[0]


def beat_at(at_ms: int, key: SigningKey = OWNER, net: RecordId = NET) -> bytes:
    return heartbeat(key, net, at_ms, JOBS[0], 1, 0)


def test_a_newer_heartbeat_is_news_and_an_older_one_is_not() -> None:
    freshness = Freshness()
    assert judged(beat_at(NOW_MS - 40_000), freshness) is Judgement.ACCEPT
    assert judged(beat_at(NOW_MS), freshness) is Judgement.ACCEPT
    assert judged(beat_at(NOW_MS), freshness) is Judgement.IGNORE
    assert judged(beat_at(NOW_MS - 1000), freshness) is Judgement.IGNORE, "a lost race is nobody's fault"
    assert judged(beat_at(NOW_MS - 40_000), freshness) is Judgement.REPLAYED


def test_a_clock_that_is_far_off_is_no_offence_and_no_news() -> None:
    far_ms = LIMITS.peers.heartbeat_age_ms_max + 1
    for at_ms in (NOW_MS - far_ms, NOW_MS + far_ms):
        freshness = Freshness()
        assert judged(beat_at(at_ms), freshness) is Judgement.IGNORE
        assert judged(beat_at(NOW_MS), freshness) is Judgement.ACCEPT, "and it does not shut its author up"


def test_authors_and_topics_are_judged_apart_and_forgotten_in_their_order() -> None:
    freshness = Freshness(replace(LIMITS.peers, gossip_authors_max=2))
    first, second, third = (SigningKey.from_seed(bytes([number]) * 32).peer for number in range(3))
    for author in (first, second):
        assert freshness.judge(author, "t", NOW_MS, NOW_MS) is Judgement.ACCEPT
    assert freshness.judge(first, "t", NOW_MS, NOW_MS) is Judgement.IGNORE
    assert freshness.judge(third, "t", NOW_MS, NOW_MS) is Judgement.ACCEPT
    assert freshness.judge(first, "t", NOW_MS, NOW_MS) is Judgement.ACCEPT, "silent longest, forgotten first"
    assert freshness.judge(third, "u", NOW_MS, NOW_MS) is Judgement.ACCEPT


def test_what_no_honest_peer_passes_on_is_invalid() -> None:
    whole = beat_at(NOW_MS)
    assert judged(whole[:-1] + bytes([whole[-1] ^ 1]), Freshness()) is Judgement.INVALID
    assert judged(b"nonsense", Freshness()) is Judgement.INVALID
    assert judged(whole, Freshness(), source=STRANGER.peer) is Judgement.INVALID


def test_another_swarm_or_kind_is_ignored_without_a_complaint() -> None:
    assert judged(beat_at(NOW_MS, net=OTHER_NET), Freshness()) is Judgement.IGNORE
    assert judged(announcement(OWNER, NET, NOW_MS), Freshness()) is Judgement.IGNORE
