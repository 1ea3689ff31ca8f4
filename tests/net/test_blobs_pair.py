"""Blobs between two real hosts: only what was granted, only the right bytes, only within bounds."""

import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio
from link_stage import SEEDS, run

from dimnode.errors import PeerFault, Refused
from dimnode.limits import LIMITS
from dimnode.p2p import blobs, introduction
from dimnode.p2p.blobs import BLOB, Grants, fetch_blob, serve_blobs
from dimnode.p2p.host.host import open_host
from dimnode.p2p.host.streams import DialFailed, StreamEnded, StreamLost
from dimnode.p2p.introduction import INFO, fetch_introduction, one_frame, serve_info
from dimnode.records.envelope import SigningKey, seal
from dimnode.records.ids import Cid, PeerId, blob_cid
from dimnode.records.kinds import OPEN_SWARM_ID, compose
from dimnode.wire import END, pack_frame, unpack_body

pytestmark = pytest.mark.slow
KEYS = [SigningKey.from_seed(seed) for seed in SEEDS]
CONTENT = bytes(range(256)) * 4096 * 3 + b"end"  # three megabytes, several chunks
CID = blob_cid(CONTENT)


@asynccontextmanager
async def asking(handlers) -> AsyncIterator[tuple]:
    """A host that asks, connected to one with these handlers."""
    listen = ["/ip4/127.0.0.1/tcp/0"]
    async with open_host(SEEDS[0], listen, {}, dht=False) as a, open_host(SEEDS[1], listen, handlers, dht=False) as b:
        await a.connect(b.addresses()[0])
        yield a, PeerId(b.peer)


def fetched_from(handler, cid: Cid = CID):
    """What a fetch gives, or the fault it ends with."""
    found = []

    async def scenario() -> None:
        async with asking({BLOB: handler}) as (a, peer):
            try:
                found.append(await fetch_blob(a, peer, cid))
            except (PeerFault, DialFailed, StreamLost) as error:
                found.append(error)

    run(scenario)
    return found[0]


def granted(*grants: tuple[PeerId, Cid]) -> Grants:
    made = Grants()
    for peer, cid in grants:
        made.allow(peer, cid)
    return made


def test_a_granted_blob_arrives_whole() -> None:
    assert fetched_from(serve_blobs(granted((KEYS[0].peer, CID)), {CID: CONTENT}.get)) == CONTENT


def test_an_empty_blob_arrives_too() -> None:
    cid = blob_cid(b"")
    assert fetched_from(serve_blobs(granted((KEYS[0].peer, cid)), {cid: b""}.get), cid) == b""


@pytest.mark.parametrize("grants", [(), ((KEYS[1].peer, CID),), ((KEYS[0].peer, blob_cid(b"other")),)])
def test_a_blob_that_was_not_granted_to_this_peer_is_refused(grants) -> None:
    assert str(fetched_from(serve_blobs(granted(*grants), {CID: CONTENT}.get))) == "blob: refused"


def test_absent_and_forbidden_look_the_same() -> None:
    absent = fetched_from(serve_blobs(granted((KEYS[0].peer, CID)), lambda _: None))
    forbidden = fetched_from(serve_blobs(granted(), {CID: CONTENT}.get))
    assert str(absent) == str(forbidden)


def answering(*parts: bytes, finish: bool = True):
    async def serve(stream) -> None:
        await one_frame(stream)
        for part in parts:
            await stream.write(part)
        if not finish:
            await stream.reset()

    return serve


LIES = {
    "wrong bytes": (answering(pack_frame(b"wrong"), END), "wrong bytes"),
    "part of it": (answering(pack_frame(CONTENT[:1000]), END), "wrong bytes"),
    "all but the end": (
        answering(*(pack_frame(CONTENT[at : at + 2**20]) for at in range(0, len(CONTENT), 2**20))),
        "cut",
    ),
    "nothing": (answering(), "cut"),
    "half a frame": (answering(pack_frame(CONTENT[:1000])[:500]), "cut"),
    "no bytes": (answering(pack_frame(["a list"]), END), "refused"),
    "empty chunks": (answering(pack_frame(b"") * 10_000), "refused"),
    "a frame too long": (answering((2**31).to_bytes(4, "big")), "too long"),
    "more after the end": (answering(pack_frame(CONTENT[:10]) + END + b"x"), "after the end"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_liar_is_caught(lie) -> None:
    handler, rule = LIES[lie]
    found = fetched_from(handler)
    assert isinstance(found, PeerFault)
    assert rule in found.rule


def test_a_stream_that_is_lost_is_nobodys_fault() -> None:
    """What a peer is blamed for counts against its standing, and a cable may have been pulled."""
    assert isinstance(fetched_from(answering(pack_frame(CONTENT[:1000]), finish=False)), StreamLost)


def with_limits(monkeypatch, room, **changes) -> None:
    monkeypatch.setattr(room, "LIMITS", replace(LIMITS, **changes))


def test_a_flood_is_cut_off_at_the_bound(monkeypatch) -> None:
    with_limits(monkeypatch, blobs, records=replace(LIMITS.records, tensor_blob_bytes_max=2**20))

    async def endless(stream) -> None:
        while True:
            await stream.write(pack_frame(bytes(2**16)))

    assert fetched_from(endless).rule == "blob: too large"


def test_a_server_that_never_answers_is_given_up(monkeypatch) -> None:
    with_limits(monkeypatch, blobs, peers=replace(LIMITS.peers, blob_seconds_max=0.2))

    async def silent(stream) -> None:
        await trio.sleep_forever()

    assert isinstance(fetched_from(silent), DialFailed)


def test_a_peer_without_the_protocol_is_a_failed_dial() -> None:
    async def scenario() -> None:
        async with asking({}) as (a, peer):
            with pytest.raises(DialFailed):
                await fetch_blob(a, peer, CID)

    run(scenario)


@pytest.mark.parametrize("question", [pack_frame("text"), pack_frame([1]), pack_frame(b"short"), END, b"\xff" * 8])
def test_a_wrong_question_gets_no_blob(question) -> None:
    async def scenario() -> None:
        handler = serve_blobs(granted((KEYS[0].peer, CID)), {CID: CONTENT}.get)
        async with asking({BLOB: handler}) as (a, peer):
            stream = await a.open_stream(peer, BLOB)
            await stream.write(question)
            await stream.close()
            assert await rest_of(stream) in (b"", pack_frame("refused") + END)

    run(scenario)


class Disk:
    """A public file whose reads are noted; each waits until another peer's could have come, or the file goes."""

    def __init__(self, goes_at: int = len(CONTENT)) -> None:
        self._goes_at, self._lock = goes_at, threading.Lock()
        self.in_loop = self.at_once = self.most = 0
        self._loop = threading.get_ident()

    def open(self, cid: Cid) -> blobs.PartOf | None:
        return self._part if cid == CID else None

    def _part(self, offset: int, size: int) -> bytes:
        if offset > self._goes_at:
            raise Refused("E-store-34", "it went", "")
        with self._lock:
            self.at_once += 1
            self.most = max(self.most, self.at_once)
        self.in_loop += threading.get_ident() == self._loop
        time.sleep(0.002)
        with self._lock:
            self.at_once -= 1
        return CONTENT[offset : offset + size]


def test_what_is_everybodys_is_read_by_threads_one_chunk_of_a_peer_at_a_time() -> None:
    disk, got = Disk(), list[bytes]()

    async def scenario() -> None:
        async with asking({BLOB: serve_blobs(Grants(), lambda _: None, disk.open)}) as (a, peer):

            async def fetch() -> None:
                got.append(await fetch_blob(a, peer, CID))

            async with trio.open_nursery() as nursery:
                for _ in range(4):
                    nursery.start_soon(fetch)
            with pytest.raises(PeerFault, match="refused"):
                await fetch_blob(a, peer, blob_cid(b"another"))

    run(scenario)
    assert got == [CONTENT] * 4
    assert (disk.most, disk.in_loop) == (1, 0)


def test_a_file_that_goes_while_it_is_read_is_not_taken_for_whole() -> None:
    found = fetched_from(serve_blobs(Grants(), lambda _: None, Disk(goes_at=2**20).open))
    assert isinstance(found, StreamLost)


async def rest_of(stream) -> bytes:
    got = b""
    while True:
        try:
            got += await stream.read(2**16)
        except (StreamEnded, StreamLost):
            return got


def test_the_oldest_grant_goes_first_and_a_repeated_one_is_young_again() -> None:
    grants, peer = Grants(2), KEYS[0].peer
    cids = [blob_cid(bytes([number])) for number in range(3)]
    grants.allow(peer, cids[0])
    grants.allow(peer, cids[1])
    grants.allow(peer, cids[0])
    grants.allow(peer, cids[2])
    assert [grants.allowed(peer, cid) for cid in cids] == [True, False, True]


# ---- /dim/info/1


def advert(key: SigningKey = KEYS[1], net=OPEN_SWARM_ID, models=()) -> bytes:
    body = {"models": list(models), "cabinets": [], "slots": 1, "runtimes": [], "sandbox": "", "agent": ""}
    _, payload = compose("advert", {"net": net, "by": key.peer, "at_ms": 1}, body | {"addresses": []})
    return seal(key, "advert", payload)


def manifest(key: SigningKey = KEYS[0]):
    body = {"name": "iris", "version": "1", "format": "onnx", "files": [["m", CID, 1]], "inputs": [], "outputs": []}
    body |= {"labels": [], "licence": "", "origin": "trained", "access": "public"}
    identity, payload = compose("manifest", {"net": OPEN_SWARM_ID, "by": key.peer, "at_ms": 1}, body)
    return identity, seal(key, "manifest", payload)


def introduced(*envelopes: bytes):
    found = []

    async def scenario() -> None:
        async with asking({INFO: serve_info(lambda: envelopes)}) as (a, peer):
            try:
                found.append(await fetch_introduction(a, peer, OPEN_SWARM_ID))
            except (PeerFault, DialFailed, StreamLost) as error:
                found.append(error)

    run(scenario)
    return found[0]


def test_a_peer_introduces_itself_with_its_advert_and_the_manifests_it_names() -> None:
    identity, envelope = manifest()
    found = introduced(advert(models=[identity]), envelope)
    assert found.advert.by == KEYS[1].peer
    assert [record.id for record in found.manifests] == [identity]


def second_manifest(key: SigningKey = KEYS[0]):
    body = {"name": "iris", "version": "2", "profile": "unixfs-v1-2025", "format": "onnx", "inputs": [], "outputs": []}
    body |= {"labels": [], "licence": "", "origin": "trained", "access": "public", "files": [["m", "model", CID, 1]]}
    identity, payload = compose("manifest", {"net": OPEN_SWARM_ID, "by": key.peer, "at_ms": 1}, body, version=2)
    return identity, seal(key, "manifest", payload, 2)


def test_a_peer_that_knows_only_the_first_word_is_asked_again_by_it() -> None:
    async def older(stream) -> None:
        if unpack_body(await one_frame(stream)) == "advert":
            await stream.write(pack_frame(advert()))
        await stream.write(END)

    async def oldest(stream) -> None:
        if unpack_body(await one_frame(stream)) != "advert":
            raise PeerFault("info: question")
        await stream.write(pack_frame(advert()) + END)

    async def scenario() -> None:
        for handler in (older, oldest):
            async with asking({INFO: handler}) as (a, peer):
                assert (await fetch_introduction(a, peer, OPEN_SWARM_ID)).advert.by == KEYS[1].peer

    run(scenario)


def test_to_the_first_word_only_records_of_the_first_version_are_told() -> None:
    (one, first), (two, second) = manifest(), second_manifest()
    told = [advert(models=[one, two]), first, second]

    async def scenario() -> None:
        async with asking({INFO: serve_info(lambda: told)}) as (a, peer):
            stream = await a.open_stream(peer, INFO)
            await stream.write(pack_frame("advert"))
            assert await rest_of(stream) == pack_frame(told[0]) + pack_frame(first) + END
            found = await fetch_introduction(a, peer, OPEN_SWARM_ID)
            assert [record.version for record in found.manifests] == [1, 2]

    run(scenario)


@pytest.mark.parametrize(
    "envelopes",
    [
        (),
        (advert(KEYS[0]),),
        (advert(net=manifest()[0]),),
        (advert(), manifest()[1]),
        (manifest()[1], advert()),
        (advert()[:-1] + b"?",),
        (advert(), advert()),
        (advert(models=[manifest()[0]]), manifest()[1][:-1] + b"?"),
        tuple([advert()] * 300),
    ],
    ids=range(9),
)
def test_a_false_introduction_is_a_fault(envelopes) -> None:
    assert isinstance(introduced(*envelopes), PeerFault)


def test_a_peer_that_says_nothing_of_itself_is_given_up(monkeypatch) -> None:
    with_limits(monkeypatch, introduction, host=replace(LIMITS.host, negotiate_seconds_max=0.2))

    async def scenario() -> None:
        async def silent(stream) -> None:
            await trio.sleep_forever()

        async with asking({INFO: silent}) as (a, peer):
            with pytest.raises(DialFailed):
                await fetch_introduction(a, peer, OPEN_SWARM_ID)

    run(scenario)
