"""The invitation: one string that carries everything a second machine needs to join a private swarm.

`dim1:` ‖ base32 (lower case, no padding) of: length (2 bytes, big endian) ‖ body ‖ first 4 bytes of SHA-256(body), the
body being a msgpack array: swarm envelope, invite envelope, seed of the invite's key, [address], pre-shared key or nil.

Rule: it is a bearer token. Whoever holds the string can join until it expires or is used up, so it never reaches a log.
White space anywhere in it is forgiven: terminals and mail wrap lines. Pure: no I/O, no clock.
"""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from dimnode.errors import PeerFault, Refused
from dimnode.limits import LIMITS, SwarmLimits
from dimnode.p2p.admission import MemberBook
from dimnode.records.envelope import Record, SigningKey
from dimnode.records.kinds import ADDRESS_CHARACTERS_MAX, open_record
from dimnode.wire import pack_frame, unpack_body

PREFIX: Final = "dim1:"
KEY_BYTES: Final = 32
_ANOTHER: Final = "ask an admin for another one"
_LENGTH_BYTES: Final = 2
_CHECK_BYTES: Final = 4
_AGAIN: Final = "copy the whole string that `dim swarm invite` printed, from dim1: to its last letter"


@dataclass(frozen=True, slots=True)
class Invitation:
    """What an invitation says. `seed` and `key` are secrets."""

    swarm: Record
    invite: Record
    seed: bytes = field(repr=False)
    addresses: tuple[str, ...] = ()
    key: bytes | None = field(default=None, repr=False)


def write_invitation(
    swarm: bytes, invite: bytes, seed: bytes, addresses: Sequence[str], key: bytes | None = None
) -> str:
    """The string of these envelopes and secrets."""
    body = pack_frame([swarm, invite, seed, list(addresses), key])[4:]
    raw = len(body).to_bytes(_LENGTH_BYTES, "big") + body + hashlib.sha256(body).digest()[:_CHECK_BYTES]
    return PREFIX + base64.b32encode(raw).decode().lower().rstrip("=")


def read_invitation(text: str, now_ms: int, limits: SwarmLimits = LIMITS.swarm) -> Invitation:
    """What the string says, with everything checked that it can be checked for.

    Raises `Refused`: E-swarm-01 no invitation, E-swarm-02 cut off, E-swarm-03 altered, E-swarm-04 expired,
    E-swarm-05 a signature does not hold, E-swarm-06 not signed by an admin of its swarm, E-swarm-25 threshold.
    """
    found = _opened(_body(text, limits))
    book = MemberBook(found.swarm, limits)
    book.check_open(found.invite, now_ms)
    return found


def _body(text: str, limits: SwarmLimits) -> bytes:
    letters = "".join(text.split())
    if not letters.lower().startswith(PREFIX) or len(letters) > limits.invite_text_characters_max:
        raise Refused("E-swarm-01", "this is no invitation to a swarm", f"one begins with {PREFIX}", _AGAIN)
    letters = letters[len(PREFIX) :].upper()
    # A cut can fall between two letters of one byte: what is missing is filled up, the length then tells.
    spare = {1: letters[:-1], 3: letters[:-1], 6: letters[:-1]}.get(len(letters) % 8, letters)
    try:
        raw = base64.b32decode(spare + "=" * (-len(spare) % 8))
    except ValueError:
        raise Refused(
            "E-swarm-03", "the invitation was altered", "a letter in it never occurs in one", _AGAIN
        ) from None
    body = raw[_LENGTH_BYTES:]
    length = int.from_bytes(raw[:_LENGTH_BYTES], "big") + _CHECK_BYTES
    if len(raw) < _LENGTH_BYTES or len(body) < length:
        raise Refused("E-swarm-02", "the end of the invitation is missing", "it was cut off while copying", _AGAIN)
    if len(body) > length or spare != letters:
        raise Refused("E-swarm-03", "the invitation was altered", "there is more after its end", _AGAIN)
    if base64.b32encode(raw).decode().rstrip("=") != letters:  # the last letter has bits that carry nothing
        raise Refused("E-swarm-03", "the invitation was altered", "its last letter is not the one it had", _AGAIN)
    body, check = body[:-_CHECK_BYTES], body[-_CHECK_BYTES:]
    if hashlib.sha256(body).digest()[:_CHECK_BYTES] != check:
        raise Refused("E-swarm-03", "the invitation was altered", "its checksum does not fit", _AGAIN)
    return body


def _opened(body: bytes) -> Invitation:
    try:
        match unpack_body(body, LIMITS.wire.peer_frame_containers_max):
            case [bytes(swarm), bytes(invite), bytes(seed), list(addresses), key] if _plausible(seed, addresses, key):
                found = Invitation(
                    open_record(swarm, kind="swarm"), open_record(invite, kind="invite"), seed, tuple(addresses), key
                )
            case _:
                raise PeerFault("fields")
    except PeerFault as fault:
        cause = f"{fault.rule}; nobody but an admin's own `dim swarm invite` makes one"
        raise Refused("E-swarm-05", "the invitation is forged", cause, _ANOTHER) from None
    if SigningKey.from_seed(found.seed).peer != found.invite.payload["key"]:
        raise Refused("E-swarm-05", "the invitation is forged", "its secret does not belong to its invite", _ANOTHER)
    return found


def _plausible(seed: bytes, addresses: list[Any], key: Any) -> bool:
    return (
        len(seed) == KEY_BYTES
        and len(addresses) <= LIMITS.swarm.invite_addresses_max
        and all(type(address) is str and len(address) <= ADDRESS_CHARACTERS_MAX for address in addresses)
        and (key is None or (type(key) is bytes and len(key) == KEY_BYTES))
    )
