"""Whatever is learned, in whatever order, from whomever: the book comes to the same members; forgery admits nobody."""

import random
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dimnode.errors import PeerFault, Refused
from dimnode.p2p.admission import MemberBook
from dimnode.records.envelope import Record, SigningKey
from dimnode.records.kinds import open_record

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit" / "p2p"))
from swarm_stage import ADMIN, DAY, FOUNDER, T0, Paper

PAPER = Paper()
PEOPLE = [SigningKey.from_seed(bytes([200 + number]) * 32) for number in range(6)]
INVITES = [PAPER.invite((FOUNDER, ADMIN)[number % 2], number=number, uses=1 + number) for number in range(3)]


def world() -> list[Record]:
    """Every invite, everybody joined by every one of them at two times, and some removals."""
    found: list[Record] = [invite for invite, _ in INVITES]
    for number, person in enumerate(PEOPLE):
        for place, (invite, key) in enumerate(INVITES):
            for at in ((number * 7 + place * 5) % 11, (number * 3 + place) % 13 + 20):
                found.append(PAPER.member(key, person.peer, invite, T0 + at))
    found += [PAPER.removal((FOUNDER, ADMIN)[n % 2], peer=PEOPLE[n].peer, epoch=n + 1, at=T0 + 15) for n in range(2)]
    return [*found, PAPER.removal(ADMIN, invite=INVITES[2][0].id, epoch=3, at=T0 + 17)]


WORLD = world()


def view(book: MemberBook) -> list[object]:
    return [book.members(T0 + DAY), book.digest(), [book.users_of(invite.id) for invite, _ in INVITES]]


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(len(WORLD))), st.integers(0, len(WORLD)))
def test_the_order_in_which_records_are_learned_does_not_matter(order: list[int], cut: int) -> None:
    chosen = [WORLD[place] for place in order]
    invites = [invite for invite, _ in INVITES]  # a member is understood once its invite is
    piecemeal = PAPER.book(*invites)
    for record in chosen:
        piecemeal.learn([record])
    halves = PAPER.book(*invites, *chosen[:cut])
    halves.learn(chosen[cut:])
    assert view(piecemeal) == view(halves) == view(PAPER.book(*WORLD))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, len(WORLD) - 1), max_size=40), st.lists(st.integers(0, len(WORLD) - 1), max_size=40))
def test_two_members_that_tell_each_other_everything_agree(mine: list[int], yours: list[int]) -> None:
    a, b = (PAPER.book(*(WORLD[place] for place in places)) for places in (mine, yours))
    a.learn(b.records())
    b.learn(a.records())
    assert view(a) == view(b)
    for (invite, _), users in zip(INVITES, view(a)[2], strict=True):  # type: ignore[call-overload]
        assert len(users) <= invite.payload["uses"]


def test_no_changed_byte_of_a_chain_admits_anybody_else() -> None:
    seed = random.SystemRandom().getrandbits(32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    invite, key = INVITES[0]
    member = PAPER.member(key, PEOPLE[0].peer, invite)
    for _ in range(120):
        envelopes = [bytearray(invite.envelope), bytearray(member.envelope)]
        target = chance.choice(envelopes)
        target[chance.randrange(len(target))] ^= 1 << chance.randrange(8)
        with pytest.raises((PeerFault, Refused)):
            PAPER.book().admit(PEOPLE[0].peer, [open_record(bytes(made)) for made in envelopes], T0 + 2000)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(PEOPLE), st.sampled_from(PEOPLE), st.integers(0, 2), st.integers(-5, 5), st.booleans())
def test_only_the_invites_own_key_makes_members(
    signer: SigningKey, peer: SigningKey, number: int, at: int, with_invite: bool
) -> None:
    invite, _ = INVITES[number]
    member = PAPER.member(signer, peer.peer, invite if with_invite else None, T0 + at)
    with pytest.raises(Refused):
        PAPER.book().admit(peer.peer, [invite, member], T0 + 2000)
    assert not PAPER.book(invite).learn([member])
