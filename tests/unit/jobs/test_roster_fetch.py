"""Who is given a task with a model that few have: holders with room first, then one that would fetch it."""

import random

from dimnode.consensus.selection import Need
from dimnode.consensus.standing import Standing
from dimnode.jobs.events import AdvertHeard, Now
from dimnode.jobs.roster import Roster
from dimnode.limits import LIMITS
from dimnode.records.ids import PeerId, RecordId, peer_of_key, record_id

ME, HOLDER, FETCHER, OTHER, LAST = (PeerId(peer_of_key(bytes([number]) * 32)) for number in range(5))
MODEL = RecordId(record_id(b"model"))
NEED = Need(MODEL, "infer")
NOW = Now(1.0, 1_000)
KEY = (RecordId(record_id(b"job")), 0, 1)


def roster(*, size: int = 1000, formats: tuple[str, ...] = ("onnx",), most: int = 10_000) -> Roster:
    made = Roster(ME, LIMITS, Standing(), random.Random(1))
    made.hear(AdvertHeard(HOLDER, {MODEL: "onnx"}, frozenset(), 2, {MODEL: size}, frozenset(formats), 0))
    for peer in (ME, FETCHER, OTHER):
        made.hear(AdvertHeard(peer, {}, frozenset(), 2, {}, frozenset(formats), most))
    made.hear(AdvertHeard(LAST, {}, frozenset(), 2))
    for peer in (HOLDER, FETCHER, OTHER, LAST):
        made.link(peer, True)
    return made


def test_a_holder_with_room_gets_the_task() -> None:
    made = roster()
    assert {made.pick(NEED, NOW) for _ in range(20)} == {HOLDER}
    assert made.usable(NEED, NOW) == 4


def test_while_holders_are_busy_one_other_fetches_at_a_time_and_never_this_node() -> None:
    made = roster()
    made.seat(HOLDER).busy_until = 99.0
    chosen = made.pick(NEED, NOW)
    assert chosen in (FETCHER, OTHER)
    made.fetch_begins(KEY, chosen, MODEL)
    assert made.pick(NEED, NOW) is None
    made.fetch_over(KEY)
    assert made.pick(NEED, NOW) in (FETCHER, OTHER)


def test_without_a_holder_that_could_take_it_anybody_willing_fetches() -> None:
    made = roster()
    made.link(HOLDER, False)
    assert {made.pick(NEED, NOW) for _ in range(40)} == {ME, FETCHER, OTHER}
    assert made.offered(NEED, NOW)[1] == 4


def test_who_has_not_the_runtime_or_not_the_room_is_not_asked() -> None:
    for made in (roster(size=10_001), roster(formats=()), roster(most=0), roster(size=0)):
        made.link(HOLDER, False)
        assert made.pick(NEED, NOW) is None
        assert made.usable(NEED, NOW) == 0


def test_a_fetcher_that_failed_is_not_asked_again_and_a_pinned_one_alone() -> None:
    made = roster()
    made.link(HOLDER, False)
    assert made.pick(Need(MODEL, "infer", exclude=frozenset({ME, FETCHER})), NOW) == OTHER
    assert made.pick(Need(MODEL, "infer", pinned=FETCHER), NOW) == FETCHER
    assert made.pick(Need(MODEL, "infer", pinned=LAST), NOW) is None


def test_a_model_of_which_nobody_ever_told_is_fetched_by_nobody() -> None:
    made = roster()
    assert made.pick(Need(RecordId(record_id(b"unheard of")), "infer"), NOW) is None
