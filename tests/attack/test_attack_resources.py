"""Files and frames that are small to send and would be large to read: none costs more than a moment.

Times are of this process's CPU, and generous: what they replace took minutes or gigabytes.
"""

import hashlib
import struct
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from scene import KEYS, PEERS, TRUST, Scene, floats, step

from dimnode.audit.report import Report
from dimnode.audit.verifier import verify
from dimnode.cli.results import show_output
from dimnode.client import read_output
from dimnode.consensus.recompute import labels_of, sum_counts
from dimnode.consensus.tensors import weighted_average
from dimnode.errors import PeerFault
from dimnode.exec.channel import BrokenFrame
from dimnode.exec.channel import unpack_body as unpack_worker_body
from dimnode.limits import LIMITS
from dimnode.records.codec import decode
from dimnode.records.envelope import SigningKey
from dimnode.records.ids import blob_cid
from dimnode.records.receipt import MAGIC, Opening
from dimnode.records.tensors import Tensor, decode_tensors, encode_tensors
from dimnode.wire import unpack_body

MEGABYTE = 1024 * 1024


def cost(call: Callable[[], Any], fault: type[Exception] | None = None) -> tuple[float, int]:
    """CPU seconds, and bytes at the peak beyond those before."""
    tracemalloc.start()
    before, began = tracemalloc.get_traced_memory()[0], time.process_time()
    try:
        if fault is None:
            call()
        else:
            with pytest.raises(fault):
                call()
        return time.process_time() - began, tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def lists(size_bytes: int) -> bytes:
    """An array of arrays of as many empty arrays as that takes bytes."""
    inner = b"\xdc\x0f\xff" + b"\x90" * 4095
    count = size_bytes // len(inner)
    return b"\xdc" + count.to_bytes(2, "big") + inner * count


def nested(size_bytes: int) -> bytes:
    """The same within 64 entries for each array, as tensors have."""
    found = b"\x90"
    while len(found) < size_bytes:
        found = b"\xdc\x00\x40" + found * 64
    return found


@pytest.mark.parametrize(
    ("call", "fault"),
    [
        (lambda: decode_tensors(nested(100_000)), PeerFault),
        (lambda: unpack_body(lists(MEGABYTE), LIMITS.wire.peer_frame_containers_max), PeerFault),
        (lambda: unpack_worker_body(lists(MEGABYTE)), BrokenFrame),
        (lambda: decode(lists(65_000)), PeerFault),
    ],
    ids=["tensors", "frame of a peer", "frame of a worker", "record"],
)
def test_empty_lists_do_not_become_a_hundred_times_their_size(call: Callable[[], Any], fault: type[Exception]) -> None:
    seconds, peak_bytes = cost(call, fault)
    assert seconds < 0.5
    assert peak_bytes < 4 * MEGABYTE


def test_a_shape_without_numbers_does_not_become_two_thousand_million_lists() -> None:
    for shape in ((2**31 - 1, 0), (2**31 - 1, 2**31 - 1, 0), (0, 2**31 - 1)):
        blob = encode_tensors([Tensor("label", "int64", shape, b"")])
        assert read_output(blob) == {"label": []}
        show_output(blob, ["a", "b"])


@pytest.mark.parametrize("shape", [(), (4,), (2, 3), (4, 1), (0,), (2, 2, 1)])
def test_tensors_that_only_have_the_names_of_counts_do_not_break_the_table(shape: tuple[int, ...]) -> None:
    size = 1
    for side in shape:
        size *= side
    for other in ((1,), (), (0,), (2,)):
        rows = 1 if other == () else other[0]
        counts = Tensor("counts", "int64", shape, bytes(8 * size))
        show_output(encode_tensors([counts, Tensor("rows", "int64", other, bytes(8 * rows))]), [])


def test_an_output_of_millions_of_labels_is_refused_before_it_becomes_numbers() -> None:
    blob = encode_tensors([Tensor("label", "int64", (MEGABYTE // 8,), b"\x55" * MEGABYTE)])
    assert cost(lambda: labels_of(blob), PeerFault)[1] < 5 * MEGABYTE


def test_sums_are_of_counts_and_not_of_gigabytes() -> None:
    blob = encode_tensors([Tensor("counts", "int64", (MEGABYTE // 8,), bytes(MEGABYTE))])
    assert cost(lambda: sum_counts([(bytes([site]), blob) for site in range(64)]), PeerFault)[1] < MEGABYTE


def test_an_average_of_one_blob_that_sixty_four_sites_send_takes_the_room_of_one() -> None:
    size = MEGABYTE // 8
    blob = encode_tensors([Tensor("w", "int8", (size,), bytes(size))])
    parts = [(bytes([site]), 1, blob) for site in range(64)]
    assert cost(lambda: weighted_average(parts))[1] < 48 * size


def test_a_hundred_references_to_one_blob_do_not_hash_it_a_hundred_times() -> None:
    scene, content = Scene(), bytes(4 * MEGABYTE)
    cid = blob_cid(content)
    scene.blobs.append(content)

    def ref(number: int) -> Any:
        scene.openings.append(Opening.of(hashlib.sha256(b"%d" % number).digest(), cid))
        return scene.openings[-1].ref

    scene.ask("chained", [{"op": "infer"}], [ref(0)], "first")
    leases = [
        scene.lease(0, "alba", [ref(64 * epoch + place) for place in range(64)], epoch=epoch) for epoch in range(1, 5)
    ]
    raw = scene.conclude([], [], [], status="failed", abandoned=[lease.id for lease in leases])
    began = time.process_time()
    assert verify(raw).status == 1
    assert time.process_time() - began < 0.5


def test_a_file_of_a_million_damaged_sections_is_told_in_a_few_lines() -> None:
    raw = MAGIC + bytes.fromhex("0181041220") + bytes(32) + b"\x01\0\0\0\0" * 100_000 + bytes(32)
    reports: list[Report] = []
    assert cost(lambda: reports.append(verify(raw)))[0] < 0.5
    assert reports[0].status == 1
    assert len(reports[0].checks) < 100


def test_an_answer_with_five_hundred_false_parents_is_told_in_a_few_lines() -> None:
    scene = Scene()
    scene.ask("chained", [{"op": "infer"}], [scene.tensors(floats("x", 1.0))], "first")
    lease = scene.lease(0, "alba", scene.spec.payload["inputs"])
    wrong = [scene.answer(lease, [], status="failed", code=str(number)) for number in range(40)]
    last = scene.sign("alba", "answer", **_body(wrong[0]), parents=[lease.id, *(answer.id for answer in wrong)])
    report = verify(scene.conclude([last], [], [], status="failed"))
    assert report.status == 1
    assert len([check for check in report.checks if check.subject == "record 3"]) <= 16


def _body(answer: Any) -> dict[str, Any]:
    common = ("v", "kind", "net", "by", "at_ms", "parents", "code")
    return {key: value for key, value in answer.payload.items() if key not in common}


@pytest.mark.parametrize(
    "comparator",
    [{"kind": "rtol", "rtol_micro": 10}, {"kind": "cosine", "min_ppm": 999_999}, {"kind": "exact"}],
    ids=lambda comparator: comparator["kind"],
)
def test_fourteen_large_replicas_are_compared_in_a_moment(comparator: dict[str, Any]) -> None:
    scene, items = Scene(), 4096
    for number in range(14):
        key = SigningKey.from_seed(hashlib.sha256(b"replica %d" % number).digest())
        KEYS[f"replica {number}"], PEERS[f"replica {number}"] = key, key.peer
        TRUST[bytes(key.peer)] = f"replica {number}"
    asked = {"quorum": {"n": 7, "k": 4}, "comparator": comparator}
    scene.ask("chained", [{"op": "infer"}], [scene.tensors(floats("x", 1.0))], "quorum", **asked)
    answers = []
    for task in range(14):
        raw = struct.pack("<e", 1.0) * (items - 1) + struct.pack("<H", task)
        lease = scene.lease(task, f"replica {task}", scene.spec.payload["inputs"])
        answers.append(scene.answer(lease, [scene.tensors(Tensor("p", "float16", (items,), raw))]))
    raw = scene.conclude(answers, [step(0, [], answers)], [], status="split")
    began = time.process_time()
    verify(raw)
    assert time.process_time() - began < 1.0


def test_a_job_of_more_replicas_than_any_node_takes_is_not_compared_at_all() -> None:
    scene = Scene()
    scene.ask("chained", [{"op": "infer"}] * 64, [], "quorum", quorum={"n": 7, "k": 4})
    report = verify(scene.conclude([], [], [], status="failed"))
    assert {check.code for check in report.checks if check.outcome == "fail"} == {"R-SPEC"}
