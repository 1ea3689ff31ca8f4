"""What a peer of the next or the last version may say: docs/protocol.md, Versions."""

import pytest
from frame_stage import NET, OWNER

from dimnode.errors import PeerFault
from dimnode.limits import LIMITS
from dimnode.p2p.conduct import Judgement
from dimnode.p2p.frames import UnknownWord, read_task_frame
from dimnode.p2p.gossip import HEARTBEAT_TOPIC, Freshness, heartbeat, judge_gossip
from dimnode.p2p.introduction import _checked
from dimnode.records.envelope import SigningKey, seal
from dimnode.records.ids import RecordId
from dimnode.records.kinds import compose, open_record
from dimnode.wire import pack_frame, unpack_body

AT_MS = 1_790_000_000_000
WORD = ["accepted", bytes(NET), 0, 1, [], [], [], "", "", 0]


def read(row: object):
    return read_task_frame(pack_frame(row)[4:])


def advert(key: SigningKey, **more: object) -> bytes:
    body = {"models": [], "cabinets": [], "slots": 0, "runtimes": [], "sandbox": "", "agent": "old", "addresses": []}
    _, payload = compose("advert", {"net": NET, "by": key.peer, "at_ms": AT_MS}, body | more)
    return seal(key, "advert", payload)


@pytest.mark.parametrize("row", [["hurry"], ["hurry", 1, {"x": 1.5}], ["hurry", *WORD[1:]], ["hurry", *WORD[1:], 1, 2]])
def test_a_word_of_a_later_version_is_none_of_our_business_and_no_fault(row: list[object]) -> None:
    with pytest.raises(UnknownWord, match="hurry"):
        read(row)


def test_what_is_no_word_in_any_version_stays_a_fault() -> None:
    for row in ([], [1], ["", *WORD[1:]], ["x" * 17, *WORD[1:]], {"what": "hurry"}, "hurry"):
        with pytest.raises(PeerFault):
            read(row)


def test_fields_that_a_later_version_appends_are_not_read() -> None:
    assert read([*WORD, "soon", {"x_hint": 2}]) == read(WORD)


def test_the_first_ten_fields_are_never_left_out() -> None:
    with pytest.raises(PeerFault):
        read(WORD[:9])


def test_a_key_that_begins_with_x_means_nothing_and_is_kept() -> None:
    said = open_record(advert(OWNER, x_gpu={"memory_bytes": 1})).payload
    assert said["x_gpu"] == {"memory_bytes": 1}


def test_an_advert_without_what_was_added_later_is_complete() -> None:
    said = open_record(advert(OWNER)).payload
    assert not {"name", "jobs_per_second"} & said.keys()


def test_a_record_of_a_kind_that_comes_later_rides_with_an_introduction() -> None:
    _, payload = compose("novelty", {"net": NET, "by": OWNER.peer, "at_ms": AT_MS}, {"anything": 1})
    novelty = open_record(seal(OWNER, "novelty", payload))
    assert _checked([open_record(advert(OWNER)), novelty], OWNER.peer, NET).manifests == ()


def test_gossip_that_a_later_version_understands_is_ignored_and_held_against_nobody() -> None:
    _, payload = compose("novelty", {"net": NET, "by": OWNER.peer, "at_ms": AT_MS}, {"anything": 1})
    message = seal(OWNER, "novelty", payload)
    assert judge_gossip(HEARTBEAT_TOPIC, OWNER.peer, message, NET, Freshness(), AT_MS) == (Judgement.IGNORE, None)


def test_a_heartbeat_with_a_hint_of_a_later_version_counts() -> None:
    plain = open_record(heartbeat(OWNER, NET, AT_MS, RecordId(NET), 1, 2)).payload
    body = {key: plain[key] for key in ("advert", "free_slots", "load_permille")}
    _, payload = compose("heartbeat", {"net": NET, "by": OWNER.peer, "at_ms": AT_MS}, body | {"x_soon": 1})
    judgement, record = judge_gossip(
        HEARTBEAT_TOPIC, OWNER.peer, seal(OWNER, "heartbeat", payload), NET, Freshness(), AT_MS
    )
    assert judgement is Judgement.ACCEPT
    assert record is not None
    assert record.payload["x_soon"] == 1


def test_a_frame_of_a_later_version_is_bounded_like_any_other() -> None:
    with pytest.raises(PeerFault):
        read(["hurry", [[]] * (LIMITS.wire.peer_frame_containers_max + 1)])
    assert unpack_body(pack_frame(["hurry"])[4:]) == ["hurry"]


def test_a_later_version_of_a_known_kind_rides_with_an_introduction_and_is_passed_over() -> None:
    _, payload = compose("manifest", {"net": NET, "by": OWNER.peer, "at_ms": AT_MS}, {"anything": 1}, version=9)
    later = open_record(seal(OWNER, "manifest", payload, 9))
    assert later.kind == "manifest/9"
    assert _checked([open_record(advert(OWNER)), later], OWNER.peer, NET).manifests == ()
