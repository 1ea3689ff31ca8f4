"""Answers about models: add, list, show, pull, update, verify, withdraw, and who may use them.

Rule: a command about a model of somebody else changes nothing but this node; what changes for others is signed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import trio

from dimnode.api.port import Answer, ListedFile
from dimnode.errors import PeerFault, Refused
from dimnode.node.clock import wall_ms
from dimnode.node.composing import compose_or_refuse
from dimnode.node.library import check_place
from dimnode.node.model_card import ModelCard, card_of
from dimnode.node.model_files import SourceFile, role_of
from dimnode.node.model_schema import compared
from dimnode.node.publishers import Publishers
from dimnode.p2p.host.streams import DialFailed, StreamLost
from dimnode.p2p.models import ask_about_model
from dimnode.records.access import FETCH
from dimnode.records.envelope import Record, seal
from dimnode.records.ids import PeerId, RecordId, cid_text, peer_text
from dimnode.records.kinds import open_record
from dimnode.records.manifest import Manifest, title_of
from dimnode.records.manifest_kinds import OPERATIONS
from dimnode.records.transforms import sources_of, takes_row, text_names

if TYPE_CHECKING:
    from dimnode.node.backstage import Backstage
    from dimnode.node.node import Node
    from dimnode.node.registry import Registry

_NOTHING: Final = type(None)
_MODEL: Final[Mapping[str, tuple[type, ...]]] = {"model": (str,)}
MODEL_ARGUMENTS: Final[Mapping[str, Mapping[str, tuple[type, ...]]]] = {
    "models.add": {"card": (dict,), "path": (str,), "looked_at": (bool, _NOTHING)},
    "models.update": {**_MODEL, "card": (dict,), "path": (str, _NOTHING), "looked_at": (bool, _NOTHING)},
    "models.ls": {"publisher": (str, _NOTHING)},
    "models.show": _MODEL,
    "models.pull": {**_MODEL, "peers": (list, _NOTHING)},
    "models.warm": {**_MODEL, "peer": (str, _NOTHING)},
    "models.verify": _MODEL,
    "models.withdraw": {**_MODEL, "reason": (str, _NOTHING), "replacement": (str, _NOTHING)},
    "models.rm": _MODEL,
    "models.grant": {
        **_MODEL,
        "peer": (str,),
        "operations": (list, _NOTHING),
        "expires_ms": (int, _NOTHING),
        "terms": (str, _NOTHING),
    },
    "models.revoke": {**_MODEL, "peer": (str,), "reason": (str, _NOTHING)},
}


class ModelAnswers:
    """One method per operation, as `Answers` has them."""

    def __init__(self, node: Node, backstage: Backstage) -> None:
        self._node, self._backstage = node, backstage
        self._publishers = Publishers(node, backstage)
        self._looking = trio.Lock()
        self.operations = {
            "models.add": self._add,
            "models.update": self._update,
            "models.ls": self._ls,
            "models.show": self._show,
            "models.pull": self._pull,
            "models.warm": self._warm,
            "models.verify": self._verify,
            "models.withdraw": self._withdraw,
            "models.rm": self._remove,
            "models.grant": self._grant,
            "models.revoke": self._revoke,
        }

    # ---- publishing

    async def _add(self, asked: Mapping[str, Any]) -> Answer:
        return await self._publish(card_of(asked["card"]), Path(asked["path"]), looked_at=bool(asked.get("looked_at")))

    async def add_uploads(self, card: Mapping[str, Any], files: Sequence[ListedFile]) -> Answer:
        """A model of files that came up over HTTP."""
        sources = [SourceFile(path, role or role_of(path), place) for path, role, place in files]
        return await self._publish(card_of(card), sources)

    async def _publish(
        self, card: ModelCard, source: Path | Sequence[SourceFile], *, looked_at: bool = False
    ) -> Answer:
        """looked_at: who asks, this machine's command line, has compared the card with the model already."""
        name, library = str(source) if isinstance(source, Path) else card.name, self._node.library
        if not looked_at:
            async with self._looking:  # each look may take as much memory as a worker
                card = await trio.to_thread.run_sync(self._compared, card, source)

        def progress(done: int, of: int) -> None:
            trio.from_thread.check_cancelled()
            self._node.models.adding[name] = done, of

        try:
            if isinstance(source, Path):
                record = await library.add_model(card, source, wall_ms(), progress)
            else:
                record = await library.add_uploads(card, source, wall_ms(), progress)
        finally:
            self._node.models.adding.pop(name, None)
        return self._published(record)

    def _compared(self, card: ModelCard, source: Path | Sequence[SourceFile]) -> ModelCard:
        if isinstance(source, Path):
            check_place(source, self._node.home)
        return compared(card, source)

    def _published(self, record: Record) -> Answer:
        self._node.models.offer(record)
        self._node.swarm.renew_advert()
        self._node.kubo.news()
        return {"model": cid_text(record.id), "name": title_of(record), "access": record.payload["access"]}

    async def _update(self, asked: Mapping[str, Any]) -> Answer:
        """A new version of a model of this node's own: what is not said again stays as it was."""
        old = self._mine(asked["model"])
        said = Manifest.of(old)
        kept = _kept(said) | {key: value for key, value in asked["card"].items() if value is not None}
        if kept["access"] != "pay-per-use" and asked["card"].get("price") is None:
            kept.pop("price", None)
        card = card_of(kept | {"name": said.name, "previous": cid_text(old.id)})
        if card.version == said.version:
            hint = f"dim models update {said.name} --version …"
            raise Refused("E-models-34", f"{said.title} exists", "an update has another version", hint)
        if asked.get("path"):
            return await self._publish(card, Path(asked["path"]), looked_at=bool(asked.get("looked_at")))
        if old.id not in self._node.library.models:
            raise Refused("E-models-29", f"the files of {said.title} are not here", "", f"dim models pull {said.title}")
        rows = [[file.path, file.role, file.root, file.size_bytes] for file in said.files]
        return self._published(await self._node.library.republish(card, said.format, rows, wall_ms()))

    async def _withdraw(self, asked: Mapping[str, Any]) -> Answer:
        record = self._mine(asked["model"])
        body: dict[str, Any] = {"subject": record.id, "reason": asked.get("reason") or ""}
        if asked.get("replacement"):
            body["replacement"] = self._find(asked["replacement"]).id
        notice = self._signed("withdraw", body)
        await self._node.hear_notices([notice], self._node.me)
        return {"model": cid_text(record.id), "name": title_of(record), "withdrawal": cid_text(notice.id)}

    async def _grant(self, asked: Mapping[str, Any]) -> Answer:
        record, peer = self._mine(asked["model"]), self._backstage.whole_peer(asked["peer"])
        if record.payload["access"] not in ("restricted", "pay-per-use"):
            what = f"{title_of(record)} is {record.payload['access']}: there is nothing to grant"
            raise Refused("E-models-35", what, "", "dim models update NAME --version … --access restricted")
        operations = asked.get("operations") or list(OPERATIONS)
        if wrong := [operation for operation in operations if operation not in OPERATIONS]:
            what = f"there is nothing {wrong[0]!r} to grant"
            raise Refused(
                "E-models-07", what, f"operations are {', '.join(OPERATIONS)}", "--for A,B, or all without it"
            )
        body: dict[str, Any] = {"peer": peer, "models": [record.id], "operations": operations}
        if asked.get("expires_ms"):
            body["expires_ms"] = asked["expires_ms"]
        if asked.get("terms"):
            body["terms"] = asked["terms"]
        if "price" in record.payload:
            body["price"] = record.payload["price"]
        notice = self._signed("grant", body)
        await self._node.hear_notices([notice], self._node.me)
        return {"grant": cid_text(notice.id), "name": title_of(record), **_grant_map(notice)}

    async def _revoke(self, asked: Mapping[str, Any]) -> Answer:
        record, peer = self._mine(asked["model"]), self._backstage.whole_peer(asked["peer"])
        registry = self._node.registry
        given = [
            grant
            for grant in registry.grants(record.by, record.id, peer)
            if registry.withdrawn(record.by, grant.id) is None
        ]
        if not given:
            what = f"…{peer_text(peer)[-8:]} has no grant of {title_of(record)}"
            raise Refused("E-models-36", what, "", f"dim models show {title_of(record)}")
        reason = asked.get("reason") or ""
        notices = [self._signed("withdraw", {"subject": grant.id, "reason": reason}) for grant in given]
        await self._node.hear_notices(notices, self._node.me)
        return {"name": title_of(record), "peer": peer_text(peer), "revoked": [cid_text(grant.id) for grant in given]}

    def _signed(self, kind: str, body: dict[str, Any]) -> Record:
        key = self._node.key
        common = {"net": self._node.net, "by": key.peer, "at_ms": wall_ms()}
        _, payload = compose_or_refuse(kind, common, body, "E-models-07", f"the {kind}")
        return open_record(seal(key, kind, payload), kind=kind, check_signature=False)

    # ---- looking

    async def _ls(self, asked: Mapping[str, Any]) -> Answer:
        """What can be had here and on peers now; or all that one publisher publishes, whoever has it."""
        about: Answer = {}
        if asked.get("publisher"):
            found, about = await self._publishers.models_of(asked["publisher"])
            holders = self._holders()
        else:
            holders, registry, mine = self._holders(), self._node.registry, self._node.library.models
            near = [record for record in registry.manifests.values() if record.id in mine or record.id in holders]
            found = [record for record in near if registry.withdrawn(record.by, record.id) is None]
        labels = {record.id: [self._backstage.label(peer) for peer in holders.get(record.id, [])] for record in found}
        return {"models": [self._row(record, labels[record.id]) for record in sorted(found, key=title_of)], **about}

    def _holders(self) -> dict[RecordId, list[PeerId]]:
        found: dict[RecordId, list[PeerId]] = {}
        for member in self._node.swarm.members.alive(trio.current_time()):
            for model in member.models:
                found.setdefault(model, []).append(member.peer)
        return found

    def _row(self, record: Record, peers: Sequence[str]) -> Answer:
        said = Manifest.of(record)
        return {
            "model": cid_text(said.id),
            "name": said.title,
            "publisher": peer_text(said.by),
            "publisher_name": self._backstage.label(said.by),
            "mine": said.by == self._node.me,
            "format": said.format,
            "origin": said.origin,
            "access": said.access,
            "allowed": self._node.registry.access(said.id, self._node.me, "infer", wall_ms()).allowed,
            "licence": said.licence,
            "summary": said.summary,
            "labels": list(said.labels),
            "inputs": [[name, dtype, list(shape)] for name, dtype, shape in said.inputs],
            "outputs": [[name, dtype, list(shape)] for name, dtype, shape in said.outputs],
            "takes": [takes_row(source) for source in sources_of(said.pre)],
            "texts": list(text_names(said.post)),
            "columns": list(said.columns),
            "bytes": said.size_bytes,
            "here": said.id in self._node.library.models,
            "peers": list(peers),
        }

    async def _show(self, asked: Mapping[str, Any]) -> Answer:
        """Everything that the manifest says, who has it, and whether this node may use it, and why."""
        record = await self._publishers.look_up(asked["model"], partial(self._find, gone_too=True))
        said, registry, me = Manifest.of(record), self._node.registry, self._node.me
        peers = [self._backstage.label(peer) for peer in self._holders().get(record.id, [])]
        may = {operation: registry.access(said.id, me, operation, wall_ms()) for operation in OPERATIONS}
        gone = registry.withdrawn(said.by, said.id)
        return self._row(record, peers) | {
            "version": said.version,
            "at_ms": said.at_ms,
            "profile": said.profile,
            "files": [
                {"path": file.path, "role": file.role, "root": cid_text(file.root), "bytes": file.size_bytes}
                for file in said.files
            ],
            "may": {
                operation: {"allowed": access.allowed, "code": access.code, "why": _why(access, said, me)}
                for operation, access in may.items()
            },
            "price": said.price._asdict() if said.price else None,
            "previous": cid_text(said.previous) if said.previous else "",
            "lineage": [[relation, cid_text(identity)] for relation, identity in said.lineage],
            "parity": cid_text(said.parity) if said.parity else "",
            "architecture": said.architecture,
            "dtype": said.dtype,
            "quantisation": said.quantisation,
            "memory_bytes": said.memory_bytes,
            "max_batch": said.max_batch,
            "pre": [dict(step) for step in said.pre],
            "post": [dict(step) for step in said.post],
            "withdrawn": None if gone is None else gone.payload["reason"],
            "replacement": _replacement(registry, gone),
            "newer": [
                title_of(other)
                for other in registry.manifests.values()
                if other.by == said.by and other.payload.get("previous") == said.id
            ],
            "grants": [
                _grant_map(grant) | {"revoked": registry.withdrawn(grant.by, grant.id) is not None}
                for grant in registry.grants(said.by, said.id, None if said.by == me else me)
            ],
        }

    # ---- having

    async def _pull(self, asked: Mapping[str, Any]) -> Answer:
        record = await self._publishers.look_up(asked["model"], self._find)
        hints = [self._backstage.find_peer(str(name)) for name in asked.get("peers") or []]
        await self._node.models.pull(record.id, hints)
        return {"model": cid_text(record.id), "name": title_of(record), "bytes": Manifest.of(record).size_bytes}

    async def _warm(self, asked: Mapping[str, Any]) -> Answer:
        """Have a model ready before a job needs it: here, or at a peer that is willing."""
        record = await self._publishers.look_up(asked["model"], self._find)
        if not asked.get("peer"):
            await self._node.models.pull(record.id)
            return {"model": cid_text(record.id), "name": title_of(record), "state": "here"}
        peer = self._backstage.find_peer(asked["peer"])
        grants = self._node.registry.passes(self._node.me, {record.id: FETCH}, wall_ms())
        assert self._node.host is not None
        try:
            shown = [record.envelope, *grants]
            state = await ask_about_model(self._node.host, peer, "warm", record.id, shown)
        except (PeerFault, DialFailed, StreamLost) as error:
            what = f"{self._backstage.label(peer)} did not answer"
            raise Refused("E-models-30", what, str(error), "dim peers") from None
        return {
            "model": cid_text(record.id),
            "name": title_of(record),
            "peer": peer_text(peer),
            "state": state[:16].decode(errors="replace"),
        }

    async def _verify(self, asked: Mapping[str, Any]) -> Answer:
        """Hash all files again. One that does not hold is removed, and the model is no longer offered."""
        record = self._find(asked["model"], gone_too=True)
        said, store, rows, before = Manifest.of(record), self._node.blobs, [], 0
        for file in said.files:
            if await trio.to_thread.run_sync(store.find, file.root) is None:
                state = "missing"
            else:
                holds = await self._node.content.verify(file.root, asked["model"], before, said.size_bytes)
                state = "holds" if holds else "damaged"
            before += file.size_bytes
            rows.append({"path": file.path, "root": cid_text(file.root), "bytes": file.size_bytes, "state": state})
        holds = all(row["state"] == "holds" for row in rows)
        if not holds and record.id in self._node.library.models:
            await self._node.library.look_again(record)
            self._node.swarm.renew_advert()
        return {"model": cid_text(record.id), "name": said.title, "holds": holds, "files": rows}

    async def _remove(self, asked: Mapping[str, Any]) -> Answer:
        record = self._find(asked["model"], gone_too=True)
        if record.id not in self._node.library.models:
            raise Refused("E-models-29", f"{title_of(record)} is not here", "", "dim models ls")
        await self._node.library.drop(record.id)
        if self._node.pool is not None:  # an idle worker maps its files, which would keep their room on the disk
            self._node.pool.unload(record.id.hex())
        self._node.models.offer_no_more(record)
        self._node.swarm.renew_advert()
        return {"model": cid_text(record.id), "name": title_of(record)}

    # ---- parts

    def _find(self, name: str, *, gone_too: bool = False) -> Record:
        registry = self._node.registry
        try:
            return registry.find(name, self._node.library.chosen())
        except Refused as no:
            if gone_too and no.complaint.code == "E-models-24":
                return registry.find_withdrawn(name)
            raise

    def _mine(self, name: str) -> Record:
        registry, me = self._node.registry, self._node.me
        mine = [record.id for record in registry.manifests.values() if record.by == me]
        record = registry.find(name, mine)
        if record.by != me:
            cause = f"its publisher is …{peer_text(record.by)[-8:]}"
            raise Refused("E-models-37", f"{title_of(record)} is not yours", cause, "dim models ls --mine")
        return record


def _kept(said: Manifest) -> dict[str, Any]:
    """What an update takes over from the version before it."""
    plain = ("version", "licence", "origin", "summary", "access", "architecture", "dtype", "quantisation")
    found: dict[str, Any] = {key: getattr(said, key) for key in (*plain, "memory_bytes", "max_batch")}
    found |= {"labels": list(said.labels), "columns": list(said.columns), "pre": [dict(step) for step in said.pre]}
    found |= {"post": [dict(step) for step in said.post]}
    found |= {key: [[n, d, list(s)] for n, d, s in getattr(said, key)] for key in ("inputs", "outputs")}
    found |= {"lineage": [[relation, cid_text(identity)] for relation, identity in said.lineage]}
    if said.price is not None:
        found["price"] = said.price._asdict()
    if said.text is not None:
        found |= {"tokenizer": said.text.tokenizer, "max_tokens": said.text.max_tokens}
    return found


def _grant_map(grant: Record) -> Answer:
    said = grant.payload
    return {
        "peer": peer_text(said["peer"]),
        "operations": list(said["operations"]),
        "expires_ms": said.get("expires_ms"),
        "terms": said.get("terms", ""),
    }


def _why(access: Any, said: Manifest, me: PeerId) -> str:
    if not access.allowed:
        return str(access.cause)
    if said.by == me:
        return "this node is its publisher"
    if access.grant is None:
        return "it is public"
    until = access.grant.payload.get("expires_ms")
    return "by a grant of its publisher" + (f" until {_moment(until)}" if until else "")


def _replacement(registry: Registry, gone: Record | None) -> str:
    """What to take instead of a withdrawn model: its name where it was heard, else its id; "" when nothing is said."""
    if gone is None or (newer := gone.payload.get("replacement")) is None:
        return ""
    record = registry.manifests.get(newer)
    return title_of(record) if record else cid_text(newer)


def _moment(at_ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(at_ms / 1000))
