"""The memory that node and worker share: what goes in comes out, room is used again, a hostile worker gains nothing."""

import ctypes
import errno
import mmap
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from dimnode.exec import arena as module
from dimnode.exec.arena import ALIGNMENT_BYTES, APART_BYTES_MIN, PIECE_BYTES, Arena, numbers_start, open_arena
from dimnode.exec.mapping import as_array, open_blobs
from dimnode.exec.shared_arena import SharedArena
from dimnode.posix import memory
from dimnode.records.tensors import Tensor, encode_tensors

KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE, F_ADD_SEALS, F_SEAL_SEAL = 1, 2, 16, 1033, 1
LARGE = 8 * 1024**2


def sealable() -> bool:
    try:
        descriptor, _ = memory.written_here_alone(4096)
    except OSError:
        return False
    os.close(descriptor)
    return True


sealed_only = pytest.mark.skipif(not sealable(), reason="this system cannot seal memory for later writes")


def blob(count: int) -> bytes:
    return encode_tensors([Tensor("x", "float32", (count,), np.arange(count, dtype=np.float32).tobytes())])


def none_here(size_bytes: int) -> Any:
    raise OSError(errno.EINVAL, "an older kernel")


@pytest.fixture(params=[pytest.param("sealed", marks=sealed_only), "as elsewhere"])
def arena(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Arena]:
    if request.param != "sealed":
        monkeypatch.setattr(memory, "written_here_alone", none_here)
    found = open_arena(str(tmp_path), 64 * 1024, 32 * 1024)
    yield found
    found.close()


@pytest.fixture
def large(tmp_path: Path) -> Iterator[Arena]:
    found = open_arena(str(tmp_path), 2 * LARGE, 4096)
    yield found
    found.close()


def their_side(arena: Arena) -> SharedArena:
    return SharedArena(os.dup(arena.inputs), os.dup(arena.output), arena.input_bytes, arena.output_bytes)


def put(arena: Arena, *blobs: bytes) -> list[tuple[int, int]]:
    places = arena.reserve(blobs)
    assert places is not None
    trio.run(arena.fill, blobs, places)
    return places


def test_inputs_are_read_where_they_lie_and_answers_come_out_as_copies(arena: Arena) -> None:
    shared = their_side(arena)
    entry = blob(1000)
    (place,) = put(arena, entry)
    view = shared.view(*place)
    assert view == entry
    (opened,) = open_blobs([view])
    values = as_array(opened["x"])
    assert values.flags.aligned
    assert not values.flags.writeable
    assert values.tolist() == list(range(1000))
    assert (place[0] + numbers_start(entry)) % ALIGNMENT_BYTES == 0
    length = shared.put(b"answer" * 100)
    assert arena.read_output(length) == b"answer" * 100


@pytest.mark.parametrize("sealed", [pytest.param(True, marks=sealed_only), False])
def test_blobs_of_all_sizes_arrive_whole(sealed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not sealed:
        monkeypatch.setattr(memory, "written_here_alone", none_here)
    arena = open_arena(str(tmp_path), 32 * 1024**2, 4096)
    assert (arena._mapped is not None) is sealed
    shared = their_side(arena)
    for sizes in ((1, 2, 3), (PIECE_BYTES, PIECE_BYTES + 1), (APART_BYTES_MIN - 1, 7, APART_BYTES_MIN + 1), (LARGE,)):
        blobs = tuple(os.urandom(size) for size in sizes)
        places = put(arena, *blobs)
        assert [bytes(shared.view(*place)) for place in places] == list(blobs)
        arena.release()
    arena.close()


def test_what_a_worker_says_of_its_answer_is_checked(arena: Arena) -> None:
    assert arena.read_output(0) is None
    assert arena.read_output(-1) is None
    assert arena.read_output(32 * 1024 + 1) is None
    assert arena.read_output(32 * 1024) == bytes(32 * 1024)


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="no sealed memory on this system")
def test_a_worker_can_neither_cut_it_off_nor_make_it_grow(arena: Arena) -> None:
    for descriptor in (arena.inputs, arena.output):
        for size in (0, 4096, 10**9):
            with pytest.raises(PermissionError):
                os.ftruncate(descriptor, size)


def call(name: str, *arguments: object) -> None:
    """What Python has no name for. Raises OSError."""
    library = ctypes.CDLL(None, use_errno=True)
    if getattr(library, name)(*arguments) != 0:
        raise OSError(ctypes.get_errno(), name)


def attacks(theirs: int, size: int) -> dict[str, Callable[[], object]]:
    """By name. Whatever does not raise has worked."""
    mapping = mmap.mmap(theirs, size, access=mmap.ACCESS_READ)
    address = ctypes.c_void_p(np.frombuffer(mapping, np.uint8).ctypes.data)
    offset, length = ctypes.c_long(0), ctypes.c_long(size)

    def again(flags: int, attack: Callable[[int], object]) -> None:
        opened = os.open(f"/proc/self/fd/{theirs}", flags)
        try:
            attack(opened)
        finally:
            os.close(opened)

    def copy_in() -> None:
        with open(__file__, "rb") as file:
            os.sendfile(theirs, file.fileno(), 0, 4)

    return {
        "map it to write": lambda: mmap.mmap(theirs, size),
        "make a mapping one to write": lambda: call("mprotect", address, length, mmap.PROT_READ | mmap.PROT_WRITE),
        "write": lambda: os.pwrite(theirs, b"evil", 0),
        "cut it off": lambda: os.ftruncate(theirs, 0),
        "make it grow": lambda: os.ftruncate(theirs, 2 * size),
        "punch a hole": lambda: call("fallocate", theirs, KEEP_SIZE | PUNCH_HOLE, offset, length),
        "make zeros of it": lambda: call("fallocate", theirs, ZERO_RANGE, offset, length),
        "remove pages through a mapping": lambda: mapping.madvise(mmap.MADV_REMOVE),
        "seal it further": lambda: call("fcntl", theirs, F_ADD_SEALS, F_SEAL_SEAL),
        "open it again and write": lambda: again(os.O_RDWR, lambda opened: os.pwrite(opened, b"evil", 0)),
        "open it again and map it to write": lambda: again(os.O_RDWR, lambda opened: mmap.mmap(opened, size)),
        "open it again and cut it off": lambda: again(os.O_RDWR | os.O_TRUNC, lambda opened: None),
        "have a file's bytes copied in": copy_in,
    }


@sealed_only
def test_a_worker_can_neither_change_its_inputs_nor_take_their_memory_away(large: Arena) -> None:
    entry = os.urandom(LARGE)
    put(large, entry)
    held = os.fstat(large.inputs).st_blocks
    theirs, worked = os.dup(large.inputs), []
    for name, attack in attacks(theirs, large.input_bytes).items():
        with suppress(OSError):
            attack()
            worked.append(name)
    assert not worked
    os.close(theirs)
    assert os.fstat(large.inputs).st_blocks == held
    large.release()
    (place,) = put(large, entry[::-1])
    assert their_side(large).view(*place) == entry[::-1]


def test_a_worker_that_writes_while_the_node_reads_changes_no_copy(arena: Arena) -> None:
    mapping = mmap.mmap(arena.output, 32 * 1024)
    mapping[:4] = b"good"
    copy = arena.read_output(4)
    mapping[:4] = b"evil"
    assert copy == b"good"


@sealed_only
def test_a_small_order_does_not_pay_for_a_large_one_and_no_page_is_paid_for_twice(
    large: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []
    stock = memory.allocate
    monkeypatch.setattr(memory, "allocate", lambda _, *part: asked.append(part) or stock(large.inputs, *part))
    put(large, bytes(1000))
    assert os.fstat(large.inputs).st_blocks * 512 == PIECE_BYTES
    large.release()
    for _ in range(2):
        put(large, bytes(LARGE))
        large.release()
    assert asked == [(start, PIECE_BYTES) for start in range(0, LARGE, PIECE_BYTES)]


@sealed_only
def test_a_machine_without_memory_is_an_error_and_no_page_is_touched(
    large: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "no memory left")

    monkeypatch.setattr(memory, "allocate", full)
    for size in (1000, LARGE):
        with pytest.raises(OSError, match="no memory left"):
            put(large, bytes(size))
        large.release()
    assert os.fstat(large.inputs).st_blocks == 0


class Hands:
    """Threads that copy when they are told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._stock, self._may = np.copyto, threading.Event()
        self._at_it, self._all = 0, trio.Event()
        monkeypatch.setattr(module.np, "copyto", self._copy)

    def _copy(self, target: Any, source: Any) -> None:
        trio.from_thread.run_sync(self._began)
        assert self._may.wait(60)
        self._stock(target, source)

    def _began(self) -> None:
        self._at_it += 1
        if self._at_it == module.THREADS:
            self._all.set()

    async def all_at_it(self) -> None:
        with trio.fail_after(60):
            await self._all.wait()

    def go_on(self) -> None:
        self._may.set()


def mappings_to_write() -> int:
    return sum("rw-s" in line and "dim-tensors" in line for line in Path("/proc/self/maps").read_text().splitlines())


@sealed_only
def test_memory_that_is_let_go_stays_until_the_threads_that_write_to_it_are_done(
    large: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    hands, entry = Hands(monkeypatch), os.urandom(LARGE)
    shared, before = their_side(large), mappings_to_write()
    places = large.reserve((entry,))
    assert places is not None

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(large.fill, (entry,), places)
            await hands.all_at_it()
            large.close()
            assert mappings_to_write() == before
            hands.go_on()

    trio.run(main)
    assert shared.view(*places[0]) == entry
    assert mappings_to_write() == before - 1


@sealed_only
def test_a_cancel_waits_for_the_threads_that_write(large: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    hands, entry = Hands(monkeypatch), os.urandom(LARGE)
    places = large.reserve((entry,))
    assert places is not None
    ended = trio.Event()

    async def fill() -> None:
        try:
            await large.fill((entry,), places)
        finally:
            ended.set()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fill)
            await hands.all_at_it()
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await trio.testing.wait_all_tasks_blocked()
                assert not ended.is_set()
            hands.go_on()

    trio.run(main)
    assert their_side(large).view(*places[0]) == entry


@sealed_only
def test_a_system_without_a_thread_left_copies_all_the_same(large: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    async def none_left(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(trio.to_thread, "run_sync", none_left)
    entry = os.urandom(LARGE)
    (place,) = put(large, entry)
    assert their_side(large).view(*place) == entry


def test_one_that_is_closed_while_it_is_filled_is_written_to_no_more(arena: Arena) -> None:
    places = arena.reserve((bytes(10), bytes(10)))
    assert places is not None
    arena.close()
    trio.run(arena.fill, (bytes(10), bytes(10)), places)


@given(st.lists(st.integers(1, 9000), max_size=60), st.randoms(use_true_random=False))
def test_reservations_never_overlap_and_all_room_comes_back(sizes: list[int], random: object) -> None:
    ring = Arena(32 * 1024, 0)
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
