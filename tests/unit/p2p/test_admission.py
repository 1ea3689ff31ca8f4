"""Membership chains: who is let in, who is not, and with which words."""

import pytest
from swarm_stage import ADMIN, ALBA, BERG, CIMA, DAY, FOUNDER, STRANGER, T0, Paper, signed

from dimnode.errors import Refused
from dimnode.limits import SwarmLimits
from dimnode.p2p.admission import MemberBook, key_hash
from dimnode.records.codec import encode
from dimnode.records.envelope import Record, seal
from dimnode.records.ids import PeerId
from dimnode.records.kinds import open_record

PAPER = Paper()


def refusal(book: MemberBook, peer: PeerId, chain: list[Record], now_ms: int = T0 + 2000) -> str:
    with pytest.raises(Refused) as caught:
        book.admit(peer, chain, now_ms)
    return caught.value.complaint.code


def test_admins_are_members_without_any_chain() -> None:
    assert PAPER.book().admit(ADMIN.peer, [], T0).admin
    assert [found.peer for found in PAPER.book().members(T0)] == sorted([FOUNDER.peer, ADMIN.peer])


def test_an_invited_peer_is_admitted_and_then_known() -> None:
    invite, key = PAPER.invite()
    book = PAPER.book()
    chain = [invite, PAPER.member(key, ALBA.peer, invite)]
    found = book.admit(ALBA.peer, chain, T0 + 2000)
    assert (found.admin, found.expires_ms, found.invite) == (False, 0, invite.id)
    assert book.admit(ALBA.peer, [], T0 + 30 * DAY) == found, "the invite may be over long since"
    assert book.users_of(invite.id) == [ALBA.peer]


def test_whoever_shows_nothing_is_no_member() -> None:
    assert refusal(PAPER.book(), STRANGER.peer, []) == "E-swarm-10"


def test_a_chain_of_somebody_else_admits_nobody() -> None:
    invite, key = PAPER.invite()
    assert refusal(PAPER.book(), STRANGER.peer, [invite, PAPER.member(key, ALBA.peer, invite)]) == "E-swarm-10"


def test_an_invite_of_no_admin_is_refused() -> None:
    invite, key = PAPER.invite(STRANGER)
    assert refusal(PAPER.book(), ALBA.peer, [invite, PAPER.member(key, ALBA.peer, invite)]) == "E-swarm-06"


def test_a_member_that_the_invites_key_did_not_sign_is_refused() -> None:
    invite, _ = PAPER.invite()
    assert refusal(PAPER.book(), ALBA.peer, [invite, PAPER.member(ALBA, ALBA.peer, invite)]) == "E-swarm-11"
    assert refusal(PAPER.book(), ALBA.peer, [PAPER.member(ALBA, ALBA.peer, invite)]) == "E-swarm-11"


def test_a_member_dated_outside_of_its_invite_is_refused() -> None:
    invite, key = PAPER.invite()
    for at in (T0 - 1, T0 + 7 * DAY):
        assert refusal(PAPER.book(), ALBA.peer, [invite, PAPER.member(key, ALBA.peer, invite, at)]) == "E-swarm-11"


def test_a_chain_of_another_swarm_is_refused() -> None:
    other = Paper("other")
    invite, key = other.invite()
    assert refusal(PAPER.book(), ALBA.peer, [invite, other.member(key, ALBA.peer, invite)]) == "E-swarm-16"


def test_an_expired_invite_lets_no_newcomer_in_whatever_its_member_says() -> None:
    invite, key = PAPER.invite(days=1)
    backdated = PAPER.member(key, ALBA.peer, invite)
    assert refusal(PAPER.book(), ALBA.peer, [invite, backdated], T0 + DAY) == "E-swarm-04"
    vouched = PAPER.book(invite, backdated)
    assert vouched.admit(ALBA.peer, [invite, backdated], T0 + DAY), "another member saw it in time"


def test_a_withdrawn_invite_lets_no_newcomer_in_and_keeps_those_who_are() -> None:
    invite, key = PAPER.invite(uses=5)
    book = PAPER.book(invite, PAPER.member(key, ALBA.peer, invite))
    book.learn([PAPER.removal(ADMIN, invite=invite.id, at=T0 + 5000)])
    assert refusal(book, BERG.peer, [invite, PAPER.member(key, BERG.peer, invite)], T0 + 6000) == "E-swarm-15"
    assert book.judge(ALBA.peer, T0 + 6000)


def test_memberships_expire_by_their_own_word_and_by_that_of_their_invite() -> None:
    invite, key = PAPER.invite(member_expires_ms=T0 + 3 * DAY)
    book = PAPER.book(invite, PAPER.member(key, ALBA.peer, invite, expires_ms=T0 + 2 * DAY))
    book.learn([PAPER.member(FOUNDER, BERG.peer, expires_ms=T0 + 4 * DAY)])
    assert book.next_expiry_ms(T0 + 2000) == T0 + 2 * DAY
    assert book.judge(ALBA.peer, T0 + 2 * DAY - 1).expires_ms == T0 + 2 * DAY
    for peer, end in ((ALBA.peer, 2), (BERG.peer, 4)):
        with pytest.raises(Refused, match="E-swarm-13"):
            book.judge(peer, T0 + end * DAY)


def test_an_invite_is_used_up_and_the_earliest_users_count() -> None:
    invite, key = PAPER.invite(uses=1)
    late, early = PAPER.member(key, ALBA.peer, invite, T0 + 20), PAPER.member(key, BERG.peer, invite, T0 + 10)
    book = PAPER.book()
    assert book.admit(ALBA.peer, [invite, late], T0 + 50)
    assert refusal(book, CIMA.peer, [invite, PAPER.member(key, CIMA.peer, invite, T0 + 30)]) == "E-swarm-14"
    assert book.admit(BERG.peer, [invite, early], T0 + 60), "of two the earlier one counts, whoever was met first"
    assert refusal(book, ALBA.peer, [invite, late]) == "E-swarm-14"


def test_one_peer_uses_an_invite_once_however_often_it_joins() -> None:
    invite, key = PAPER.invite(uses=2)
    again = [PAPER.member(key, ALBA.peer, invite, T0 + at) for at in (10, 20, 30)]
    book = PAPER.book(invite, *again, PAPER.member(key, BERG.peer, invite, T0 + 40))
    assert book.users_of(invite.id) == [ALBA.peer, BERG.peer]


def test_a_removed_member_is_out_until_it_is_invited_again() -> None:
    invite, key = PAPER.invite(uses=9)
    book = PAPER.book(invite, PAPER.member(key, ALBA.peer, invite), PAPER.removal(ADMIN, peer=ALBA.peer))
    now = T0 + 2 * DAY
    assert refusal(book, ALBA.peer, [], now) == "E-swarm-12"
    renewed = PAPER.member(key, ALBA.peer, invite, T0 + DAY + 1)
    assert refusal(book, ALBA.peer, [invite, renewed], now) == "E-swarm-12", "by the same invite it stays out"
    later, later_key = PAPER.invite(number=1, at=T0 + DAY + 1)
    member = PAPER.member(later_key, ALBA.peer, later, T0 + DAY + 2)
    assert book.admit(ALBA.peer, [later, member], now).invite == later.id


def test_a_stranger_cannot_remove_anybody() -> None:
    book = PAPER.book(PAPER.removal(STRANGER, peer=ADMIN.peer))
    assert book.is_admin(ADMIN.peer)


def test_an_admin_who_was_removed_removes_and_invites_nobody_any_more() -> None:
    invite, key = PAPER.invite(ADMIN, uses=9)
    book = PAPER.book(invite, PAPER.member(key, ALBA.peer, invite), PAPER.removal(FOUNDER, peer=ADMIN.peer))
    assert not book.learn([PAPER.removal(ADMIN, peer=ALBA.peer, epoch=1, at=T0)]), "also with an earlier date"
    assert book.judge(ALBA.peer, T0 + 2 * DAY)
    assert refusal(book, ADMIN.peer, [], T0 + 2 * DAY) == "E-swarm-12"
    newcomer = [invite, PAPER.member(key, BERG.peer, invite)]
    assert refusal(book, BERG.peer, newcomer, T0 + 2 * DAY) == "E-swarm-15", "its invites are closed with it"
    by_hand = PAPER.member(ADMIN, CIMA.peer)
    assert refusal(book, CIMA.peer, [by_hand], T0 + 2 * DAY) == "E-swarm-06"


def test_of_removals_that_come_together_the_earlier_epoch_is_heard_first() -> None:
    first = PAPER.removal(ADMIN, peer=ALBA.peer, epoch=1)
    second = PAPER.removal(FOUNDER, peer=ADMIN.peer, epoch=2, at=T0)
    invite, key = PAPER.invite()
    book = PAPER.book(second, first, invite, PAPER.member(key, ALBA.peer, invite))
    assert [record.id for record in book.removals()] == [first.id, second.id]


def test_the_founder_is_removed_by_nobody_else() -> None:
    book = PAPER.book(PAPER.removal(ADMIN, peer=FOUNDER.peer))
    assert book.is_admin(FOUNDER.peer)
    with pytest.raises(Refused, match="E-swarm-24"):
        book.check_removal(PAPER.removal(ADMIN, peer=FOUNDER.peer))
    assert PAPER.book(PAPER.removal(FOUNDER, peer=FOUNDER.peer)).judge(ADMIN.peer, T0)


def test_a_removal_names_one_thing() -> None:
    invite, _ = PAPER.invite()
    for what in ({}, {"peer": ALBA.peer, "invite": invite.id}):
        with pytest.raises(Refused, match="E-swarm-11"):
            PAPER.book().check_removal(PAPER.removal(FOUNDER, **what))


def test_a_swarm_whose_admins_decide_together_is_not_for_this_version() -> None:
    with pytest.raises(Refused, match="E-swarm-25"):
        MemberBook(Paper(threshold=2).swarm)


def test_the_book_has_room_for_so_many() -> None:
    invite, key = PAPER.invite(uses=9)
    book = MemberBook(PAPER.swarm, SwarmLimits(members_max=2, removals_max=1, invites_max=1))
    for peer in (ALBA.peer, BERG.peer):
        book.admit(peer, [invite, PAPER.member(key, peer, invite)], T0 + 2000)
    assert refusal(book, CIMA.peer, [invite, PAPER.member(key, CIMA.peer, invite)]) == "E-swarm-29"
    other, other_key = PAPER.invite(number=1)
    assert refusal(book, CIMA.peer, [other, PAPER.member(other_key, CIMA.peer, other)]) == "E-swarm-29"
    book.learn([PAPER.removal(FOUNDER, peer=ALBA.peer)])
    with pytest.raises(Refused, match="E-swarm-29"):
        book.check_removal(PAPER.removal(FOUNDER, peer=BERG.peer, epoch=2))


def test_the_key_in_force_is_that_of_the_last_epoch_and_of_two_that_of_the_smaller_id() -> None:
    keys = [bytes([number]) * 32 for number in range(3)]
    peers = (ALBA.peer, BERG.peer, CIMA.peer)
    removals = [
        PAPER.removal(FOUNDER, peer=peer, epoch=epoch, key_hash=key_hash(key))
        for peer, epoch, key in zip(peers, (1, 2, 2), keys, strict=True)
    ]
    book = PAPER.book(*removals)
    winner = min(removals[1:], key=lambda record: record.id)
    assert book.key_hashes()[0] == key_hash(keys[0])
    assert book.key_hashes()[-1] == winner.payload["key_hash"]


def test_records_of_other_kinds_and_swarms_are_passed_over() -> None:
    invite, _ = Paper("other").invite()
    event = signed(FOUNDER, "event", {"net": PAPER.swarm.id, "at_ms": T0}, {})
    assert not PAPER.book().learn([invite, event, PAPER.swarm])


@pytest.mark.parametrize(("kind", "version"), [("vote", 1), ("member", 2)])
def test_records_of_a_later_version_may_hold_anything_and_are_passed_over(kind: str, version: int) -> None:
    known = PAPER.member(FOUNDER, ALBA.peer)
    for said in ({}, {"net": PAPER.swarm.id, "at_ms": "soon", "epoch": [], "parents": []}):
        payload = encode({"v": version, "kind": kind, "by": FOUNDER.peer, **said})
        later = open_record(seal(FOUNDER, kind, payload, version))
        assert PAPER.book().learn([later, known]) == [known]
