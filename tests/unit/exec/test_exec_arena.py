"""The memory that node and worker share: what goes in comes out, room is used again, a hostile worker gains nothing."""

import mmap
import os
from collections import deque

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dimnode.exec.arena import ALIGNMENT_BYTES, Arena, SharedArena, numbers_start, open_arena
from dimnode.exec.mapping import as_array, open_blobs
from dimnode.records.tensors import Tensor, encode_tensors


def blob(count: int) -> bytes:
    return encode_tensors([Tensor("x", "float32", (count,), np.arange(count, dtype=np.float32).tobytes())])


@pytest.fixture
def arena(tmp_path):
    found = Arena(open_arena(str(tmp_path), 96 * 1024), 64 * 1024, 32 * 1024)
    yield found
    found.close()


def test_inputs_are_read_where_they_lie_and_answers_come_out_as_copies(arena: Arena) -> None:
    shared = SharedArena(os.dup(arena.descriptor), arena.input_bytes, arena.output_bytes)
    entry = blob(1000)
    places = arena.reserve((entry,))
    assert places is not None
    arena.write(places[0][0], memoryview(entry))
    view = shared.view(*places[0])
    assert view == entry
    (opened,) = open_blobs([view])
    values = as_array(opened["x"])
    assert values.flags.aligned
    assert not values.flags.writeable
    assert values.tolist() == list(range(1000))
    assert (places[0][0] + numbers_start(entry)) % ALIGNMENT_BYTES == 0
    length = shared.put(b"answer" * 100)
    assert arena.read_output(length) == b"answer" * 100


def test_what_a_worker_says_of_its_answer_is_checked(arena: Arena) -> None:
    assert arena.read_output(0) is None
    assert arena.read_output(-1) is None
    assert arena.read_output(32 * 1024 + 1) is None
    assert arena.read_output(32 * 1024) == bytes(32 * 1024)


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="no sealed memory on this system")
def test_a_worker_can_neither_cut_it_off_nor_make_it_grow(arena: Arena) -> None:
    theirs = os.dup(arena.descriptor)
    for size in (0, 4096, 10**9):
        with pytest.raises(PermissionError):
            os.ftruncate(theirs, size)
    os.close(theirs)


def test_a_worker_that_writes_while_the_node_reads_changes_no_copy(arena: Arena) -> None:
    mapping = mmap.mmap(arena.descriptor, 96 * 1024)
    mapping[64 * 1024 : 64 * 1024 + 4] = b"good"
    copy = arena.read_output(4)
    mapping[64 * 1024 : 64 * 1024 + 4] = b"evil"
    assert copy == b"good"


@given(st.lists(st.integers(1, 9000), max_size=60), st.randoms(use_true_random=False))
def test_reservations_never_overlap_and_all_room_comes_back(sizes: list[int], random: object) -> None:
    ring = Arena(-1, 32 * 1024, 0)
    live: deque[tuple[int, int]] = deque()
    for size in sizes:
        entry = bytes(size)
        found = ring.reserve((entry,))
        if found is None:
            assert live or size + 2 * ALIGNMENT_BYTES > 32 * 1024
            while live:
                live.popleft()
                ring.release()
            continue
        ((offset, length),) = found
        assert offset >= 0
        assert offset + length <= 32 * 1024
        for other, there in live:
            assert offset + length <= other or other + there <= offset, "overlap"
        live.append((offset, length))
        if random.random() < 0.5:  # type: ignore[attr-defined]
            live.popleft()
            ring.release()
    while live:
        live.popleft()
        ring.release()
    assert ring.reserve((bytes(1000),)) == [(0, 1000)], "an empty ring begins at its start again"
