"""Made-up inputs, from a manifest that may be anybody's; and what the first benchmark leaves on the disk."""

import json
import math
import os
from dataclasses import replace
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from dimnode.errors import Refused
from dimnode.exec.orders import Facts
from dimnode.limits import LIMITS
from dimnode.node.benches import BENCHMARK_FILE, first_benchmark, made_up, read_benchmark, write_benchmark
from dimnode.records.ids import peer_of_key
from dimnode.records.tensors import decode_tensors


def test_free_sizes_are_filled_in_and_the_same_numbers_come_each_time():
    facts = Facts(inputs=(("x", "float32", (-1, -1, 3)), ("ids", "int64", (-1, 4))))
    blob = made_up(facts, 2, 16)
    assert {tensor.name: tensor.shape for tensor in decode_tensors(blob)} == {"x": (2, 16, 3), "ids": (2, 4)}
    assert blob == made_up(facts, 2, 16)


@pytest.mark.parametrize(
    "inputs",
    [
        (("x", "float32", (-1, 2**31 - 1, 2**31 - 1)),),
        tuple((f"x{number}", "float64", (-1, 2**20)) for number in range(64)),
        (("x", "float8", (-1, 3)),),
        (("x", "float32", (-1, 0, 2**31 - 1, 2**31 - 1, 2**31 - 1)),),  # no number, and no array either
        (("x", "float32", (-1, 3)), ("x", "float32", (-1, 3))),
    ],
)
def test_a_manifest_makes_the_node_allocate_nothing_that_no_order_could_hold(inputs):
    with pytest.raises(Refused, match="E-exec-85"):
        made_up(Facts(inputs=inputs), 1, 16)


@pytest.mark.parametrize("endless", [1, 10**6])
def test_a_worker_that_starts_slowly_and_an_order_that_hangs_cost_no_first_benchmark(endless: int) -> None:
    limits, runs = replace(LIMITS.exec, benchmark_seconds=0.01, benchmark_seconds_max=0.05), count()

    class Pool:
        async def run(self, order: object) -> Any:
            number = next(runs)
            await trio.sleep(0.1 if number == 0 else math.inf if number == endless else 0.001)
            return SimpleNamespace(status="ok")

        def unload(self, model: str) -> None:
            pass

    found: Any = trio.run(first_benchmark, Pool(), peer_of_key(b"k" * 32), limits)
    assert found["jobs_per_second"] > 0


def test_what_a_start_measured_is_known_to_the_next_one_on_as_many_cores(tmp_path):
    found = {"jobs_per_second": 900, "cores": os.cpu_count()}
    write_benchmark(tmp_path, found)
    assert read_benchmark(tmp_path) == found
    write_benchmark(tmp_path, {**found, "cores": 10_000})
    assert read_benchmark(tmp_path) == {}


@pytest.mark.parametrize(
    "damaged", [b"", b"\xff", b"[1]", b"null", b"[" * 100_000, json.dumps({"cores": os.cpu_count()}).encode()]
)
def test_a_damaged_benchmark_is_measured_anew_and_ends_no_node(tmp_path, damaged):
    (tmp_path / BENCHMARK_FILE).write_bytes(damaged)
    assert read_benchmark(tmp_path) == {}


def test_a_benchmark_that_cannot_be_written_ends_no_node(tmp_path, caplog):
    (tmp_path / BENCHMARK_FILE).mkdir()
    write_benchmark(tmp_path, {"jobs_per_second": 900, "cores": os.cpu_count()})
    assert "not remembered" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == [BENCHMARK_FILE]
