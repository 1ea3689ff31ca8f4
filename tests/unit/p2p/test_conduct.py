"""The ledger of conduct: weights, forgetting, verdicts and bans, on a clock of the test's own."""

from dataclasses import fields

import pytest

from dimnode.limits import LIMITS
from dimnode.p2p.conduct import BANNED_CODE, CODES, Conduct, Offence, Verdict
from dimnode.p2p.gossip import TOPICS

CONDUCT = LIMITS.conduct
PEER, OTHER = b"peer", b"other"


def offences_until(verdict: Verdict, offence: Offence, ledger: Conduct, at: float = 0.0) -> int:
    for count in range(1, 2000):
        if ledger.offend(PEER, offence, at) >= verdict:
            return count
    raise AssertionError(f"{offence} never leads to {verdict}")


def test_every_offence_has_a_weight_and_a_code_of_its_own() -> None:
    assert set(CODES) == set(Offence)
    codes = [*CODES.values(), BANNED_CODE]
    assert len(set(codes)) == len(codes)
    known = {field.name for field in fields(CONDUCT)}
    assert {offence.value for offence in Offence} <= known


@pytest.mark.parametrize("offence", list(Offence))
def test_one_offence_of_any_kind_bans_nobody(offence: Offence) -> None:
    assert Conduct().offend(PEER, offence, 0.0) < Verdict.BANNED


@pytest.mark.parametrize("offence", list(Offence))
def test_enough_of_any_offence_ends_in_a_ban_by_way_of_the_milder_verdicts(offence: Offence) -> None:
    ledger = Conduct()
    seen = [ledger.offend(PEER, offence, 0.0) for _ in range(offences_until(Verdict.BANNED, offence, Conduct()))]
    assert seen == sorted(seen)
    assert seen[-1] is Verdict.BANNED
    assert ledger.refused_seconds(PEER, 0.0) == CONDUCT.ban_seconds


@pytest.mark.parametrize(
    ("offence", "every_seconds"),
    [(Offence.MALFORMED, 15.0), (Offence.SLOW, 3.0), (Offence.HANDLER, 1.0)],
)
def test_honest_mistakes_now_and_then_never_ban(offence: Offence, every_seconds: float) -> None:
    ledger = Conduct()
    verdicts = {ledger.offend(PEER, offence, number * every_seconds) for number in range(2000)}
    assert Verdict.BANNED not in verdicts


def test_who_passes_on_what_a_peer_whose_clock_was_set_back_says_is_listened_to_all_the_same() -> None:
    """Whoever came later has heard nothing newer of it. Its heartbeats, states and verdicts are one a second each."""
    ledger = Conduct()
    seconds = LIMITS.peers.heartbeat_age_ms_max // 1000
    verdicts = {ledger.offend(PEER, Offence.REPLAYED, now) for now in range(seconds) for _ in TOPICS}
    assert verdicts == {Verdict.FINE}


def test_points_halve_every_minute() -> None:
    ledger = Conduct()
    offences_until(Verdict.MUTED, Offence.MALFORMED, ledger)
    assert ledger.verdict(PEER, 0.0) is Verdict.MUTED
    assert ledger.verdict(PEER, CONDUCT.half_life_seconds) is Verdict.FINE


def test_a_ban_ends_and_a_relapse_doubles_it_up_to_a_bound() -> None:
    ledger, now, lengths = Conduct(), 0.0, []
    for _ in range(10):
        offences_until(Verdict.BANNED, Offence.MUXER, ledger, now)
        lengths.append(ledger.refused_seconds(PEER, now))
        now += lengths[-1]
        assert ledger.verdict(PEER, now) is Verdict.FINE
        assert ledger.refused_seconds(PEER, now) == 0.0
    doubled = [min(CONDUCT.ban_seconds * 2**number, CONDUCT.ban_seconds_max) for number in range(10)]
    assert lengths == pytest.approx(doubled)


def test_who_behaved_for_long_enough_is_not_a_relapser() -> None:
    ledger = Conduct()
    for now in (0.0, 10 * CONDUCT.ban_seconds_max):
        offences_until(Verdict.BANNED, Offence.MUXER, ledger, now)
        assert ledger.refused_seconds(PEER, now) == pytest.approx(CONDUCT.ban_seconds)


def test_peers_answer_for_themselves_alone() -> None:
    ledger = Conduct()
    offences_until(Verdict.BANNED, Offence.FORGED, ledger)
    assert ledger.verdict(OTHER, 0.0) is Verdict.FINE
    assert [ban.peer for ban in ledger.banned(0.0)] == [PEER]


def test_offences_are_counted_by_kind() -> None:
    ledger = Conduct()
    for offence in (Offence.MALFORMED, Offence.MALFORMED, Offence.WINDOW):
        ledger.offend(PEER, offence, 0.0)
    assert ledger.counts == {Offence.MALFORMED: 2, Offence.WINDOW: 1}


def test_the_ledger_is_bounded_and_forgets_who_offended_least_recently() -> None:
    ledger = Conduct()
    for number in range(CONDUCT.peers_max + 1):
        ledger.offend(number.to_bytes(4), Offence.WINDOW, 0.0)
    assert ledger.verdict((0).to_bytes(4), 0.0) is Verdict.FINE
    assert ledger.verdict((1).to_bytes(4), 0.0) is Verdict.DISCONNECT
