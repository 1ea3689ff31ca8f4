"""Task frames from strangers: any bytes give an event or a fault of theirs, never an error of ours."""

import sys
from pathlib import Path

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dimnode.errors import PeerFault
from dimnode.p2p.frames import RecordFault, TaskFrame, UnknownWord, arrival, read_task_frame

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "p2p"))
from frame_stage import EXECUTOR, NET, OWNER, answer_frame, answer_of, lease_frame, lease_of, spec_of

SPEC = spec_of()
LEASE = lease_of(SPEC)
FRAMES = (lease_frame(SPEC, LEASE), answer_frame(answer_of(LEASE)), TaskFrame("ack", (SPEC.id, 0, 1)))
ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=60),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


def swallow(body: bytes) -> None:
    """As a link does: to the executor from the owner and the other way round."""
    for peer, me in ((OWNER, EXECUTOR), (EXECUTOR, OWNER)):
        try:
            arrival(read_task_frame(body), peer.peer, me.peer, NET)
        except (PeerFault, RecordFault, UnknownWord):
            pass


@given(body=st.binary(max_size=400))
def test_random_bytes_raise_nothing_but_the_peers_fault(body) -> None:
    swallow(body)


@pytest.mark.slow
@given(row=st.lists(ANYTHING, min_size=8, max_size=11))
def test_rows_of_random_values_raise_nothing_but_the_peers_fault(row) -> None:
    swallow(msgpack.packb(row))


@given(frame=st.sampled_from(FRAMES), place=st.integers(0, 9), value=ANYTHING)
def test_a_valid_frame_with_one_field_replaced_raises_nothing_but_the_peers_fault(frame, place, value) -> None:
    row = msgpack.unpackb(frame.to_bytes()[4:])
    row[place] = value
    swallow(msgpack.packb(row))


@settings(max_examples=200)
@given(frame=st.sampled_from(FRAMES[:2]), place=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_a_turned_bit_in_a_record_never_yields_an_event(frame, place, bit) -> None:
    envelope = bytearray(frame.envelopes[0])
    envelope[place % len(envelope)] ^= 1 << bit
    turned = TaskFrame(frame.what, frame.key, (bytes(envelope), *frame.envelopes[1:]), frame.openings, frame.blobs)
    peer, me = (OWNER, EXECUTOR) if frame.what == "lease" else (EXECUTOR, OWNER)
    try:
        arrival(turned, peer.peer, me.peer, NET)
    except RecordFault:
        return
    raise AssertionError("a changed record passed")
