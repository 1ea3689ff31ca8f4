"""Inside a worker: raise the walls, load one model, answer orders until the node hangs up.

Rule: one order after the other, one answer per order, sent as soon as it is computed, so that the node always knows
which order runs (and whom to blame when this process dies). Holds one model for life. Imports nothing of the network.

Frames down: ["load", model or nil, descriptors, sizes or nil] once, with the model's open files and the two
descriptors of the arena, if there is one; then [number, op, blobs or their
lengths, take, rows, timeout_ms, descriptors], where op "batch" has the blobs of several orders, numbered on from
number. Up: [0, "ready", layers, traits] once, then for each order [number, status, code, message, output, run_us,
cpu_us, rss_bytes, rows, batch].
"""

import hashlib
import io
import mmap
import os
import socket
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

from dimnode.errors import RunFailed
from dimnode.exec import operations, orders, sandbox
from dimnode.exec.birth import Birth, birth_from
from dimnode.exec.channel import BrokenFrame, FrameBuffer, pack_frame, receive_with_descriptors, unpack_body
from dimnode.exec.operations import Outcome
from dimnode.exec.orders import Condition, Rows, Take
from dimnode.exec.runtimes.base import Content, Model, Runtime
from dimnode.exec.sandbox import Walls
from dimnode.exec.shared_arena import SharedArena
from dimnode.exec.together import Part, Trust, infer_together
from dimnode.exec.transforms.program import Program, compile_program
from dimnode.limits import ExecLimits
from dimnode.posix import processes
from dimnode.posix.files import pread
from dimnode.posix.walls import arm_cpu_limit
from dimnode.records.ids import BLOB_PREFIX, TREE_PREFIX
from dimnode.records.transforms import files_of
from dimnode.records.unixfs import root_of

HASH_CHUNK_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Post:
    """What a worker is born with: its socket, the one runtime that it has, its walls.

    `memory_bytes`: what it may use beyond what the runtime's libraries occupy.
    """

    channel: socket.socket
    runtime: Runtime
    walls: Walls
    memory_bytes: int
    sandbox_required: bool
    limits: ExecLimits


def serve(post: Post, seccomp_filter: Any) -> None:
    """Work until end of stream. The caller ends the process afterwards, whatever happens in here."""
    processes.offer_to_the_oom_killer()
    layers = sandbox.install(post.walls, seccomp_filter, post.runtime.settle)
    report = sandbox.describe(layers)
    if post.sandbox_required and not sandbox.complete(layers):
        post.channel.sendall(pack_frame([0, "refused", report]))
        return
    _Worker(post).work(report)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model, and what its manifest declares before and after it."""

    model: Model
    program: Program | None


def _load(post: Post, birth: Birth | None, files: list[int]) -> Loaded | RunFailed | MemoryError | None:
    """The model, or why there is none: then every order gets that as its answer."""
    if birth is None:
        return None
    try:
        contents, facts = _checked_contents(post.limits, birth, files), birth.facts
        # A runtime is not shown what only the transforms read: files it does not know it may refuse.
        theirs = files_of(facts.pre, facts.post)
        model = post.runtime.load({path: file for path, file in contents.items() if path not in theirs}, facts)
        texts = {path: bytes(contents[path].raw) for path in theirs if path in contents}
        lists = (facts.pre, facts.post)
        return Loaded(model, compile_program(*lists, model.inputs, model.outputs, texts, facts.labels, facts.max_batch))
    except (RunFailed, MemoryError) as fault:
        return fault
    finally:
        for file in files:
            os.close(file)


def _checked_contents(limits: ExecLimits, birth: Birth, files: list[int]) -> dict[str, Content]:
    """All files mapped, each with the id that the order names: nothing is parsed before all were hashed.

    What is hashed is what a runtime sees: the store's files are read-only, and nobody but their owner can change them.
    """
    sizes = [os.fstat(file).st_size for file in files]
    if sum(sizes) > limits.model_bytes_max:
        what = f"the model's files have {sum(sizes)} bytes, the limit is {limits.model_bytes_max}"
        raise RunFailed(orders.NO_MODEL, what)
    found = {}
    for (path, role, cid), file in zip(birth.files, files, strict=True):
        raw = memoryview(mmap.mmap(file, 0, access=mmap.ACCESS_READ) if os.fstat(file).st_size else b"")
        _check(path, raw, cid)
        found[path] = Content(role, raw)
    return found


def _check(path: str, raw: memoryview, cid: bytes) -> None:
    """Manifests from before trees name large files, too, by the hash of all their bytes."""
    if cid.startswith(TREE_PREFIX):
        if root_of(raw) != cid:
            raise RunFailed(orders.WRONG_HASH, f"the model's file {path} does not have the root of its manifest")
        return
    found, wanted = hashlib.sha256(raw).hexdigest(), cid[len(BLOB_PREFIX) :].hex()
    if not cid.startswith(BLOB_PREFIX) or found != wanted:
        raise RunFailed(orders.WRONG_HASH, f"the model's file {path} has sha256 {found[:16]}…, not {wanted[:16]}…")


class _Worker:
    def __init__(self, post: Post) -> None:
        self._post = post
        self._limits = post.limits
        self._model: Loaded | RunFailed | MemoryError | None = None
        self._cpu_allowed_ns = 0
        self._trust = Trust()
        self._arena: SharedArena | None = None
        self._given = self._taken = 0

    def work(self, report: str) -> None:
        """Load what the first frame says, then read, compute, answer; returns at the end of the stream."""
        channel = self._post.channel
        frames = FrameBuffer(self._limits.input_bytes_max + HASH_CHUNK_BYTES)
        descriptors: deque[int] = deque()
        born = False
        while True:
            chunk, found = receive_with_descriptors(channel)
            if not chunk:
                return
            descriptors.extend(found)
            for body in frames.feed(chunk):
                request = unpack_body(body)
                if born:
                    channel.sendall(self._answer(request, descriptors))
                else:
                    born = True
                    channel.sendall(self._be_born(request, descriptors, report))

    def _be_born(self, request: list[Any], descriptors: deque[int], report: str) -> bytes:
        match request:
            case ["load", packed, int(owned), sizes]:
                files = [descriptors.popleft() for _ in range(owned)]
                if sizes is not None:
                    self._arena = SharedArena(descriptors.popleft(), descriptors.popleft(), *sizes)
                self._model = _load(self._post, birth_from(packed) if packed is not None else None, files)
            case _:
                raise BrokenFrame("not a birth")
        traits = self._model.model.traits() if isinstance(self._model, Loaded) else {}
        return pack_frame([0, "ready", report, traits])

    def _answer(self, request: list[Any], descriptors: deque[int]) -> bytes:
        number, op, blobs, take, rows, timeout_ms, owned, self._taken = request
        files = [descriptors.popleft() for _ in range(owned)]
        started_ns, cpu_ns = time.perf_counter_ns(), time.process_time_ns()
        self._arm(cpu_ns, timeout_ms)
        try:
            if op == "batch":
                parts = self._perform_together(blobs, take)
            else:
                parts = [self._perform(op, blobs, take, rows, files)]
        except (RunFailed, MemoryError) as fault:
            parts = [fault] * (len(blobs) if op == "batch" else 1)
        finally:
            for file in files:
                os.close(file)
        run_us = (time.perf_counter_ns() - started_ns) // 1000
        cpu_us = (time.process_time_ns() - cpu_ns) // 1000
        share = len(parts)
        return b"".join(
            self._answer_frame(number + place, part, run_us // share, cpu_us // share)
            for place, part in enumerate(parts)
        )

    def _answer_frame(self, number: int, part: Part, run_us: int, cpu_us: int) -> bytes:
        """One answer; of a batch each order gets its share of the time."""
        status, code, message, outcome = "ok", "", "", Outcome(b"", 0, 1)
        match part:
            case Outcome():
                outcome = part
            case RunFailed():
                status, code, message = "failed", part.complaint.code, part.complaint.what
            case MemoryError():
                status, code = "memory", orders.OUT_OF_MEMORY
                message = f"needs more than the {self._post.memory_bytes} bytes a worker may use"
        rss = processes.peak_memory_bytes()
        message = message[: self._limits.message_characters_max]
        output = self._put(outcome.output)
        return pack_frame([number, status, code, message, output, run_us, cpu_us, rss, outcome.rows, outcome.batch])

    def _put(self, output: bytes) -> bytes | int:
        """A large answer goes into the arena, when the last one was taken out of it: then its length is the answer."""
        small = len(output) <= self._limits.inline_input_bytes_max
        if self._arena is None or small or self._given != self._taken:
            return output
        self._given += 1
        return self._arena.put(output)

    def _content(self, blobs: list[Any], files: list[int]) -> tuple[bytes | memoryview, ...]:
        """The inputs: in the frame, in a file, or where they lie in the arena."""
        if files:
            return _from_file(files[0], blobs)
        if self._arena is None:
            return tuple(blobs)
        return tuple(blob if isinstance(blob, bytes) else self._arena.view(*blob) for blob in blobs)

    def _perform_together(self, inputs: list[list[bytes]], take: list[Any]) -> list[Part]:
        if isinstance(self._model, Exception):
            raise self._model.with_traceback(None)
        chosen = tuple(Take(*entry) for entry in take)
        blobs = [tuple(entry) for entry in inputs]
        loaded = self._need_model()
        return infer_together(loaded.model, loaded.program, chosen, blobs, self._trust, self._limits)

    def _perform(self, op: str, blobs: list[Any], take: list[Any], rows: Any, files: list[int]) -> Outcome:
        limits = self._limits
        if isinstance(self._model, Exception):
            # Without its old traceback, which would grow with every order.
            raise self._model.with_traceback(None)
        if op == "load":
            self._need_model()
            return Outcome(b"", 0, 1)
        if op == "measure":
            content = self._content(blobs, files)
            return operations.measure(self._need_model().model, content, limits)
        if op == "infer":
            content = self._content(blobs, files)
            loaded = self._need_model()
            chosen = tuple(Take(*entry) for entry in take)
            return operations.infer(loaded.model, chosen, content, limits, loaded.program)
        wanted, stream = _open_rows(rows, files, limits)
        with stream:
            match op:
                case "evaluate":
                    loaded = self._need_model()
                    return operations.evaluate(loaded.model, wanted, stream, limits, loaded.program)
                case "statistics":
                    return operations.statistics(wanted, stream, limits)
                case "cohort":
                    return operations.cohort(wanted, stream, limits)
        raise RunFailed(orders.BAD_ORDER, f"unknown operation {op!r}")

    def _need_model(self) -> Loaded:
        if not isinstance(self._model, Loaded):
            raise RunFailed(orders.NO_MODEL, "the order names no model")
        return self._model

    def _arm(self, cpu_ns: int, timeout_ms: int) -> None:
        """Keep the CPU limit ahead of what this order may use; most orders find it far enough ahead already."""
        needed_ns = cpu_ns + timeout_ms * 1_000_000
        if needed_ns > self._cpu_allowed_ns:
            arm_cpu_limit(2 * timeout_ms / 1000)
            self._cpu_allowed_ns = cpu_ns + 2 * timeout_ms * 1_000_000


def _from_file(file: int, lengths: list[int]) -> tuple[bytes, ...]:
    """Large blobs lie one behind the other in a file without a name."""
    offset, blobs = 0, []
    for length in lengths:
        blobs.append(pread(file, length, offset))
        offset += length
    return tuple(blobs)


def _open_rows(rows: Any, files: list[int], limits: ExecLimits) -> tuple[Rows, io.TextIOBase]:
    if rows is None or not files:
        raise RunFailed(orders.NO_ROWS_FILE, "the order names no rows")
    label, exclude, where = rows
    wanted = Rows("", label, tuple(exclude), tuple(Condition(*entry) for entry in where))
    size = os.fstat(files[0]).st_size
    if size > limits.rows_file_bytes_max:
        raise RunFailed(
            orders.BAD_ROWS_FILE, f"the rows file has {size} bytes, the limit is {limits.rows_file_bytes_max}"
        )
    return wanted, open(files[0], encoding="utf-8-sig", newline="", closefd=False)
