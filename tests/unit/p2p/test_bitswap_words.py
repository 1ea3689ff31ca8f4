"""Messages of bitswap: as others write and read them, and nothing beyond the bounds."""

import hashlib
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from libp2p.bitswap.pb import bitswap_pb2

from dimnode.errors import PeerFault
from dimnode.limits import LIMITS
from dimnode.p2p.bitswap_words import Want, length_in, pack_answer, pack_wants, read_message
from dimnode.records.ids import BLOB_PREFIX, TREE_PREFIX, Cid, blob_cid
from dimnode.records.varint import varint

BOUNDS = LIMITS.bitswap
OTHER_CID = bytes.fromhex("1220") + bytes(32)


def body_of(message: bytes) -> memoryview:
    """Without the length, which must be that of the rest."""
    at = 1
    while (length := length_in(message[:at], 2**27)) is None:
        at += 1
    assert length == len(message) - at
    return memoryview(message)[at:]


def cid(number: int) -> Cid:
    return blob_cid(number.to_bytes(4, "big"))


WANTS = [
    Want(cid(1)),
    Want(cid(2), have=True),
    Want(cid(3), say_no=False),
    Want(cid(4), cancel=True),
    Want(OTHER_CID, have=True, say_no=False),
]


def test_wants_come_back_as_they_were_written() -> None:
    found = read_message(body_of(pack_wants(WANTS, full=True)))
    assert (found.wants, found.full) == (WANTS, True)
    assert not read_message(body_of(pack_wants(WANTS))).full


def test_another_implementation_reads_our_wants() -> None:
    theirs = bitswap_pb2.Message.FromString(bytes(body_of(pack_wants(WANTS, full=True))))
    assert theirs.wantlist.full
    said = [(each.block, each.wantType, each.sendDontHave, each.cancel) for each in theirs.wantlist.entries]
    assert said == [(each.cid, int(each.have), each.say_no, each.cancel) for each in WANTS]


def test_another_implementation_reads_our_answers() -> None:
    blocks = [(cid(1), (1).to_bytes(4, "big")), (Cid(TREE_PREFIX + hashlib.sha256(b"node").digest()), b"node")]
    presences = [(bytes(cid(7)), True), (OTHER_CID, False)]
    theirs = bitswap_pb2.Message.FromString(bytes(body_of(b"".join(pack_answer(blocks, presences)))))
    assert [(each.prefix, each.data) for each in theirs.payload] == [(c[:4], content) for c, content in blocks]
    assert [(each.cid, each.type == 0) for each in theirs.blockPresences] == presences


def test_we_read_what_another_implementation_writes() -> None:
    theirs = bitswap_pb2.Message(pendingBytes=77)
    theirs.wantlist.entries.add(block=cid(1), priority=5, wantType=1, sendDontHave=True)
    theirs.payload.add(prefix=BLOB_PREFIX, data=b"content")
    theirs.blockPresences.add(cid=cid(2), type=1)
    theirs.blocks.append(b"of version 1.0")
    found = read_message(memoryview(theirs.SerializeToString()))
    assert found.wants == [Want(cid(1), have=True)]
    assert [(name, bytes(content)) for name, content in found.blocks] == [(blob_cid(b"content"), b"content")]
    assert found.presences == [(cid(2), False)]


def test_a_block_is_named_by_its_own_bytes() -> None:
    [(name, _)] = read_message(body_of(b"".join(pack_answer([(cid(1), b"other bytes")], [])))).blocks
    assert name == blob_cid(b"other bytes")


def test_a_block_of_another_kind_is_a_fault() -> None:
    theirs = bitswap_pb2.Message()
    theirs.payload.add(prefix=bytes.fromhex("01551b20"), data=b"sha3")
    with pytest.raises(PeerFault, match="kind"):
        read_message(memoryview(theirs.SerializeToString()))


def test_a_block_beyond_two_mebibytes_is_a_fault() -> None:
    fits, over = bytes(BOUNDS.block_bytes_max), bytes(BOUNDS.block_bytes_max + 1)
    assert len(read_message(body_of(b"".join(pack_answer([(cid(1), fits)], [])))).blocks) == 1
    with pytest.raises(PeerFault, match="too large"):
        read_message(body_of(b"".join(pack_answer([(cid(1), over)], []))))


def test_a_giant_wantlist_is_too_long() -> None:
    few = replace(BOUNDS, entries_max=100)
    assert len(read_message(body_of(pack_wants(Want(cid(n)) for n in range(100))), few).wants) == 100
    with pytest.raises(PeerFault, match="too long"):
        read_message(body_of(pack_wants(Want(cid(n)) for n in range(101))), few)
    with pytest.raises(PeerFault, match="too long"):
        read_message(memoryview(b"\x30\x00" * 100_000))  # fields that nobody knows


def test_a_length_beyond_the_bound_is_refused_before_anything_is_kept() -> None:
    assert length_in(varint(1000), 1000) == 1000
    assert length_in(b"\x80", 1000) is None
    for length in (1001, 2**31, 2**62):
        with pytest.raises(PeerFault, match="too long"):
            length_in(varint(length)[:4], 1000)


@pytest.mark.parametrize("said", [b"\x0a", b"\x0a\x05ab", b"\x0a\x02\x0a\x00", b"\x08\x01", b"\x0b", b"\xff" * 12])
def test_a_malformed_message_is_a_fault(said: bytes) -> None:
    with pytest.raises(PeerFault):
        read_message(memoryview(said))


@given(st.binary(max_size=300), st.integers(0, 2**32))
def test_whatever_comes_is_read_or_a_fault(said: bytes, seed: int) -> None:
    chance, true = random.Random(seed), bytearray(body_of(pack_wants(WANTS)))
    for _ in range(3):
        true[chance.randrange(len(true))] = chance.randrange(256)
    for raw in (said, bytes(true)):
        try:
            read_message(memoryview(raw))
        except PeerFault:
            pass
