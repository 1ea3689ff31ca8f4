"""What goes into membership.json: one private swarm from its founding to a removal, and an invitation to it."""

import hashlib
import json
from typing import Any

from dimnode.p2p.admission import key_hash
from dimnode.p2p.invitation import write_invitation
from dimnode.records.envelope import SigningKey, seal
from dimnode.records.ids import cid_text, peer_text
from dimnode.records.kinds import compose

T0 = 1_790_000_000_000
ADDRESS = "/ip4/192.0.2.7/tcp/4710"


def _seed(name: str) -> bytes:
    return hashlib.sha256(f"dimnode golden {name}".encode()).digest()


def membership_vectors() -> dict[str, Any]:
    """All of membership.json."""
    founder, joiner, invite_key = (SigningKey.from_seed(_seed(name)) for name in ("founder", "joiner", "invite"))
    key, next_key = _seed("pre-shared key"), _seed("next pre-shared key")
    rows: list[dict[str, str]] = []
    envelopes: list[bytes] = []

    def made(by: SigningKey, kind: str, at_ms: int, body: dict[str, Any], net: bytes = b"") -> bytes:
        common = {"by": by.peer, "at_ms": at_ms, **({"net": net} if net else {})}
        identity, payload = compose(kind, common, body)
        envelopes.append(seal(by, kind, payload))
        rows.append({"kind": kind, "id": cid_text(identity), "envelope": envelopes[-1].hex()})
        return identity

    net = made(founder, "swarm", T0, {"name": "golden", "admins": [founder.peer], "threshold": 1})
    said = {"key": invite_key.peer, "expires_ms": T0 + 604_800_000, "uses": 3}
    invite = made(founder, "invite", T0 + 1, {**said, "member_expires_ms": T0 + 864_000_000, "label": "ward"}, net)
    made(invite_key, "member", T0 + 2, {"peer": joiner.peer, "parents": [invite]}, net)
    made(founder, "member", T0 + 3, {"peer": joiner.peer, "parents": [], "expires_ms": T0 + 864_000_000}, net)
    removal = {"epoch": 1, "peer": joiner.peer, "key_hash": key_hash(next_key), "reason": "left the ward"}
    made(founder, "removal", T0 + 4, removal, net)
    made(founder, "removal", T0 + 5, {"epoch": 2, "invite": invite}, net)
    address = f"{ADDRESS}/p2p/{peer_text(founder.peer)}"
    return {
        "seeds": {name: _seed(name).hex() for name in ("founder", "joiner", "invite")},
        "records": rows,
        "invitation": write_invitation(envelopes[0], envelopes[1], _seed("invite"), [address], key),
        "address": address,
        "pre_shared_key": key.hex(),
        "next_pre_shared_key": next_key.hex(),
        "next_key_hash": key_hash(next_key).hex(),
    }


def membership_text() -> str:
    """membership.json as it is kept."""
    return json.dumps(membership_vectors(), indent=1) + "\n"
