"""Made-up inputs, from a manifest that may be anybody's; and what the first benchmark leaves on the disk."""

import json
import math
import os
from dataclasses import replace
from itertools import count
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import trio
import trio.testing

from dimnode.errors import Refused
from dimnode.exec.orders import Facts, ModelOrder
from dimnode.limits import LIMITS
from dimnode.node import benches
from dimnode.node.benches import BENCHMARK_FILE, bench_model, first_benchmark, made_up, read_benchmark, write_benchmark
from dimnode.records.ids import peer_of_key
from dimnode.records.tensors import Tensor, decode_tensors, encode_tensors


def test_free_sizes_are_filled_in_and_the_same_numbers_come_each_time():
    facts = Facts(inputs=(("x", "float32", (-1, -1, 3)), ("ids", "int64", (-1, 4))))
    blob = made_up(facts, 2, 16)
    assert {tensor.name: tensor.shape for tensor in decode_tensors(blob)} == {"x": (2, 16, 3), "ids": (2, 4)}
    assert blob == made_up(facts, 2, 16)


def made(facts: Facts, batch: int, free_size: int = 16) -> dict[str, np.ndarray]:
    """The tensors that are made up, as arrays."""
    return {
        tensor.name: np.frombuffer(tensor.raw, tensor.dtype).reshape(tensor.shape)
        for tensor in decode_tensors(made_up(facts, batch, free_size))
    }


def test_a_mask_hides_nothing_and_a_tensor_that_the_manifest_fixes_holds_what_it_says():
    ids, mask = ("input_ids", "int64", (-1, -1)), ("attention_mask", "int64", (-1, -1))
    found = made(Facts(inputs=(ids, mask)), 2)
    assert (found["input_ids"].max(), found["attention_mask"].min()) == (0, 1)
    rate = {"op": "constant", "name": "sr", "dtype": "int64", "shape": [], "values": [16_000]}
    half = {"op": "constant", "name": "half", "dtype": "float32", "shape": [], "values_nano": [500_000_000]}
    facts = Facts(inputs=(("sr", "int64", ()), ("half", "float32", (2,)), ("x", "float32", (-1, 3))), pre=(rate, half))
    found = made(facts, 2)
    assert (found["sr"].tolist(), found["half"].tolist()) == (16_000, [0.5, 0.5])


def test_a_state_of_layers_has_its_batch_where_the_manifest_leaves_it_free():
    facts = Facts(inputs=(("input", "float32", (-1, -1)), ("state", "float32", (2, -1, 128))))
    assert {name: values.shape for name, values in made(facts, 4, 576).items()} == {
        "input": (4, 576),
        "state": (2, 4, 128),
    }
    with pytest.raises(Refused, match="first dimension of 1"):
        made_up(Facts(inputs=(("x", "float32", (1, -1)),)), 4, 16)


def test_a_rate_with_one_order_open_is_no_rate_of_two_workers_and_no_start_of_a_worker_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two workers, of which one is started when a second order is open, and takes its time."""
    seconds = encode_tensors([Tensor("seconds", "float64", (1,), np.array([0.01]).tobytes())])

    class Pool:
        open = 0
        loading_until = 0.0

        async def run(self, order: Any) -> Any:
            self.open += 1
            if self.open > 1 and not self.loading_until:
                self.loading_until = trio.current_time() + 0.2
            await trio.sleep(0.01 if self.open <= 1 or trio.current_time() > self.loading_until else 0.05)
            self.open -= 1
            return SimpleNamespace(status="ok", output=seconds, runtime={}, sandbox="")

        def stats(self) -> Any:
            loading = "loading" if trio.current_time() < self.loading_until else "idle"
            members = [SimpleNamespace(model="m", state=loading, memory_bytes=1)]
            return SimpleNamespace(running_max=2, members=members)

        def unload(self, model: str) -> None:
            pass

    monkeypatch.setattr(benches, "time", SimpleNamespace(perf_counter=trio.current_time))
    model = ModelOrder("m", "onnx", (), Facts(inputs=(("x", "float32", (-1, 3)),)))
    pool: Any = Pool()
    clock = trio.testing.MockClock(autojump_threshold=0)
    found = trio.run(bench_model, pool, model, [1], 16, 0.195, peer_of_key(b"k" * 32), clock=clock)
    assert found["rows"][0]["throughput"] == {"1": 100.0, "4": 400.0}, "each order takes 10 ms"


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
