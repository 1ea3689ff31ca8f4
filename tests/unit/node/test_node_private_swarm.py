"""A home's private swarm without any network: founding, inviting, joining, removing, and every no with its code."""

from dataclasses import replace
from pathlib import Path

import pytest

from dimnode.errors import Refused
from dimnode.limits import LIMITS
from dimnode.node.gatekeeper import Gatekeeper
from dimnode.node.private_swarm import InviteWish, PrivateSwarm
from dimnode.p2p.admission import key_hash
from dimnode.p2p.invitation import read_invitation
from dimnode.records.envelope import SigningKey
from dimnode.records.ids import PeerId, cid_text, peer_text
from dimnode.records.kinds import open_record

T0 = 1_790_000_000_000
DAY = 86_400_000
KEYS = {name: SigningKey.from_seed(name.encode() * 8) for name in ("anna", "beat", "carl", "dora")}
ADDRESSES = (f"/ip4/192.0.2.7/tcp/4710/p2p/{peer_text(KEYS['anna'].peer)}",)
WISH = InviteWish(7 * DAY, uses=3, addresses=ADDRESSES)


def founded(folder: Path, name: str = "anna", *, admins: tuple[PeerId, ...] = (), psk: bool = False) -> PrivateSwarm:
    swarm = PrivateSwarm.found(folder / name, KEYS[name], "clinic", T0, admins, psk)
    swarm.save()
    return swarm


def joined(folder: Path, name: str, text: str, now_ms: int = T0 + 1000) -> PrivateSwarm:
    swarm = PrivateSwarm.join(folder / name, KEYS[name], text, now_ms)
    swarm.save()
    return swarm


def test_founder_and_guest_find_their_swarm_again_after_a_restart(tmp_path: Path) -> None:
    anna = founded(tmp_path)
    _, text = anna.invite(WISH, T0)
    anna.save()
    joined(tmp_path, "beat", text)
    again = PrivateSwarm.load(tmp_path / "anna", KEYS["anna"])
    guest = PrivateSwarm.load(tmp_path / "beat", KEYS["beat"])
    assert again is not None
    assert guest is not None
    assert again.describe(T0)["standing"] == "admin"
    assert again.describe(T0)["invites"][0]["state"] == "open"
    assert guest.describe(T0)["standing"] == "member"
    assert guest.state.addresses == list(ADDRESSES)
    assert [row["role"] for row in guest.member_rows(T0 + 2000)] == ["founder", "member"]
    assert PrivateSwarm.load(tmp_path / "carl", KEYS["carl"]) is None


@pytest.mark.parametrize("name", ["", "x" * 65, "new\nline", "open"])
def test_a_swarm_needs_a_name_of_its_own(tmp_path: Path, name: str) -> None:
    with pytest.raises(Refused, match="E-swarm-27"):
        PrivateSwarm.found(tmp_path, KEYS["anna"], name, T0)


def test_joining_again_is_told_and_another_swarm_too(tmp_path: Path) -> None:
    _, text = founded(tmp_path).invite(WISH, T0)
    joined(tmp_path, "beat", text)
    with pytest.raises(Refused, match="E-swarm-07"):
        joined(tmp_path, "beat", text)
    _, other = founded(tmp_path, "dora").invite(WISH, T0)
    with pytest.raises(Refused, match="E-swarm-08"):
        joined(tmp_path, "beat", other)
    with pytest.raises(Refused, match="E-swarm-07"):
        joined(tmp_path, "anna", text)


def test_a_refused_invite_is_replaced_by_another_and_says_so_until_then(tmp_path: Path) -> None:
    anna = founded(tmp_path)
    texts = [anna.invite(replace(WISH, uses=1), T0 + number)[1] for number in range(2)]
    joined(tmp_path, "carl", texts[0])
    beat = joined(tmp_path, "beat", texts[0])
    keeper = Gatekeeper(beat)
    keeper.door._note_no(KEYS["anna"].peer, "E-swarm-14", "the invite is used up")
    beat.save()
    with pytest.raises(Refused, match="E-swarm-14"):
        joined(tmp_path, "beat", texts[0])
    again = PrivateSwarm.load(tmp_path / "beat", KEYS["beat"])
    assert again is not None
    assert "E-swarm-14" in again.describe(T0 + 2000)["standing"]
    later = joined(tmp_path, "beat", texts[1])
    assert later.describe(T0 + 2000)["standing"] == "member"
    assert [len(later.state.chain), len(later.book.invites()), later.state.refused] == [2, 1, ""]
    anna.book.admit(KEYS["beat"].peer, [open_record(each) for each in later.state.chain], T0 + 3000)


def test_whoever_was_taken_in_stays_a_member_whatever_one_peer_says(tmp_path: Path) -> None:
    beat = joined(tmp_path, "beat", founded(tmp_path).invite(WISH, T0)[1])
    door = Gatekeeper(beat).door
    door._note_no(KEYS["anna"].peer, "E-swarm-16", "another swarm")
    assert not beat.state.refused, "another invite mends no such thing"
    door._note_no(KEYS["anna"].peer, "E-swarm-14", "the invite is used up")
    assert beat.state.refused
    door._own_invite("")
    door._note_no(KEYS["anna"].peer, "E-swarm-14", "the invite is used up")
    assert not beat.state.refused


def test_whoever_was_removed_joins_again_with_a_later_invite_and_not_with_its_old_one(tmp_path: Path) -> None:
    anna = founded(tmp_path)
    _, text = anna.invite(WISH, T0)
    beat = joined(tmp_path, "beat", text)
    anna.book.learn(beat.book.records())
    made = anna.remove(KEYS["beat"].peer, T0 + 2000, "test")
    assert ["peer" in record.payload for record in made] == [True, False], "its invite is withdrawn with it"
    beat.book.learn(made)
    beat.save()
    with pytest.raises(Refused, match="E-swarm-12"):
        joined(tmp_path, "beat", text, T0 + 3000)
    _, later = anna.invite(WISH, T0 + 4000)
    assert joined(tmp_path, "beat", later, T0 + 5000).describe(T0 + 6000)["standing"] == "member"


def test_only_admins_invite_and_remove(tmp_path: Path) -> None:
    _, text = founded(tmp_path).invite(WISH, T0)
    beat = joined(tmp_path, "beat", text)
    with pytest.raises(Refused, match="E-swarm-21"):
        beat.invite(WISH, T0)
    with pytest.raises(Refused, match="E-swarm-21"):
        beat.remove(KEYS["anna"].peer, T0)


def test_another_admin_acts_like_the_founder_but_cannot_remove_it(tmp_path: Path) -> None:
    anna = founded(tmp_path, admins=(KEYS["beat"].peer,))
    _, text = anna.invite(WISH, T0)
    with pytest.raises(Refused, match="E-swarm-07"):
        joined(tmp_path, "carl", text) and joined(tmp_path, "carl", text)
    beat = PrivateSwarm(tmp_path / "beat", KEYS["beat"], anna.snapshot())
    assert beat.invite(WISH, T0)
    with pytest.raises(Refused, match="E-swarm-24"):
        beat.remove(KEYS["anna"].peer, T0)
    with pytest.raises(Refused, match="E-swarm-24"):
        anna.remove(KEYS["anna"].peer, T0)
    anna.remove(KEYS["beat"].peer, T0)
    with pytest.raises(Refused, match="E-swarm-12"):
        anna.remove(KEYS["beat"].peer, T0 + 1)


@pytest.mark.parametrize(
    "wish", [{"uses": 0}, {"uses": 2000}, {"expires_ms": 0}, {"expires_ms": 400 * DAY}, {"member_ms": 2**63}]
)
def test_an_invite_is_bounded(tmp_path: Path, wish: dict[str, int]) -> None:
    with pytest.raises(Refused, match="E-swarm-27"):
        founded(tmp_path).invite(InviteWish(**{"expires_ms": DAY, **wish}, addresses=ADDRESSES), T0)


def test_an_invite_without_an_address_is_of_no_use(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="E-swarm-23"):
        founded(tmp_path).invite(InviteWish(DAY), T0)


def test_an_address_too_long_for_an_invitation_is_left_out_and_alone_is_none(tmp_path: Path) -> None:
    anna = founded(tmp_path)
    longest = "/dns4/" + "a" * 250
    wish = InviteWish(DAY, addresses=(longest + "a", *[longest] * 9))
    found = read_invitation(anna.invite(wish, T0)[1], T0)
    assert found.addresses == (longest,) * LIMITS.swarm.invite_addresses_max
    with pytest.raises(Refused, match="E-swarm-23") as caught:
        anna.invite(InviteWish(DAY, addresses=(longest + "a",)), T0)
    assert "256" in caught.value.complaint.cause


def test_members_and_invites_are_found_by_id_by_its_end_and_by_name(tmp_path: Path) -> None:
    anna = founded(tmp_path)
    invite, text = anna.invite(WISH, T0)
    anna.book.learn(joined(tmp_path, "beat", text).book.records())
    beat = KEYS["beat"].peer
    for name in (peer_text(beat), peer_text(beat)[-8:], f"…{peer_text(beat)[-8:]}"):
        assert anna.find(name, T0 + 2000) == beat
    assert anna.find("ward", T0 + 2000, lambda _: [beat]) == beat
    assert anna.find(cid_text(invite.id)[-8:].upper(), T0 + 2000) == invite.id
    for name in ("ward", "", "zzzz"):
        with pytest.raises(Refused, match="E-swarm-26"):
            anna.find(name, T0 + 2000)
    assert [record.kind for record in anna.remove(invite.id, T0 + 3000)] == ["removal"]
    assert anna.describe(T0 + 4000)["invites"][0]["state"] == "withdrawn"


def test_a_key_is_rotated_at_a_removal_and_the_old_one_fades_out(tmp_path: Path) -> None:
    anna = founded(tmp_path, psk=True)
    _, text = anna.invite(WISH, T0)
    first = read_invitation(text, T0).key
    beat, carl = joined(tmp_path, "beat", text), joined(tmp_path, "carl", text)
    for guest in (beat, carl):
        anna.book.learn(guest.book.records())
    made = anna.remove(carl.me, T0 + 2000)
    fresh = anna.keys(T0 + 2000)[0]
    assert (anna.keys(T0 + 2000), made[0].payload["key_hash"]) == ([fresh, first], key_hash(fresh))
    assert anna.keys(T0 + 2000 + LIMITS.swarm.key_overlap_ms) == [fresh]
    assert not beat.take_keys([fresh], T0), "no removal that it has heard of names this key"
    beat.book.learn(made)
    assert beat.take_keys([fresh, bytes(32), b""], T0 + 3000)
    assert beat.keys(T0 + 3000) == [fresh, first]
    assert not beat.take_keys([fresh, first or b""], T0 + 3000)


def test_a_member_that_missed_a_rotation_takes_the_key_from_a_new_invitation(tmp_path: Path) -> None:
    anna = founded(tmp_path, psk=True)
    _, text = anna.invite(WISH, T0)
    beat, carl = joined(tmp_path, "beat", text), joined(tmp_path, "carl", text)
    for guest in (beat, carl):
        anna.book.learn(guest.book.records())
    anna.remove(carl.me, T0 + 2000)
    _, renewed = anna.invite(WISH, T0 + 3000)
    again = joined(tmp_path, "beat", renewed, T0 + 4000)
    assert again.keys(T0 + 5000)[0] == anna.keys(T0 + 5000)[0]
    assert not anna.book.users_of(anna.book.invites()[-1].id), "a member uses up nothing"


def test_a_state_that_contradicts_itself_is_told_as_damaged(tmp_path: Path) -> None:
    state = founded(tmp_path).snapshot()
    state.chain = [b"nonsense"]
    with pytest.raises(Refused, match="E-swarm-28"):
        PrivateSwarm(tmp_path, KEYS["anna"], state)
