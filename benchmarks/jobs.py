"""Whole jobs beside their physical limits, in one run on one machine.

    python -m benchmarks.jobs [--jobs 2000] [--json]

Submitter (and owner) and executor are two node processes over Noise; every job has its own spec, input, lease, answer,
verdict, four signatures and three commits. Beside it, in the same minutes: the direct runtime call, a bare kept-stream
round trip, SQLite commits and fsyncs, Ed25519 signatures and verifications. Absolute figures belong to the machine;
the ratios are what carries over.
"""

import argparse
import json
import os
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nacl.bindings
import numpy as np

from dimnode.audit.verifier import verify
from dimnode.client import tensor_rows
from dimnode.demo.assets_index import read_model_card
from dimnode.demo.setting import card_map
from dimnode.demo.split import read_patients
from dimnode.demo.swarm import Member
from dimnode.records.envelope import signed_bytes
from dimnode.records.receipt import parse_receipt

MODEL = "classifier-mlp"
WARM_JOBS = 200
LATENCY_JOBS = 300
IDLE_SETTLE_SECONDS = 3.0
IDLE_SECONDS = 10.0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--receipts", type=Path, help="keep the receipts in this folder, for benchmarks.verify")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dim-bench-") as folder:
        place = Path(folder)
        alone, before = node_figures(place), limits_of_the_machine(place)
        jobs, after = job_figures(place, options.jobs, options.receipts), limits_of_the_machine(place)
    machine = {name: (before[name] + after[name]) / 2 for name in before}  # both ends of the run: a machine changes
    found = {**alone, **machine, **jobs, **in_units_of_the_machine(machine, jobs)}
    print(json.dumps(found, indent=2)) if options.json else show(found)


def limits_of_the_machine(folder: Path) -> dict[str, Any]:
    """What the same work costs with nothing around it."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        str(read_model_card(MODEL).path), options, providers=["CPUExecutionProvider"]
    )
    row = np.array([read_patients()[3].features], dtype=np.float32)
    public, secret = nacl.bindings.crypto_sign_seed_keypair(b"b" * 32)
    signed = nacl.bindings.crypto_sign(b"m" * 400, secret)
    descriptor = os.open(folder / "fsync", os.O_CREAT | os.O_RDWR | os.O_TRUNC)

    def fsync() -> None:
        os.pwrite(descriptor, b"z" * 4096, 0)
        os.fsync(descriptor)

    database = sqlite3.connect(folder / "commit.db", isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")
    database.execute("CREATE TABLE IF NOT EXISTS t(a BLOB, b BLOB)")

    def commit() -> None:
        database.execute("BEGIN IMMEDIATE")
        database.executemany("INSERT INTO t VALUES(?,?)", [(b"k" * 37, b"v" * 450)] * 2)
        database.execute("COMMIT")

    return {
        "direct_call_us": median_us(lambda: session.run(None, {"x": row})),
        "sign_per_second": 1e6 / median_us(lambda: nacl.bindings.crypto_sign(b"m" * 400, secret)),
        "verify_raw_per_second": 1e6 / median_us(lambda: nacl.bindings.crypto_sign_open(signed, public)),
        "fsync_per_second": 1e6 / median_us(fsync, 200),
        "commit_p50_ms": median_us(commit, 200) / 1000,
    }


def in_units_of_the_machine(machine: dict[str, Any], jobs: dict[str, Any]) -> dict[str, Any]:
    """Latency and CPU per job counted in commits and in signatures of this run: these carry over to other machines."""
    sign_us = 1e6 / machine["sign_per_second"]
    return {
        "p50_beyond_commits_ms": jobs["job_p50_ms"] - 3 * machine["commit_p50_ms"],
        "job_p50_in_commits": jobs["job_p50_ms"] / machine["commit_p50_ms"],
        "job_p50_in_signatures": jobs["job_p50_ms"] * 1000 / sign_us,
        "owner_cpu_in_signatures_32": jobs["owner_cpu_us_per_job_32"] / sign_us,
        "executor_cpu_in_signatures_32": jobs["executor_cpu_us_per_job_32"] / sign_us,
        "owner_cpu_in_commits_32": jobs["owner_cpu_us_per_job_32"] / 1000 / machine["commit_p50_ms"],
        "executor_cpu_in_commits_32": jobs["executor_cpu_us_per_job_32"] / 1000 / machine["commit_p50_ms"],
    }


def median_us(call: Callable[[], object], times: int = 1000) -> float:
    """Median duration of a call in microseconds."""
    durations = []
    for _ in range(times):
        began = time.perf_counter_ns()
        call()
        durations.append((time.perf_counter_ns() - began) / 1000)
    return statistics.median(durations)


@contextmanager
def two_nodes(folder: Path, settings: str = "") -> Iterator[tuple[Member, Member]]:
    """An owner that executes nothing and has these `settings` too, and an executor."""
    owner, executor = Member("owner", folder / "owner"), Member("executor", folder / "executor")
    for member in (owner, executor):
        member.home.mkdir(mode=0o700)
    (owner.home / "config.toml").write_text(f"execute = false\n{settings}", encoding="utf-8")
    try:
        owner.launch("")
        owner.wait_ready()
        executor.launch(owner.addresses[0])
        executor.wait_ready()
        yield owner, executor
    finally:
        for member in (owner, executor):
            member.stop()
            member.wait_stopped()


def job_figures(folder: Path, jobs: int, kept: Path | None = None) -> dict[str, Any]:
    """Latency one at a time, rate with 32 open, and what both cost."""
    patients = read_patients()
    inputs = [tensor_rows([list(patient.features)]) for patient in patients]
    job = {"tasks": [{"model": MODEL}]}

    def stream(count: int) -> Iterator[tuple[dict[str, Any], list[bytes]]]:
        for index in range(count):
            yield job, [inputs[index % len(inputs)]]

    with two_nodes(folder) as (owner, executor):
        began = time.perf_counter()
        card = read_model_card(MODEL)
        executor.client.add_model(card_map(card), card.path)
        while not owner.client.models():
            time.sleep(0.01)
        joined_seconds = time.perf_counter() - began
        for ended in owner.client.run_many(stream(WARM_JOBS), 8):
            assert ended.status == "ok", ended
        before = (owner.client.status(), executor.client.status())
        lone = []
        for index in range(LATENCY_JOBS):
            start = time.perf_counter()
            ended = owner.client.run(job, [inputs[index % len(inputs)]], receipt=False)
            lone.append((time.perf_counter() - start) * 1000)
            assert ended.status == "ok", ended
        (peer,) = owner.client.peers()  # before 32 are open: a bare round trip, not one behind their frames
        middle = (owner.client.status(), executor.client.status())
        start = time.perf_counter()
        ids = [ended.job for ended in owner.client.run_many(stream(jobs), 32) if ended.status == "ok"]
        seconds = time.perf_counter() - start
        after = (owner.client.status(), executor.client.status())
        receipts = [owner.client.receipt(identity) for identity in ids]
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        for number, receipt in enumerate(receipts):
            (kept / f"{number:05d}.dimr").write_bytes(receipt)
    assert len(ids) == jobs
    lone.sort()
    return {
        "job_p50_ms": statistics.median(lone),
        "job_p95_ms": lone[int(len(lone) * 0.95)],
        "jobs_per_second_32": jobs / seconds,
        "owner_cpu_us_per_job_32": per_job(middle[0], after[0], "cpu_seconds", jobs) * 1e6,
        "executor_cpu_us_per_job_32": per_job(middle[1], after[1], "cpu_seconds", jobs) * 1e6,
        "owner_passes_per_job_1": per_job(before[0], middle[0], "loop_passes", LATENCY_JOBS),
        "executor_passes_per_job_1": per_job(before[1], middle[1], "loop_passes", LATENCY_JOBS),
        "owner_commits_per_job_32": per_job(middle[0], after[0], "commits", jobs),
        "owner_rss_mb": after[0]["rss_bytes"] / 1e6,
        "executor_rss_mb": after[1]["rss_bytes"] / 1e6,
        "loop_late_p99_ms": after[0]["loop_late_p99_ms"],
        "held_entries_after": after[0]["held_entries"],
        "offer_heard_seconds": joined_seconds,
        "kept_stream_ping_ms": peer["rtt_ms"],
        **verify_figures(receipts),
    }


def per_job(before: dict[str, Any], after: dict[str, Any], name: str, jobs: int) -> float:
    """Growth of a counter per job."""
    return float(after[name] - before[name]) / jobs


def verify_figures(receipts: list[bytes]) -> dict[str, Any]:
    """Signatures checked per second while verifying distinct receipts, beside raw rates in the same minutes.

    Two raw rates: one signature of 400 bytes again and again, and the receipts' own signatures with nothing around.
    """
    public, secret = nacl.bindings.crypto_sign_seed_keypair(b"v" * 32)
    one = (nacl.bindings.crypto_sign(b"m" * 400, secret), public)
    signatures, verify_seconds, raw_seconds, own_seconds = 0, 0.0, 0.0, 0.0
    for start in range(0, len(receipts), 20):  # in turns, so that a busy machine slows all alike
        batch = receipts[start : start + 20]
        began = time.perf_counter()
        reports = [verify(receipt) for receipt in batch]
        verify_seconds += time.perf_counter() - began
        assert all(report.status == 0 for report in reports)
        records = [record for receipt in batch for record in parse_receipt(receipt).records.values()]
        own_seconds += seconds_to_check([signed_bytes(record.envelope) for record in records])
        raw_seconds += seconds_to_check([one] * len(records))
        signatures += len(records)
    return {
        "receipts_verified": len(receipts),
        "receipt_verify_ms": verify_seconds / len(receipts) * 1000,
        "verify_signatures_per_second": signatures / verify_seconds,
        "verify_over_raw": raw_seconds / verify_seconds,
        "verify_over_own_signatures": own_seconds / verify_seconds,
    }


def seconds_to_check(signed: list[tuple[bytes, bytes]]) -> float:
    """How long libsodium takes for these signatures, through the same wrapper as the verifier."""
    began = time.perf_counter()
    for message, public in signed:
        nacl.bindings.crypto_sign_open(message, public)
    return time.perf_counter() - began


def node_figures(folder: Path) -> dict[str, Any]:
    """One node without peers: seconds to ready and to the end, memory, and CPU while nothing happens."""
    node = Member("alone", folder / "alone")
    node.home.mkdir(mode=0o700)
    began = time.perf_counter()
    try:
        node.launch("")
        node.wait_ready()
        ready_seconds = time.perf_counter() - began
        time.sleep(IDLE_SETTLE_SECONDS)
        before = node.client.status()
        time.sleep(IDLE_SECONDS)
        after = node.client.status()
        began = time.perf_counter()
    finally:
        node.stop()
        node.wait_stopped()
    return {
        "ready_seconds": ready_seconds,
        "stop_seconds": time.perf_counter() - began,
        "idle_cpu_percent": (after["cpu_seconds"] - before["cpu_seconds"]) / IDLE_SECONDS * 100,
        "idle_rss_mb": after["rss_bytes"] / 1e6,
    }


def show(found: dict[str, Any]) -> None:
    """The figures, each beside its limit."""
    line = "{:<46} {:>12}   {}".format
    print(line("one job at a time, p50", f"{found['job_p50_ms']:.2f} ms", f"p95 {found['job_p95_ms']:.2f} ms"))
    over, commit = found["p50_beyond_commits_ms"], f"one commit {found['commit_p50_ms']:.2f} ms"
    print(line("  of it beyond three commits", f"{over:.2f} ms", commit))
    signatures = f"{found['job_p50_in_signatures']:.0f} times one signature"
    print(line("  p50 in units of this machine", f"{found['job_p50_in_commits']:.0f} commits", signatures))
    print(line("  direct call of the runtime", f"{found['direct_call_us']:.0f} us", ""))
    print(line("32 jobs open", f"{found['jobs_per_second_32']:.0f} /s", f"fsync {found['fsync_per_second']:.0f} /s"))
    bound = found["verify_raw_per_second"] / 3
    print(
        line(
            "  Ed25519 alone would allow (3 verifications)",
            f"{bound:.0f} /s",
            f"sign {found['sign_per_second']:.0f} /s",
        )
    )
    cpu = f"executor {found['executor_cpu_us_per_job_32']:.0f} us"
    print(line("  CPU per job, owner", f"{found['owner_cpu_us_per_job_32']:.0f} us", cpu))
    owner, executor = found["owner_cpu_in_signatures_32"], found["executor_cpu_in_signatures_32"]
    commits = (
        f"owner {found['owner_cpu_in_commits_32']:.1f}, executor {found['executor_cpu_in_commits_32']:.1f} commits"
    )
    print(line("  in signatures of this machine", f"{owner:.0f}", f"executor {executor:.0f}; {commits}"))
    passes = f"executor {found['executor_passes_per_job_1']:.2f}"
    print(line("loop passes per job, owner", f"{found['owner_passes_per_job_1']:.2f}", passes))
    print(line("commits per job at 32, owner", f"{found['owner_commits_per_job_32']:.2f}", ""))
    raw = f"{found['verify_over_raw']:.2f} of raw Ed25519, {found['receipt_verify_ms']:.2f} ms per receipt; "
    raw += f"{found['verify_over_own_signatures']:.2f} of the receipts' signatures alone"
    print(line("signatures while verifying receipts", f"{found['verify_signatures_per_second']:.0f} /s", raw))
    print(line("kept-stream ping between the nodes", f"{found['kept_stream_ping_ms']:.2f} ms", ""))
    stop = f"stopped in {found['stop_seconds']:.2f} s"
    print(line("one node alone: ready in", f"{found['ready_seconds']:.2f} s", stop))
    idle = f"{found['idle_rss_mb']:.0f} MB"
    print(line("  idle", f"{found['idle_cpu_percent']:.2f} % CPU", idle))
    rss = f"executor {found['executor_rss_mb']:.0f} MB"
    print(line("memory, owner", f"{found['owner_rss_mb']:.0f} MB", rss))
    print(line("loop late, p99", f"{found['loop_late_p99_ms']:.1f} ms", ""))


if __name__ == "__main__":
    main()
