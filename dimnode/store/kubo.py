"""An operator's Kubo daemon as a place where blobs lie: add, pin, find, name. The one adapter to it.

Rule: nothing it says is taken for true. What it hands out is hashed before it is used, and what it was given counts as
being there only when it names our root; if it made another tree of the same bytes, these are let go again.

`ipfshttpclient` for add, cat, pin, key and name; httpx for blocks and streams (`kubo_calls.py`). Both speak the RPC
that Kubo (docs.ipfs.tech/reference/kubo/rpc) and js-ipfs share.
"""

import hashlib
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import trio

from dimnode.errors import Refused
from dimnode.limits import KuboLimits
from dimnode.records.ids import BLOB_PREFIX, Cid, blob_cid, cid_text, peer_text
from dimnode.records.unixfs import LEAF_BYTES, Tree
from dimnode.store.car import car_stream, leaves_of
from dimnode.store.kubo_calls import KuboCalls, parsed, plain

Progress = Callable[[int], None]
"""Called with how many bytes were sent so far, from any thread."""

_FORM: Final = "dimnode-9f2c61d07a5e4b38"
_FORM_HEAD: Final = (
    f'--{_FORM}\r\nContent-Disposition: form-data; name="file"; filename="blob"\r\n'
    "Content-Type: application/octet-stream\r\n\r\n"
).encode()
_FORM_TAIL: Final = f"\r\n--{_FORM}--\r\n".encode()
_VERSION: Final = re.compile(r"(\d{1,4})\.(\d{1,4})\.(\d{1,4})")
_KEY_ID: Final = re.compile(r"[1-9A-Za-z]{40,80}")
_OLDEST: Final = (0, 13)
"""Older Kubos do not know `cid-codec`."""


def _no_progress(_: int) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Daemon:
    """What answers. `kind` is kubo, js-ipfs or other."""

    kind: str
    version: str


@asynccontextmanager
async def open_kubo(api: str, limits: KuboLimits, *, network: bool = False) -> AsyncIterator["Kubo"]:
    """The daemon at this address; nothing is asked of it yet. `network`: it may look for blocks among its own peers.

    Raises `ConfigError` E-kubo-01 without the packages.
    """
    calls = KuboCalls(api, limits)
    try:
        yield Kubo(calls, limits, network)
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + limits.connect_seconds_max):
            await calls.close()


class Kubo:
    """One daemon. Every method raises `Refused`: E-kubo-03 absent, 04 not one, 05 late or cut off, 08 its own no."""

    def __init__(self, calls: KuboCalls, limits: KuboLimits, network: bool) -> None:
        self._calls, self._limits = calls, limits
        self.looks_further = network
        self._daemon: Daemon | None = None
        self.url = calls.url

    async def daemon(self) -> Daemon:
        """Who answers there now. Raises `Refused` E-kubo-04 for a Kubo before 0.13, or no daemon of this kind."""
        raw = await self._ask("version", {})
        said = parsed(raw, f"at {self.url}")
        found = _VERSION.match(str(said.get("Version", "")))
        if found is None:
            what = f"what answers at {self.url} is no Kubo daemon"
            raise Refused("E-kubo-04", what, "it states no version", "check api in [kubo] of config.toml")
        kind = "kubo" if "Golang" in said else "js-ipfs" if "ipfs-core" in said else "other"
        if kind == "kubo" and (int(found[1]), int(found[2])) < _OLDEST:
            cause = f"it is version {found[0]}; {'.'.join(map(str, _OLDEST))} or newer is needed"
            raise Refused("E-kubo-04", f"the Kubo daemon at {self.url} is too old", cause, "update it")
        self._daemon = Daemon(kind, found[0])
        return self._daemon

    # ---- put in

    async def add(self, tree: Tree, path: Path, progress: Progress = _no_progress) -> None:
        """Put a whole blob there, pinned. Raises `Refused` also: 06 it made another tree of it, 12 the file is damaged.

        Up to `add_leaves_max` leaves every importer draws the same tree; beyond that widths differ, and the daemon gets
        our blocks as they are.
        """
        seconds = self._limits.send_seconds_min + tree.file_bytes / self._limits.send_bytes_per_second_min
        if tree.layout.leaves <= self._limits.add_leaves_max:
            await self._add_file(tree, path, progress, seconds)
        else:
            await self._import(tree, path, progress, seconds)
            await self.pin(tree.root)

    async def add_bytes(self, content: bytes) -> Cid:
        """The same for at most 1 MiB from memory, as the one block that it is, whatever importers would do; the CID."""
        root = blob_cid(content)
        assert len(content) <= LEAF_BYTES, "larger ones have a tree"
        await self._put_block(root, content)
        await self.pin(root)
        return root

    async def _add_file(self, tree: Tree, path: Path, progress: Progress, seconds: float) -> None:
        def feed() -> Iterator[bytes]:
            sent = 0
            with _opened(path) as file:
                for leaf in leaves_of(tree, file):
                    yield leaf
                    sent += len(leaf)
                    progress(sent)

        await self._same_root(await self._add(feed, seconds), tree.root)

    async def _add(self, feed: Callable[[], Iterator[bytes]], seconds: float) -> str:
        options = {"cid-version": "1", "raw-leaves": "true", "cid-base": "base32", "pin": "true"}
        options |= {"chunker": f"size-{LEAF_BYTES}", "max-file-links": "1024"}
        return str(
            await self._calls.library(
                "add", lambda client: client.add_bytes(feed(), opts=options), seconds=seconds, feed=True
            )
        )

    async def _same_root(self, said: str, root: Cid) -> None:
        if said in _spellings(root):
            return
        if re.fullmatch(r"[A-Za-z0-9]{46,120}", said):
            try:
                await self._calls.library(
                    "pin/rm", lambda client: client.pin.rm(said), seconds=self._limits.call_seconds_max
                )
            except Refused:
                pass  # it is of no use to anybody, and its garbage collector may know better
        cause = f"it reports {plain(said)}, and the root is {cid_text(root)}"
        hint = "its Import settings may differ from the profile unixfs-v1-2025; see docs/kubo.md"
        raise Refused("E-kubo-06", "the Kubo daemon made another tree of the same bytes; it is not used", cause, hint)

    async def _import(self, tree: Tree, path: Path, progress: Progress, seconds: float) -> None:
        async def body() -> AsyncIterator[bytes]:
            yield _FORM_HEAD
            sent = 0
            with _opened(path) as file:
                blocks = car_stream(tree, file)
                while block := await trio.to_thread.run_sync(next, blocks, b""):
                    yield block
                    sent += len(block)
                    progress(min(sent, tree.file_bytes))
            yield _FORM_TAIL

        options = {"pin-roots": "true", "allow-big-block": "false"}
        raw = await self._ask("dag/import", options, seconds=seconds, body=body(), form=_FORM)
        for line in raw.splitlines():
            said = parsed(line, "dag/import").get("Root")
            if isinstance(said, dict) and said.get("PinErrorMsg"):
                raise Refused("E-kubo-08", "the Kubo daemon did not pin it", plain(said["PinErrorMsg"]), "its log")

    async def _put_block(self, root: Cid, content: bytes) -> None:
        options = {"mhtype": "sha2-256", "pin": "false"}
        known = await self._known()
        options |= {"cid-codec": "raw"} if known.kind == "kubo" else {"format": "raw", "version": "1"}

        async def body() -> AsyncIterator[bytes]:
            for piece in (_FORM_HEAD, content, _FORM_TAIL):
                yield piece

        said = parsed(await self._ask("block/put", options, body=body(), form=_FORM), "block/put")
        if said.get("Key") not in _spellings(root):
            raise Refused("E-kubo-06", "the Kubo daemon named a block otherwise", plain(said.get("Key")), "its log")

    # ---- take out

    async def block(self, cid: Cid, bytes_max: int = LEAF_BYTES) -> bytes:
        """One block, checked. Raises `Refused` also: 09 it is not there, 07 other bytes came."""
        options = {**self._where(), "arg": cid_text(cid)}
        raw = await self._ask("block/get", options, bytes_max=bytes_max)
        return self._checked(cid, raw)

    async def cat(self, cid: Cid, size: int) -> bytes:
        """A blob of at most 1 MiB as one piece, checked. Raises like `block`."""
        options = self._where()
        raw = await self._calls.library(
            "cat",
            lambda client: client.cat(cid_text(cid), length=min(size, LEAF_BYTES) + 1, opts=options),
            seconds=self._limits.call_seconds_max,
        )
        return self._checked(cid, bytes(raw))

    async def has(self, cid: Cid) -> bool:
        """Whether the daemon has this block itself; its word only."""
        try:
            await self._ask("block/stat", {**self._local(), "arg": cid_text(cid)})
        except Refused as no:
            if no.complaint.code == "E-kubo-09":
                return False
            raise
        return True

    def _checked(self, cid: Cid, raw: bytes) -> bytes:
        if hashlib.sha256(raw).digest() == cid[len(BLOB_PREFIX) :]:
            return raw
        cause = f"{len(raw)} bytes came that do not hash to {cid_text(cid)}"
        raise Refused("E-kubo-07", "the Kubo daemon handed out wrong bytes; they were dropped", cause, "check its disk")

    # ---- pins and names

    async def pin(self, root: Cid) -> None:
        """Keep a tree that is there already."""
        await self._calls.library(
            "pin/add", lambda client: client.pin.add(cid_text(root)), seconds=self._limits.pin_seconds_max
        )

    async def unpin(self, root: Cid) -> bool:
        """Let go of it; False when it was not pinned."""
        return await self._pin_call("pin/rm", lambda client: client.pin.rm(cid_text(root)))

    async def pinned(self, root: Cid) -> bool:
        """Whether the daemon says that it keeps the whole tree."""
        return await self._pin_call("pin/ls", lambda client: client.pin.ls(cid_text(root), type="recursive"))

    async def _pin_call(self, what: str, use: Callable[[Any], Any]) -> bool:
        try:
            await self._calls.library(what, use, seconds=self._limits.call_seconds_max)
        except Refused as no:
            if no.complaint.code == "E-kubo-09":
                return False
            raise
        return True

    async def key(self, name: str) -> str:
        """The id of the daemon's key with this name, which is made when there is none."""

        def use(client: Any) -> str:
            known = {str(entry["Name"]): str(entry["Id"]) for entry in client.key.list()["Keys"]}
            return known.get(name) or str(client.key.gen(name, "ed25519")["Id"])

        return self._name(await self._calls.library("key", use, seconds=self._limits.call_seconds_max))

    async def publish(self, key: str, root: Cid, seconds_valid: int) -> str:
        """Let the IPNS name of a key point to this root; the name."""
        value = f"/ipfs/{cid_text(root)}"
        said = await self._calls.library(
            "name/publish",
            lambda client: client.name.publish(
                value, key=key, resolve=False, lifetime=f"{seconds_valid}s", allow_offline=True
            ).as_json(),
            seconds=self._limits.publish_seconds_max,
        )
        if said.get("Value") not in {f"/ipfs/{spelling}" for spelling in _spellings(root)}:
            raise Refused("E-kubo-08", "the Kubo daemon published something else", plain(said.get("Value")), "its log")
        return self._name(str(said.get("Name", "")))

    def _name(self, said: str) -> str:
        if not _KEY_ID.fullmatch(said):
            raise Refused("E-kubo-08", "the Kubo daemon gave a key no id", plain(said), "its log")
        return said

    # ---- small

    def _local(self) -> dict[str, str]:
        return {"offline": "true", "timeout": f"{self._limits.local_seconds_max:.0f}s"}

    def _where(self) -> dict[str, str]:
        return {"timeout": f"{self._limits.network_seconds_max:.0f}s"} if self.looks_further else self._local()

    async def _known(self) -> Daemon:
        return self._daemon or await self.daemon()

    async def _ask(
        self,
        path: str,
        options: dict[str, str],
        *,
        seconds: float = 0.0,
        bytes_max: int = 0,
        body: AsyncIterator[bytes] | None = None,
        form: str = "",
    ) -> bytes:
        seconds = seconds or self._limits.call_seconds_max
        bytes_max = bytes_max or self._limits.answer_bytes_max
        return await self._calls.ask(path, options, seconds=seconds, bytes_max=bytes_max, body=body, form=form)


def _spellings(root: Cid) -> tuple[str, str]:
    """Base32, and base58btc in which js-ipfs answers."""
    return cid_text(root), "z" + peer_text(root)


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise Refused("E-kubo-12", "the content here cannot be read", error.strerror or "", "dim blobs ls") from None
