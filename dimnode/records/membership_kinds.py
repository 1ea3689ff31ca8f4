"""The record kinds of a private swarm: who may join, who is in, who is out.

Rule: together with the `swarm` record they form a chain that anybody can check offline: the swarm names its admins, an
admin signs an invite, the invite's own key signs the member that joined with it. An admin may also sign a member.
Frozen like every kind: new meaning is a new type. Pure: no I/O, no clock. Field by field in docs/swarms.md.
"""

from collections.abc import Mapping
from typing import Final

from dimnode.records.ids import PEER_ID_BYTES, PEER_PREFIX, RECORD_ID_BYTES, RECORD_PREFIX
from dimnode.records.shapes import Check, exact_bytes, fields, integer, list_of, text

OPEN_SWARM_NAME: Final = "open"
"""No private swarm is called so."""
MEMBERSHIP_KINDS: Final = ("invite", "member", "removal")
"""In the order in which they can be learned."""
USES_MAX: Final = 1024
EPOCH_MAX: Final = 2**31 - 1

_peer = exact_bytes(PEER_ID_BYTES, prefix=PEER_PREFIX)
_record = exact_bytes(RECORD_ID_BYTES, prefix=RECORD_PREFIX)
_hash = exact_bytes(32)


def membership_schemas(common: Mapping[str, Check]) -> dict[str, Check]:
    """The schema of each kind; `common` are the fields that every record has."""
    return {
        "invite": fields(
            {**common, "key": _peer, "expires_ms": integer(1), "uses": integer(1, USES_MAX)},
            {"member_expires_ms": integer(1), "label": text(64)},
        ),
        "member": fields({**common, "peer": _peer, "parents": list_of(_record, 1)}, {"expires_ms": integer(1)}),
        "removal": fields(
            {**common, "epoch": integer(1, EPOCH_MAX)},
            {"peer": _peer, "invite": _record, "key_hash": _hash, "reason": text(256)},
        ),
    }
