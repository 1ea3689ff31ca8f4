"""What was heard of models: manifests by name and id, grants, withdrawals; and who may use which model.

Rule: there is no central index: a search goes through what peers showed this node, every entry signed by its publisher.
Whoever tells a lot displaces only what it told itself. A withdrawn model is not found by name; its manifest stays, for
receipts.
"""

import re
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Final

from dimnode.errors import PeerFault, Refused
from dimnode.limits import LIMITS, Limits
from dimnode.records.access import GRANTABLE, YES, Access, judge
from dimnode.records.envelope import Record
from dimnode.records.ids import (
    PEER_LETTERS_MIN,
    PeerId,
    RecordId,
    cid_text,
    meant_by,
    named_by,
    peer_text,
    record_named,
)
from dimnode.records.kinds import open_record
from dimnode.records.manifest import Manifest
from dimnode.store.journal import Journal

_ASCII: Final = re.compile(r"[ -~]*")


class Hearsay:
    """Who told what, in bytes. When it is too much, the peer that told most forgets its oldest.

    So a stranger who tells of thousands of things displaces its own, and what somebody else told too stays.
    """

    def __init__(self, bytes_max: int, share_bytes_min: int) -> None:
        self._bytes_max, self._share_bytes_min = bytes_max, share_bytes_min
        self._told: dict[PeerId, OrderedDict[RecordId, int]] = {}
        self._told_bytes: Counter[PeerId] = Counter()
        self._all_bytes = 0
        self._tellers: dict[RecordId, set[PeerId]] = {}

    def tell(self, teller: PeerId, record: Record) -> list[RecordId]:
        """Take note; the ids of what nobody tells any more."""
        told = self._told.setdefault(teller, OrderedDict())
        if record.id in told:
            return []
        told[record.id] = cost = max(len(record.envelope), self._share_bytes_min)
        self._tellers.setdefault(record.id, set()).add(teller)
        self._told_bytes[teller] += cost
        self._all_bytes += cost
        gone = []
        while self._all_bytes > self._bytes_max:
            forgotten = self._forget_oldest(self._told_bytes.most_common(1)[0][0])
            gone += [forgotten] if forgotten is not None else []
        return gone

    def _forget_oldest(self, teller: PeerId) -> RecordId | None:
        told = self._told[teller]
        identity, cost = told.popitem(last=False)
        self._told_bytes[teller] -= cost
        self._all_bytes -= cost
        if not told:
            del self._told[teller], self._told_bytes[teller]
        tellers = self._tellers[identity]
        tellers.discard(teller)
        if tellers:
            return None
        del self._tellers[identity]
        return identity


class Registry:
    """Read from the journal at start; what concerns this node itself is journalled when it is heard."""

    def __init__(self, me: PeerId, net: RecordId, journal: Journal, limits: Limits = LIMITS) -> None:
        self.me, self._net, self._journal, self._limits = me, net, journal, limits.peers
        self.manifests: dict[RecordId, Record] = {}
        self._named: dict[str, dict[RecordId, Record]] = {}
        self._kept: set[RecordId] = set()
        self._manifests_told = Hearsay(self._limits.manifests_heard_bytes_max, self._limits.manifest_share_bytes_min)
        self._notices_told = Hearsay(self._limits.notices_heard_bytes_max, self._limits.notice_share_bytes_min)
        self._notices: dict[RecordId, Record] = {}
        self._withdrawals: dict[tuple[PeerId, RecordId], Record] = {}
        self._grants: dict[tuple[PeerId, RecordId], dict[RecordId, Record]] = {}
        self._kept_notices: set[RecordId] = set()
        self._load()

    def _load(self) -> None:
        rows = self._journal.rows("SELECT envelope FROM records WHERE kind IN ('grant', 'withdraw') ORDER BY seq")
        for (envelope,) in rows:
            record = open_record(envelope, check_signature=False)
            self._kept_notices.add(record.id)
            self._note(record)

    # ---- manifests

    def keep(self, manifest: Record) -> None:
        """Remember a manifest that the journal has: it is never forgotten."""
        self._add(manifest)
        self._kept.add(manifest.id)

    def _add(self, manifest: Record) -> None:
        if manifest.id not in self.manifests:
            self.manifests[manifest.id] = manifest
            self._named.setdefault(manifest.payload["name"], {})[manifest.id] = manifest

    def hear(self, manifest: Record, teller: PeerId) -> None:
        """Remember a manifest that a peer showed; only kept on disk when a job uses it."""
        self._add(manifest)
        for identity in self._manifests_told.tell(teller, manifest):
            if identity not in self._kept:
                name = self.manifests.pop(identity).payload["name"]
                del self._named[name][identity]
                if not self._named[name]:
                    del self._named[name]

    def unkept(self, models: list[RecordId]) -> list[Record]:
        """Manifests of these models that the journal lacks; they count as kept from now on."""
        found = [self.manifests[model] for model in models if model in self.manifests and model not in self._kept]
        self._kept.update(record.id for record in found)
        return found

    # ---- names

    def publishers(self, name: str) -> int:
        """How many peers publish what this name could mean."""
        return len({record.by for record in self._fitting(name)})

    def find(self, name: str, preferred: Iterable[RecordId] = ()) -> Record:
        """The manifest for `name`, `name:version`, `publisher/name:version` or an id. Raises `Refused`.

        publisher: a whole peer id, or its last letters (`named_by`). `preferred` are models that this node's
        operator has here: they count for a bare name alone.
        """
        fitting, preferred = self._fitting(name), frozenset(preferred)
        wanted = [record for record in fitting if self.withdrawn(record.by, record.id) is None]
        if not wanted and fitting:
            raise self._gone(max(fitting, key=_age))
        if not wanted:
            raise self._unknown(name)
        # What this node published and removed again is not what it offers.
        if any(record.by == self.me and record.id in preferred for record in wanted):
            wanted = [record for record in wanted if record.by != self.me or record.id in preferred]
        if len({record.by for record in wanted}) > 1:
            if "/" in name:
                raise _ambiguous(name, wanted)
            # A stranger may publish version 999 of anything: what this node offers itself goes before it.
            mine = [record for record in wanted if record.id in preferred]
            if len({record.by for record in mine}) != 1:
                raise _ambiguous(name, wanted)
            wanted = mine
        return max(wanted, key=_age)

    def find_withdrawn(self, name: str) -> Record:
        """The newest that fits, though it was taken back: for looking at it. Raises `Refused`."""
        fitting = self._fitting(name)
        if not fitting:
            raise self._unknown(name)
        return max(fitting, key=_age)

    def _unknown(self, name: str) -> Refused:
        publisher, _, bare = name.rpartition("/")
        if meant := meant_by((record.by for record in self._fitting(bare)), publisher):
            hint = f"the whole id, or its last {PEER_LETTERS_MIN} letters; dim models ls --json"
            return Refused("E-models-41", f"too few letters for a publisher: {publisher!r}", f"of {meant}", hint)
        return Refused("E-models-01", f"unknown model {name!r}", "no peer heard so far offers it", "dim models ls")

    def _gone(self, record: Record) -> Refused:
        said = self.withdrawn(record.by, record.id)
        assert said is not None
        title, newer = Manifest.of(record).title, said.payload.get("replacement")
        known = self.manifests.get(newer) if newer else None
        instead = Manifest.of(known).title if known else cid_text(newer) if newer else ""
        hint = f"its publisher says to take {instead}: dim models show {instead}" if instead else "dim models ls"
        cause = said.payload["reason"] or "its publisher gave no reason"
        return Refused("E-models-24", f"{title} was withdrawn by its publisher", cause, hint)

    def _fitting(self, name: str) -> list[Record]:
        """What a name could mean. An id means that manifest, and no model that somebody called by the same letters."""
        if (identity := record_named(name)) is not None:
            return [self.manifests[identity]] if identity in self.manifests else []
        publisher, _, rest = name.rpartition("/")
        wanted, _, version = rest.partition(":")
        found = [
            record
            for record in self._named.get(wanted, {}).values()
            if not version or record.payload["version"] == version
        ]
        if publisher:
            return [record for record in found if named_by(record.by, publisher)]
        return found

    def published(self) -> tuple[list[Record], list[Record]]:
        """This node's own manifests that everybody may hear of, and its withdrawals of such."""
        mine = [record for record in self.manifests.values() if record.by == self.me]
        told = [record for record in mine if record.payload["access"] != "private"]
        gone = [self.withdrawn(self.me, record.id) for record in told]
        pairs = list(zip(told, gone, strict=True))
        return [record for record, end in pairs if end is None], [end for _, end in pairs if end is not None]

    # ---- grants and withdrawals

    def hear_notice(self, record: Record, teller: PeerId, *, journalled: bool = True) -> bool:
        """Take note of a grant or a withdrawal; True when it concerns this node and the journal lacks it.

        Then the caller journals it; who cannot says so (`journalled`), and it stays hearsay until it is told again.

        One that names what its signer does not own is kept under its signer's name, where it means nothing.
        """
        if record.kind not in ("grant", "withdraw") or record.payload["net"] != self._net:
            return False
        self._note(record)
        for identity in self._notices_told.tell(teller, record):
            if identity not in self._kept_notices:
                self._forget_notice(self._notices.pop(identity))
        return journalled and self._keep_notice(record)

    def _keep_notice(self, record: Record) -> bool:
        """What this node signed, what was granted to it, and the end of what it keeps."""
        said = record.payload
        mine = record.by == self.me
        granted = record.kind == "grant" and said["peer"] == self.me
        ended = record.kind == "withdraw" and (said["subject"] in self._kept or said["subject"] in self._kept_notices)
        full = len(self._kept_notices) >= self._limits.notices_kept_max and not mine
        if record.id in self._kept_notices or full or not (mine or granted or ended):
            return False
        self._kept_notices.add(record.id)
        return True

    def _note(self, record: Record) -> None:
        if record.id in self._notices:
            return
        self._notices[record.id] = record
        if record.kind == "withdraw":
            self._withdrawals.setdefault((record.by, record.payload["subject"]), record)
        else:
            for model in record.payload["models"]:
                self._grants.setdefault((record.by, model), {})[record.id] = record

    def _forget_notice(self, record: Record) -> None:
        if record.kind == "withdraw":
            place = record.by, record.payload["subject"]
            if self._withdrawals.get(place) is record:
                del self._withdrawals[place]
            return
        for model in set(record.payload["models"]):
            granted = self._grants[record.by, model]
            del granted[record.id]
            if not granted:
                del self._grants[record.by, model]

    def withdrawn(self, signer: PeerId, subject: RecordId) -> Record | None:
        """The signer's own withdrawal of a manifest or grant."""
        return self._withdrawals.get((signer, subject))

    def grants(self, publisher: PeerId, model: RecordId, peer: PeerId | None = None) -> list[Record]:
        """What the publisher granted of a model, to one peer or to all; also what has ended since."""
        granted = self._grants.get((publisher, model), {}).values()
        return [grant for grant in granted if peer in (None, grant.payload["peer"])]

    def access(self, model: RecordId, peer: PeerId, operation: str, now_ms: int) -> Access:
        """Whether a peer may have this done with a model now. An unknown model is nobody's."""
        record = self.manifests.get(model)
        if record is None:
            return Access(False, "E-models-01", "no manifest of this model was heard here")
        if record.payload["access"] == "public" and self.withdrawn(record.by, model) is None:
            return YES
        grants = self.grants(record.by, model, peer)
        return judge(Manifest.of(record), peer, operation, grants, self.withdrawn, now_ms)

    def require(self, model: Record, operation: str, now_ms: int) -> None:
        """This node's own right to have it done, as far as it knows: executors would refuse. Raises `Refused`."""
        access = self.access(model.id, self.me, operation, now_ms)
        if not access.allowed:
            title = Manifest.of(model).title
            grantable = access.code in GRANTABLE
            hint = f"its publisher can: dim models grant {title} {peer_text(self.me)}" if grantable else "dim models ls"
            raise Refused(access.code, f"{title} is not for this node", access.cause, hint)

    def passes(self, submitter: PeerId, asked: Mapping[RecordId, str], now_ms: int) -> tuple[bytes, ...]:
        """Envelopes of the grants on which the submitter's operations on models stand: they travel with a lease."""
        found: dict[RecordId, bytes] = {}
        for model, operation in asked.items():
            record = self.manifests.get(model)
            if record is None or record.payload["access"] == "public":
                continue
            access = self.access(model, submitter, operation, now_ms)
            if access.grant is not None:
                found[access.grant.id] = access.grant.envelope
        return tuple(found.values())[: self._limits.grants_per_frame_max]

    def notices_for(self, peer: PeerId) -> Sequence[bytes]:
        """What a peer is told beside the advert: grants to it, and what was taken back by whom."""
        kept = [record for identity in self._kept_notices if (record := self._notices.get(identity)) is not None]
        kept.sort(key=lambda record: record.payload["at_ms"])
        mine = [record for record in kept if record.kind == "grant" and record.by == self.me]
        own = [record.envelope for record in mine if record.payload["peer"] == peer]
        gone = [record.envelope for record in kept if record.kind == "withdraw"]
        half = self._limits.notices_per_introduction_max // 2
        return [*own[-half:], *gone[-half:]]


def looks_strange(name: str) -> bool:
    """A name in other than ASCII letters: they may look like letters that they are not."""
    return _ASCII.fullmatch(name) is None


def grants_in(envelopes: Iterable[bytes]) -> list[Record]:
    """What came with a lease or a job. One that does not hold is left out, as if it had not been shown."""
    found = []
    for envelope in envelopes:
        with suppress(PeerFault):
            found.append(open_record(envelope, kind="grant"))
    return found


def _ambiguous(name: str, wanted: list[Record]) -> Refused:
    bare = name.rpartition("/")[2]
    names = sorted({f"{peer_text(record.by)}/{bare}" for record in wanted})
    cause = f"{', '.join(names[:3])}{' …' if len(names) > 3 else ''}"
    hint = f"name one: dim run {names[0]}"
    return Refused("E-models-02", f"{name!r} is published by {len(names)} peers", cause, hint)


def _age(record: Record) -> tuple[tuple[int, ...], int, RecordId]:
    return _version(record), record.payload["at_ms"], record.id


def _version(record: Record) -> tuple[int, ...]:
    parts = str(record.payload["version"]).split(".")
    return tuple(int(part) if part.isdecimal() else 0 for part in parts)
