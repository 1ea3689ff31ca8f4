"""Records of values that a person gave."""

from typing import Any

from dimnode.errors import PeerFault, Refused
from dimnode.records.envelope import VERSION
from dimnode.records.ids import RecordId
from dimnode.records.kinds import compose


def compose_or_refuse(
    kind: str, common: dict[str, Any], body: dict[str, Any], code: str, what: str, version: int = VERSION
) -> tuple[RecordId, bytes]:
    """`compose` for values that a person gave: what does not fit the record is their mistake, not our bug."""
    try:
        return compose(kind, common, body, by_hand=True, version=version)
    except PeerFault as fault:
        raise Refused(code, f"{what} does not fit a record", fault.rule, "shorter names and lists") from None
