"""Who may fetch the files of models from this node, and by what.

Rule: a model's files are served to whoever may have it: everybody, a peer with a grant, or the executor of a lease from
somebody who may let it travel.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from contextlib import suppress

import trio

from dimnode.errors import PeerFault, Refused
from dimnode.limits import PeerLimits
from dimnode.node.clock import wall_ms
from dimnode.node.library import Library
from dimnode.records.access import FETCH, Access
from dimnode.records.envelope import Record
from dimnode.records.ids import Cid, PeerId, RecordId
from dimnode.records.kinds import open_record
from dimnode.records.plan import replicas_per_step, step_of


class ModelLeave:
    """What the registry says, and for a while what a lease opened."""

    def __init__(self, library: Library, limits: PeerLimits) -> None:
        self._library, self._registry, self._limits = library, library.registry, limits
        self._permits: OrderedDict[tuple[PeerId, RecordId], dict[frozenset[PeerId], float]] = OrderedDict()

    def may_fetch(self, peer: PeerId, root: Cid) -> bool:
        """The rule of models for the exchange of blobs."""
        return any(self._may(peer, model) for model in self._library.models_with(root))

    def _may(self, peer: PeerId, model: RecordId) -> bool:
        return self._leased_to(peer, model) or self._access(peer, model).allowed

    def owed(self, peer: PeerId, root: Cid) -> bool:
        """Whether the peer may have a blob by a lease or a grant, and not only because everybody may."""
        models = self._library.models_with(root)
        return any(self._leased_to(peer, model) or self._access(peer, model).grant is not None for model in models)

    def _leased_to(self, peer: PeerId, model: RecordId) -> bool:
        """By a lease of a while ago, while all on whose leave it stands may have the model: grants are taken back."""
        now = trio.current_time()
        return any(
            until > now and all(self._access(giver, model).allowed for giver in givers)
            for givers, until in self._permits.get((peer, model), {}).items()
        )

    def _access(self, peer: PeerId, model: RecordId) -> Access:
        return self._registry.access(model, peer, FETCH, wall_ms())

    def leased(self, peer: PeerId, submitter: PeerId, models: Iterable[RecordId]) -> None:
        """This node leases a task to a peer, which may have to fetch the model from here."""
        for model in models:
            if model in self._library.models and self._access(submitter, model).allowed:
                self._permit(peer, model, submitter)

    def _permit(self, peer: PeerId, model: RecordId, *givers: PeerId) -> None:
        until = self._permits.setdefault((peer, model), {})
        until.pop(frozenset(givers), None)
        until[frozenset(givers)] = trio.current_time() + self._limits.model_permit_seconds
        if len(until) > self._limits.model_permit_givers_max:
            del until[next(iter(until))]
        self._permits.move_to_end((peer, model))
        if len(self._permits) > self._limits.model_permits_max:
            self._permits.popitem(last=False)

    def shown(self, peer: PeerId, model: RecordId, envelopes: Sequence[bytes]) -> bytes:
        """Grants to the peer, or a lease and its spec, were shown: nothing if they open the model. Raises `Refused`."""
        lease = spec = None
        for envelope in envelopes:
            with suppress(PeerFault):
                record = open_record(envelope)
                if record.kind == "grant":
                    self._registry.hear_notice(record, peer, journalled=False)
                lease = record if record.kind == "lease" else lease
                spec = record if record.kind == "spec" else spec
        access = self._access(peer, model)
        if access.allowed:
            return b""
        if lease is not None and spec is not None and self._lease_opens(peer, model, lease, spec):
            self._permit(peer, model, spec.by, lease.by)
            return b""
        raise Refused(access.code, "this node does not hand the model out to you", access.cause)

    def _lease_opens(self, peer: PeerId, model: RecordId, lease: Record, spec: Record) -> bool:
        """A fresh lease of a task with this model to this peer, by somebody who may let the files travel.

        Whoever has seen a spec can lease its tasks: so the lease is the submitter's own, or of a peer that itself may.
        """
        said, age_ms = lease.payload, abs(wall_ms() - lease.payload["at_ms"])
        task = said["task"]
        steps = spec.payload["tasks"]
        if said["executor"] != peer or said["job"] != spec.id or task >= replicas_per_step(spec.payload) * len(steps):
            return False
        if steps[step_of(spec.payload, task)].get("model") != model or age_ms > self._limits.lease_shown_ms_max:
            return False
        if not self._access(spec.by, model).allowed:
            return False
        return lease.by == spec.by or self._access(lease.by, model).allowed
