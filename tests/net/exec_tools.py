"""Helpers for the tests of the worker pool: a pool whose outcomes can be awaited, and models that misbehave."""

import hashlib
import select
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import trio
from onnx import TensorProto, helper

from dimnode.exec.channel import unpack_body
from dimnode.exec.launch import Hello, Zygote, hello_from
from dimnode.exec.orders import Facts, Finished, Key, ModelFile, ModelOrder, Order, Rows
from dimnode.exec.pool import Pool, open_pool
from dimnode.exec.runtimes.base import Files
from dimnode.limits import ExecLimits
from dimnode.records.ids import BLOB_PREFIX
from dimnode.records.manifest import TRANSFORMERS
from dimnode.records.tensors import Tensor, decode_tensors, encode_tensors

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "exec"))
LIMITS = ExecLimits(
    zygote_start_seconds_max=120.0, worker_start_seconds_max=120.0, exit_report_seconds_max=30.0
)  # fmt: skip
"""Patient: five runtimes may be imported at once, by a machine that does other things as well."""


def hello_of(zygote: Zygote, seconds_max: float) -> Hello:
    """What a zygote says of this machine, for a test without a pool, which reads it otherwise."""
    deadline = time.monotonic() + seconds_max
    while zygote.hello is None:
        ready, _, _ = select.select([zygote.channel], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, "the zygote does not answer"
        chunk = zygote.channel.recv(65536)
        if not chunk:
            return Hello(failure="it died")
        for body in zygote.frames.feed(chunk):
            zygote.hello = hello_from(unpack_body(body))
    return zygote.hello


def onnx_order(path: Path, digest: str) -> ModelOrder:
    """A model of one file, by the sha256 it should have."""
    return ModelOrder(digest, "onnx", (ModelFile("m.onnx", "model", str(path), BLOB_PREFIX + bytes.fromhex(digest)),))


@dataclass
class Rig:
    """A pool, what it said, and orders made short."""

    pool: Pool
    folder: Path
    outcomes: dict[Key, Finished] = field(default_factory=dict)
    order_of_arrival: list[int] = field(default_factory=list)
    news: trio.Event = field(default_factory=trio.Event)
    numbers: int = 0

    def heard(self, outcome: Finished) -> None:
        assert outcome.key not in self.outcomes, "an order ended twice"
        self.outcomes[outcome.key] = outcome
        self.order_of_arrival.append(outcome.key[1])
        self.news.set()
        self.news = trio.Event()

    def order(self, model: bytes = b"", blob: bytes = b"", **changes: Any) -> Order:
        """An infer order for this model, numbered on."""
        self.numbers += 1
        digest = hashlib.sha256(model).hexdigest() if model else ""
        path = self.folder / f"{digest[:16]}.onnx"
        if model and not path.exists():
            path.write_bytes(model)
        fields: dict[str, Any] = {
            "key": (b"job", self.numbers, 1),
            "op": "infer",
            "model": onnx_order(path, digest) if model else None,
            "inputs": (blob,) if blob else (),
            "take": (),
            "rows": None,
            "priority": "normal",
            "timeout_seconds": 10.0,
        }
        return Order(**{**fields, **changes})

    def model(self, form: str, files: Files, facts: Facts = Facts()) -> ModelOrder:  # noqa: B008 - it is frozen
        """These files on disk, as an order names them."""
        listed = []
        for path, file in files.items():
            digest = hashlib.sha256(file.raw)
            place = self.folder / digest.hexdigest()
            place.write_bytes(file.raw)
            listed.append(ModelFile(path, file.role, str(place), BLOB_PREFIX + digest.digest()))
        identity = hashlib.sha256(repr((form, listed, facts)).encode()).hexdigest()
        return ModelOrder(identity, form, tuple(listed), facts)

    def asks(self, model: ModelOrder, blob: bytes, **changes: Any) -> Order:
        """An order for such a model."""
        return replace(self.order(blob=blob), model=model, **{"timeout_seconds": 30.0, **changes})

    def offer(self, order: Order) -> Key:
        """Offer what must be taken."""
        busy = self.pool.offer(order)
        assert busy is None, busy
        return order.key

    async def end_of(self, key: Key) -> Finished:
        """The outcome of an order, awaited."""
        with trio.fail_after(240):
            while key not in self.outcomes:
                await self.news.wait()
        return self.outcomes[key]

    async def run(self, *orders: Order) -> list[Finished]:
        """Offer all, await all."""
        keys = [self.offer(order) for order in orders]
        return [await self.end_of(key) for key in keys]

    async def until(self, truth: Any) -> None:
        """Look again and again, for things that tell nobody."""
        with trio.fail_after(120):
            while not truth():  # noqa: ASYNC110 - the things awaited here have no event
                await trio.sleep(0.005)

    async def pids(self, count: int = 1) -> tuple[int, ...]:
        """Of so many workers. One may answer before its zygote's report has come."""
        await self.until(lambda: len(self.pool.stats().worker_pids) == self.pool.stats().workers == count)
        return self.pool.stats().worker_pids


@asynccontextmanager
async def open_rig(
    zygote: Zygote,
    folder: Path,
    workers: int = 1,
    limits: ExecLimits = LIMITS,
    require_sandbox: bool = True,
    **more: Any,
) -> AsyncIterator[Rig]:
    rig = Rig(None, folder)  # type: ignore[arg-type]
    pool = open_pool(
        limits, folder / "scratch", rig.heard, zygote=zygote, workers=workers, require_sandbox=require_sandbox, **more
    )
    async with pool as rig.pool:
        yield rig


def rig_of(zygotes: list[Zygote], folder: Path, workers: int = 1) -> AbstractAsyncContextManager[Rig]:
    return open_rig(zygotes[0], folder, workers, warm=zygotes[1:])


def run_all(zygotes: list[Zygote], folder: Path, *asked: tuple[str, Files, Facts, bytes]) -> list[Finished]:
    """One order after the other in one pool of two workers."""
    found: list[Finished] = []

    async def main() -> None:
        async with rig_of(zygotes, folder, workers=2) as rig:
            for form, files, facts, content in asked:
                found.extend(await rig.run(rig.asks(rig.model(form, files, facts), content)))
            assert (rig.pool.stats().queued, rig.pool.stats().running) == (0, 0)

    trio.run(main)
    return found


def hf_sample(name: str, values: np.ndarray, port: str = "input_ids", **config: Any) -> tuple[Files, Facts, bytes]:
    """A model of transformers with weights of zeros, small or as large as its config says, and an input for it."""
    from dimnode.exec.runtimes.pretrained_samples import sample_files  # imports all of transformers

    tensors = [Tensor(port, str(values.dtype), values.shape, values.tobytes())]
    if port == "input_ids" and "Bert" in name:
        tensors.append(Tensor("attention_mask", "int64", values.shape, np.ones_like(values).tobytes()))
    return sample_files(name, np.zeros, **config), Facts(TRANSFORMERS), encode_tensors(tensors)


def blob(values: Any, dtype: str = "float32", name: str = "x") -> bytes:
    array = np.asarray(values, dtype=dtype)
    return encode_tensors([Tensor(name, dtype, array.shape, array.tobytes())])


def arrays(output: bytes) -> dict[str, np.ndarray]:
    return {
        tensor.name: np.frombuffer(tensor.raw, tensor.dtype).reshape(tensor.shape) for tensor in decode_tensors(output)
    }


def rounds() -> bytes:
    """y = x added to itself `x[0]` times over: quick or endless, as the input says."""
    int64, flag = TensorProto.INT64, TensorProto.BOOL
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Identity", ["v"], ["w"])],
        "body",
        [helper.make_tensor_value_info(*value) for value in (("i", int64, []), ("go", flag, []), ("v", int64, [1]))],
        [helper.make_tensor_value_info(*value) for value in (("on", flag, []), ("w", int64, [1]))],
    )
    graph = helper.make_graph(
        [helper.make_node("Loop", ["x", "yes", "x"], ["y"], body=body)],
        "rounds",
        [helper.make_tensor_value_info("x", int64, [1])],
        [helper.make_tensor_value_info("y", int64, [1])],
        [helper.make_tensor("yes", flag, [], [True])],
    )
    return bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()
    )


QUICK, ENDLESS = blob([1], "int64"), blob([2**60], "int64")

__all__ = [
    "ENDLESS",
    "LIMITS",
    "QUICK",
    "Rig",
    "Rows",
    "arrays",
    "blob",
    "onnx_order",
    "open_rig",
    "rig_of",
    "rounds",
    "run_all",
]
