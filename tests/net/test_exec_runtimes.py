"""Every runtime behind its own walls: the same answers, the same refusals, and a pool that stays whole."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import trio
from exec_tools import LIMITS, Rig, arrays, blob, hello_of, hf_sample, open_rig, rig_of, run_all
from hostile_runtime import attempts

from dimnode.exec import orders
from dimnode.exec.launch import WORKER_ENVIRONMENT, Zygote, start_zygote
from dimnode.exec.orders import Facts, Order
from dimnode.exec.runtimes.base import Content, Files
from dimnode.exec.runtimes.choice import installed

from exec_formats import (  # isort: skip - its folder is on the path since exec_tools
    FORMATS,
    X_OF_3,
    direct,
    layers,
    mil_package,
    mlp,
)
from exec_models import allocating, spinning  # isort: skip

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="the walls are Linux's")]
RUNTIMES = (*FORMATS, "hf")
RNG = np.random.default_rng(2)
X = RNG.normal(size=(4, 3)).astype(np.float32)
LAYERS = Facts("layers", inputs=X_OF_3)
MEAN, STD = [0.25, -0.5, 0.0], [2.0, 0.5, 1.5]
PRE = (
    {"op": "input", "name": "x", "kind": "tensor", "dtype": "float32"},
    {
        "op": "normalise",
        "name": "x",
        "mean_nano": [round(number * 1e9) for number in MEAN],
        "std_nano": [round(number * 1e9) for number in STD],
    },
    {"op": "clip", "name": "x", "low_nano": -(10**9), "high_nano": 10**9},
)
POST = (
    {"op": "top_k", "name": "y", "into": "best", "places": "place", "k": 2},
    {"op": "l2_normalise", "name": "y"},
    {"op": "label_text", "name": "place", "into": "word"},
)


def test_this_installation_has_every_runtime() -> None:
    assert installed() == RUNTIMES


def test_one_model_in_four_formats_gives_the_same_answer_behind_whole_walls(
    zygotes: list[Zygote], tmp_path: Path
) -> None:
    found = run_all(zygotes, tmp_path, *((form, *mlp(form), blob(X)) for form in FORMATS))
    assert [done.status for done in found] == ["ok"] * 4
    for done in found:
        assert np.abs(arrays(done.output)["y"] - direct(X)).max() < 1e-6
        assert {"landlock", "seccomp", "rlimits"} <= set(done.sandbox.split("+"))
    assert [done.runtime["engine"] for done in found] == ["onnxruntime", "torch", "mlx", "coreml-reference"]
    assert all(done.runtime["version"] and done.runtime["dtype"] == "float32" for done in found)


def test_one_program_before_and_after_the_model_gives_the_same_answer_in_every_runtime(
    zygotes: list[Zygote], tmp_path: Path
) -> None:
    asked = []
    for form in FORMATS:
        files, facts = mlp(form)
        asked.append((form, files, replace(facts, pre=PRE, post=POST, labels=("no", "yes")), blob(X)))
    raw = direct(np.clip((X - np.array(MEAN)) / np.array(STD), -1, 1))
    places = np.argsort(-raw, axis=-1)
    assert np.abs(raw - direct(X)).max() > 0.01, "leaving out the program would be seen"
    for done in run_all(zygotes, tmp_path, *asked):
        assert done.status == "ok", done
        answer = arrays(done.output)
        assert set(answer) == {"y", "best", "place", "word", "word.sizes"}
        assert answer["place"].tolist() == places.tolist()
        assert np.abs(answer["best"] - np.take_along_axis(raw, places, -1)).max() < 1e-6
        assert np.abs(answer["y"] - raw / np.linalg.norm(raw, axis=-1, keepdims=True)).max() < 1e-6
        words = ["\n".join(("no", "yes")[place] for place in row) for row in places]
        assert bytes(answer["word"]).decode() == "".join(words)


@pytest.mark.parametrize(
    ("dtype", "forms", "atol"),
    [("bfloat16", ("torch", "mlx"), 0.02), ("float16", ("torch", "mlx"), 0.003), ("int8", ("torch",), 0.02)],
)
def test_fewer_bits_stay_near_and_are_recorded(
    zygotes: list[Zygote], tmp_path: Path, dtype: str, forms: tuple[str, ...], atol: float
) -> None:
    facts = Facts("layers", dtype, inputs=X_OF_3)
    for done in run_all(zygotes, tmp_path, *((form, layers(), facts, blob(X)) for form in forms)):
        assert np.abs(arrays(done.output)["y"] - direct(X)).max() < atol
        assert done.runtime["dtype"] == dtype
        assert done.runtime["quantisation"] == ("int8-rows" if dtype == "int8" else "none")


def asked_of(rig: Rig, form: str, files: Files, facts: Facts, content: bytes) -> Order:
    return rig.asks(rig.model(form, files, facts), content)


def endless(form: str) -> tuple[Files, Facts, bytes]:
    """Computes for minutes: a loop where the format has one, else a chain of large products."""
    if form == "onnx":
        return {"m": Content("model", spinning())}, Facts(), blob([1.0])
    if form == "hf":
        sizes = {"hidden_size": 512, "intermediate_size": 2048, "max_position_embeddings": 512, "num_hidden_layers": 4}
        return hf_sample("BertModel", np.ones((64, 512), np.int64), **sizes)
    side = 1024
    if form == "coreml":
        weight = np.zeros((3, 3), np.float32)
        steps = [("matmul", {"x": "x", "y": 0}, f"r{place}", [-1, 3]) for place in range(20_000)]
        return mil_package(steps, [weight]), Facts(), blob(np.ones((50_000, 3)))
    from safetensors.numpy import save

    chain = [{"op": "linear", "name": "w", "in": side, "out": side, "bias": False}] * 250
    chain = [*chain, {"op": "softmax", "as": "y"}]
    weights = save({"w.weight": np.zeros((side, side), np.float32)})
    facts = Facts("layers", inputs=(("x", "float32", (-1, side)),))
    return layers(chain=chain, weights=weights), facts, blob(np.ones((4096, side)))


@pytest.mark.parametrize("form", RUNTIMES)
def test_what_does_not_end_is_ended_and_the_next_order_runs(zygotes: list[Zygote], tmp_path: Path, form: str) -> None:
    async def main() -> None:
        async with rig_of(zygotes, tmp_path) as rig:
            good = asked_of(rig, form, *sample(form))
            await rig.run(good)  # its zygote is there
            spin = replace(asked_of(rig, form, *endless(form)), timeout_seconds=0.5)
            spun, fine = await rig.run(spin, asked_of(rig, form, *sample(form)))
            assert (spun.status, spun.code) == ("timeout", orders.TIMED_OUT)
            assert fine.status == "ok"

    trio.run(main)


def sample(form: str) -> tuple[Files, Facts, bytes]:
    """A small model of this runtime and an input for it."""
    return hf_sample("BertModel", np.ones((1, 2), np.int64)) if form == "hf" else (*mlp(form), blob(X))


def bomb(form: str) -> tuple[Files, Facts, bytes]:
    """Asks for 40 GB."""
    if form == "onnx":
        return {"m": Content("model", allocating(10**10))}, Facts(), blob([1.0])
    if form == "hf":
        return hf_sample("BertForMaskedLM", np.ones((2500, 16), np.int64), vocab_size=2**18)
    if form == "coreml":
        huge = {"shape": np.array([100_000, 100_000], np.int32), "value": np.array(0, np.float32)}
        return mil_package([("fill", huge, "y", [-1, -1])], []), Facts(), blob(X)
    from safetensors.numpy import save

    weights = save({"w.weight": np.zeros((200_000, 1), np.float32)})
    chain = [{"op": "linear", "name": "w", "in": 1, "out": 200_000, "bias": False, "as": "y"}]
    facts = Facts("layers", inputs=(("x", "float32", (-1, 1)),))
    return layers(chain=chain, weights=weights), facts, blob(np.ones((50_000, 1)))


@pytest.mark.parametrize("form", RUNTIMES)
def test_forty_gigabytes_are_refused_to_the_one_who_asks(zygotes: list[Zygote], tmp_path: Path, form: str) -> None:
    async def main() -> None:
        async with rig_of(zygotes, tmp_path) as rig:
            burst, fine = await rig.run(asked_of(rig, form, *bomb(form)), asked_of(rig, form, *sample(form)))
            assert (burst.status, burst.code) == ("memory", orders.OUT_OF_MEMORY), burst.message
            assert fine.status == "ok"

    trio.run(main)


@pytest.mark.parametrize("form", RUNTIMES)
def test_a_runtime_that_was_taken_over_gets_through_no_wall(tmp_path: Path, form: str) -> None:
    secret, folder = tmp_path / "secret", tmp_path / "folder"
    secret.write_text("secret")
    folder.mkdir()
    assert attempts(str(secret))["read a secret"]() == "secret"  # out here it works
    script = Path(__file__).with_name("hostile_runtime.py")
    environment = {**os.environ, **WORKER_ENVIRONMENT}
    asked = [sys.executable, str(script), form, str(secret), str(folder)]
    done = subprocess.run(asked, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["said"] == ["worked", "[]"]
    assert {"landlock", "seccomp", "rlimits"} <= set(found["walls"].split("+"))
    assert secret.read_text() == "secret"
    assert list(folder.iterdir()) == []


def status_of(place: str) -> dict[str, str]:
    lines = Path(f"/proc/{place}/status").read_text().splitlines()
    return {name: value.strip() for name, value in (line.split(":", 1) for line in lines)}


def environment_of(place: str) -> list[bytes]:
    return Path(f"/proc/{place}/environ").read_bytes().split(b"\0")


@pytest.mark.parametrize("form", RUNTIMES)
def test_every_thread_of_a_worker_is_behind_the_walls_and_its_zygote_has_one(
    zygotes: list[Zygote], tmp_path: Path, form: str
) -> None:
    async def main() -> None:
        async with rig_of(zygotes, tmp_path) as rig:
            await rig.run(asked_of(rig, form, *sample(form)))
            (pid,) = await rig.pids()
            tasks = os.listdir(f"/proc/{pid}/task")
            for task in tasks:
                said = status_of(f"{pid}/task/{task}")
                assert (said["Seccomp"], said["NoNewPrivs"], int(said["CapEff"], 16)) == ("2", "1", 0)
            assert len(tasks) == (2 if form == "mlx" else 1)
            parent = status_of(str(pid))["PPid"]
            environment = environment_of(parent)
            assert {f"{name}={value}".encode() for name, value in WORKER_ENVIRONMENT.items()} <= set(environment)
            assert len(os.listdir(f"/proc/{parent}/task")) == 1

    trio.run(main)


def test_each_runtime_proves_its_own_walls_when_it_starts(zygotes: list[Zygote], tmp_path: Path) -> None:
    for zygote in zygotes:
        if zygote.hello is None:
            hello_of(zygote, 120)

    async def main() -> None:
        async with rig_of(zygotes, tmp_path) as rig:
            for state in rig.pool.stats().runtimes.values():
                assert (state.known, state.failure, state.sandbox_complete) == (True, "", True)
                assert "leaks" not in state.sandbox

    trio.run(main)


def test_a_runtime_starts_when_first_needed_and_ends_with_the_pool(zygotes: list[Zygote], tmp_path: Path) -> None:
    pids: list[int] = []

    async def main() -> None:
        async with open_rig(zygotes[0], tmp_path) as rig:
            known = [state.known for state in rig.pool.stats().runtimes.values()]
            assert known == [True, False, False, False, False]
            (done,) = await rig.run(rig.asks(rig.model("coreml", *mlp("coreml")), blob(X)))
            assert done.status == "ok"
            assert rig.pool.stats().runtimes["coreml"].known
            pids.extend(other.pid for other in rig.pool._crew.zygotes if other is not zygotes[0])

    trio.run(main)
    assert len(pids) == 1
    assert not Path(f"/proc/{pids[0]}").exists()


def test_a_runtime_that_nothing_uses_is_ended_but_for_a_pinned_model_and_started_again_when_needed(
    zygotes: list[Zygote], tmp_path: Path
) -> None:
    async def main() -> None:
        limits = replace(LIMITS, worker_idle_seconds_max=0.05, memory_look_seconds=0.05)
        async with open_rig(zygotes[0], tmp_path, limits=limits, runtime_idle_seconds=0.2) as rig:
            models = {form: rig.model(form, *mlp(form)) for form in ("coreml", "mlx")}
            rig.pool.pin(frozenset({models["coreml"].id}))
            for model in models.values():
                (done,) = await rig.run(rig.asks(model, blob(X)))
                assert done.status == "ok"
            (pid,) = (other.pid for other in rig.pool._crew.zygotes if other.runtime == "mlx")
            await rig.until(lambda: not Path(f"/proc/{pid}").exists())
            assert [other.runtime for other in rig.pool._crew.zygotes] == ["onnx", "coreml"]
            assert [(state.runtime, state.pinned) for state in rig.pool.stats().members] == [("coreml", True)]
            assert rig.pool.stats().runtimes["mlx"].known, "what it said stays known"
            (again,) = await rig.run(rig.asks(models["mlx"], blob(X)))
            assert again.status == "ok"
            rig.pool.pin(frozenset())
            await rig.until(lambda: [other.runtime for other in rig.pool._crew.zygotes] == ["onnx"])

    trio.run(main)


def test_what_only_proves_itself_leaves_no_process_behind(zygotes: list[Zygote], tmp_path: Path) -> None:
    async def main() -> None:
        async with open_rig(zygotes[0], tmp_path, warm=zygotes[1:3]) as rig:
            assert not rig.pool.stats().runtimes["coreml"].known
            with trio.fail_after(240):
                await rig.pool.prove()
            state = rig.pool.stats().runtimes["coreml"]
            assert (state.known, state.works(True)) == (True, True)
            assert [zygote.runtime for zygote in rig.pool._crew.zygotes] == ["onnx", "torch", "mlx"]
            (done,) = await rig.run(rig.asks(rig.model("coreml", *mlp("coreml")), blob(X)))
            assert done.status == "ok"

    trio.run(main)


def test_where_forking_is_not_safe_spares_serve_in_the_same_walls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on macOS: forced here by a module that stands in front of the real one."""
    stand_in = tmp_path / "site"
    stand_in.mkdir()
    code = "from dimnode.exec.runtimes import coreml; coreml.FORKS = False"
    (stand_in / "sitecustomize.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(stand_in), os.environ.get("PYTHONPATH", "")]))
    with start_zygote(runtime="coreml") as spawning, start_zygote() as first:

        async def main() -> None:
            async with open_rig(first, tmp_path, workers=2, warm=[spawning]) as rig:
                for place in range(3):
                    files, facts = mlp("coreml")
                    model = rig.model("coreml", {**files, f"note{place}": Content("other", b"x")}, facts)
                    (done,) = await rig.run(rig.asks(model, blob(X)))
                    assert (done.status, done.message) == ("ok", "")
                    assert {"landlock", "seccomp", "rlimits"} <= set(done.sandbox.split("+"))
                state = rig.pool.stats().runtimes["coreml"]
                assert (state.sandbox_complete, state.traits["engine"]) == (True, "coreml-reference")
                assert spawning.hello is not None and spawning.hello.breaches == ()

        trio.run(main)
        lineage = psutil.Process(spawning.pid).children()
        assert len(lineage) >= 1
    assert not psutil.wait_procs(lineage, timeout=30)[1]


def test_a_device_that_is_not_there_refuses_the_orders_of_its_runtime_alone(tmp_path: Path) -> None:
    async def main() -> None:
        with start_zygote(devices={"torch": "cuda"}) as first:
            async with open_rig(first, tmp_path) as rig:
                (done,) = await rig.run(rig.asks(rig.model("onnx", *mlp("onnx")), blob(X)))
                assert (done.status, done.runtime["accelerator"], done.gpu_bytes) == ("ok", "cpu", 0)
                asked = rig.asks(rig.model("torch", *mlp("torch")), blob(X))
                (lost,) = await rig.run(asked)  # it was taken before torch's zygote was asked
                assert (lost.status, lost.code) == ("crashed", orders.NO_DEVICE)
                busy = rig.pool.offer(replace(asked, key=(b"job", 99, 1)))
                assert busy is not None and busy.code == orders.NO_DEVICE
                assert "cuda, and there is cpu" in busy.message
                assert rig.pool.stats().runtimes["torch"].failure

    trio.run(main)
