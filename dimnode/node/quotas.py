"""From the settings' `[quotas]` to what the pool enforces: peer ids read, defaults filled in.

Rule: a quota that names nobody is a mistake of the operator and is said at the start, not ignored.
"""

from dimnode.config import Config, QuotaTable
from dimnode.errors import ConfigError, PeerFault
from dimnode.exec.shares import Quota, Quotas
from dimnode.records.ids import PeerId, peer_bytes

OWN_NAME = "self"


def quotas_of(config: Config, me: PeerId) -> Quotas:
    """Raises `ConfigError` for a name that is no peer id and not `self`."""
    said = config.quotas
    standard = Quota(said.max_queued, said.share, said.max_priority)
    return Quotas(standard, {_peer(name, me): _one(quota, standard) for name, quota in said.peers.items()})


def check_quotas(config: Config) -> None:
    """The same check before anything is opened."""
    for name in config.quotas.peers:
        _peer(name, PeerId(b""))


def _one(quota: QuotaTable, standard: Quota) -> Quota:
    return Quota(
        standard.queued_max if quota.max_queued is None else quota.max_queued,
        standard.share if quota.share is None else quota.share,
        quota.max_priority or standard.priority_max,
    )


def _peer(name: str, me: PeerId) -> PeerId:
    if name == OWN_NAME:
        return me
    try:
        return peer_bytes(name)
    except PeerFault:
        hint = '[quotas.peers."12D3KooW…"], the whole id as dim peers --json shows it, or [quotas.peers.self]'
        raise ConfigError("E-config-10", f"a quota names {name!r}, which is no peer id", "config.toml", hint) from None
