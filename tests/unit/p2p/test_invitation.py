"""The string that is handed over: it comes back whole, or is refused with the reason."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from swarm_stage import ALBA, DAY, STRANGER, T0, Paper

from dimnode.errors import Refused
from dimnode.p2p.invitation import PREFIX, read_invitation, write_invitation
from dimnode.records.ids import peer_text

PAPER = Paper()
ADDRESSES = [f"/ip4/192.0.2.7/tcp/4710/p2p/{peer_text(ALBA.peer)}"]
INVITE, KEY = PAPER.invite()
SEED = bytes([100]) * 32
TEXT = write_invitation(PAPER.swarm.envelope, INVITE.envelope, SEED, ADDRESSES)


def refusal(text: str, now_ms: int = T0) -> str:
    with pytest.raises(Refused) as caught:
        read_invitation(text, now_ms)
    return caught.value.complaint.code


def test_what_is_written_is_read() -> None:
    key = bytes(range(32))
    found = read_invitation(write_invitation(PAPER.swarm.envelope, INVITE.envelope, SEED, ADDRESSES, key), T0)
    assert (found.swarm.id, found.invite.id, found.seed) == (PAPER.swarm.id, INVITE.id, SEED)
    assert (list(found.addresses), found.key) == (ADDRESSES, key)
    assert read_invitation(TEXT, T0).key is None


def test_wrapped_lines_and_capitals_are_forgiven() -> None:
    wrapped = "\n ".join(TEXT[place : place + 60] for place in range(0, len(TEXT), 60))
    assert read_invitation(f"  {wrapped}\n", T0).invite.id == INVITE.id
    assert read_invitation(TEXT.upper(), T0).invite.id == INVITE.id


def test_secrets_stay_out_of_what_is_printed_about_it() -> None:
    found = read_invitation(TEXT, T0)
    assert SEED.hex() not in repr(found)
    assert repr(SEED) not in repr(found)


@pytest.mark.parametrize("text", ["", "hello", "dim2:abc", TEXT[5:], PREFIX + "a" * 10_000])
def test_what_is_no_invitation_is_told_so(text: str) -> None:
    assert refusal(text) == "E-swarm-01"


def test_every_cut_is_told_as_one() -> None:
    for end in [*range(len(PREFIX), len(TEXT), 13), *range(len(TEXT) - 20, len(TEXT))]:
        assert refusal(TEXT[:end]) in ("E-swarm-02", "E-swarm-03")
        assert refusal(TEXT[:end]) == "E-swarm-02" or len(TEXT) - end < 2, end


@settings(max_examples=60, deadline=None)
@example(len(TEXT) - 1, chr(ord(TEXT[-1]) + 1))  # its last bits carry nothing
@given(st.integers(len(PREFIX), len(TEXT) - 1), st.sampled_from("abcdefghijklmnopqrstuvwxyz234567018!-é"))
def test_no_altered_letter_goes_through(place: int, letter: str) -> None:
    altered = TEXT[:place] + letter + TEXT[place + 1 :]
    if altered != TEXT:
        assert refusal(altered) in ("E-swarm-02", "E-swarm-03")


def test_more_letters_at_the_end_are_told_as_altered() -> None:
    for more in ("a", "aa", "abcdefgh", "dim1:"):
        assert refusal(TEXT + more) == "E-swarm-03"


def test_an_expired_invitation_is_told_so() -> None:
    assert refusal(TEXT, T0 + 7 * DAY) == "E-swarm-04"


def test_a_forged_signature_is_told_so() -> None:
    forged = bytearray(INVITE.envelope)
    forged[-1] ^= 1
    assert refusal(write_invitation(PAPER.swarm.envelope, bytes(forged), SEED, ADDRESSES)) == "E-swarm-05"
    assert refusal(write_invitation(INVITE.envelope, PAPER.swarm.envelope, SEED, ADDRESSES)) == "E-swarm-05"


def test_a_secret_of_another_invite_is_told_as_forged() -> None:
    assert refusal(write_invitation(PAPER.swarm.envelope, INVITE.envelope, bytes(32), ADDRESSES)) == "E-swarm-05"
    assert refusal(write_invitation(PAPER.swarm.envelope, INVITE.envelope, b"short", ADDRESSES)) == "E-swarm-05"
    assert refusal(write_invitation(PAPER.swarm.envelope, INVITE.envelope, SEED, ADDRESSES * 9)) == "E-swarm-05"


def test_an_invite_of_no_admin_or_of_another_swarm_is_told_so() -> None:
    foreign, _ = PAPER.invite(STRANGER)
    assert refusal(write_invitation(PAPER.swarm.envelope, foreign.envelope, SEED, ADDRESSES)) == "E-swarm-06"
    other, _ = Paper("other").invite()
    assert refusal(write_invitation(PAPER.swarm.envelope, other.envelope, SEED, ADDRESSES)) == "E-swarm-06"
