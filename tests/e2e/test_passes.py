"""What a job costs the loop, in passes: a figure that a noisy machine cannot blur."""

import statistics
from pathlib import Path

import pytest

from benchmarks.jobs import MODEL, per_job, two_nodes
from dimnode.client import tensor_rows
from dimnode.demo.assets_index import read_model_card
from dimnode.demo.setting import card_map
from dimnode.demo.split import read_patients
from tests.e2e.waiting import eventually

pytestmark = pytest.mark.slow
TURNS, JOBS = 5, 10
PASSES_MAX = 4.0


def test_a_lone_job_takes_at_most_four_loop_passes_on_either_node_and_leaves_nothing_held(tmp_path: Path):
    patients = read_patients()
    job = {"tasks": [{"model": MODEL}]}
    with two_nodes(tmp_path) as (owner, executor):
        card = read_model_card(MODEL)
        executor.client.add_model(card_map(card), card.path)
        eventually(lambda: bool(owner.client.models()))
        owner.client.run(job, [tensor_rows([list(patients[0].features)])])
        found: dict[str, list[float]] = {"owner": [], "executor": []}
        for turn in range(TURNS):
            before = owner.client.status(), executor.client.status()
            for index in range(JOBS):
                row = patients[turn * JOBS + index].features
                ended = owner.client.run(job, [tensor_rows([list(row)])], receipt=False)
                assert ended.status == "ok"
            after = owner.client.status(), executor.client.status()
            for passes, start, end in zip(found.values(), before, after, strict=True):
                passes.append(per_job(start, end, "loop_passes", JOBS))
        for name, passes in found.items():  # the median: heartbeats and late frames are passes of their own
            assert statistics.median(passes) <= PASSES_MAX, (name, passes)
        eventually(lambda: owner.client.status()["held_entries"] == 0)
        eventually(lambda: executor.client.status()["held_entries"] == 0)
