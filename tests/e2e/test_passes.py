"""What a job costs the loop, in passes: a figure that a noisy machine cannot blur."""

from pathlib import Path

import pytest

from benchmarks.http_clients import Kept
from benchmarks.http_door import new_key
from benchmarks.jobs import MODEL, per_job, two_nodes
from dimnode.client import tensor_rows
from dimnode.demo.assets_index import read_model_card
from dimnode.demo.setting import card_map
from dimnode.demo.split import read_patients
from tests.e2e.harness import JOB_SECONDS, LINK_SECONDS, until

pytestmark = pytest.mark.slow
TURNS, JOBS = 5, 10
PASSES_MAX = 4.0


def test_a_lone_job_takes_at_most_four_loop_passes_on_either_node_and_leaves_nothing_held(tmp_path: Path):
    patients = read_patients()
    job = {"tasks": [{"model": MODEL}]}
    with two_nodes(tmp_path) as (owner, executor):
        card = read_model_card(MODEL)
        executor.client.add_model(card_map(card), card.path)
        until(owner.client.models, LINK_SECONDS, "the model is heard of")
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
        for name, passes in found.items():  # the least: heartbeats and late frames are passes of their own
            assert min(passes) <= PASSES_MAX, (name, passes)
        for node in (owner, executor):
            until(lambda node=node: node.client.status()["held_entries"] == 0, JOB_SECONDS, "nothing is held")


def test_a_job_over_http_takes_no_more_passes_and_commits_than_one_by_the_client(tmp_path: Path):
    row = [list(read_patients()[0].features)]
    with two_nodes(tmp_path, 'http_listen = "127.0.0.1:0"\n') as (owner, executor):
        card = read_model_card(MODEL)
        executor.client.add_model(card_map(card), card.path)
        until(owner.client.models, LINK_SECONDS, "the model is heard of")
        key, url = new_key(owner)
        door = Kept(url, key)

        def by_client() -> str:
            return owner.client.run({"tasks": [{"model": MODEL}]}, [tensor_rows(row)], receipt=False).status

        def over_http() -> str:
            door.send("/dim/v1/jobs?wait=30", {"tasks": [{"model": MODEL}], "input": {"x": row}})
            return str(door.answer()["status"])

        found: dict[str, list[tuple[float, float]]] = {"client": [], "http": []}
        by_client(), over_http()
        for _ in range(TURNS):
            for name, ask in (("client", by_client), ("http", over_http)):
                before = owner.client.status()
                assert {ask() for _ in range(JOBS)} == {"ok"}
                after = owner.client.status()
                found[name].append(tuple(per_job(before, after, each, JOBS) for each in ("loop_passes", "commits")))
        door.close()
        # The least of the turns: heartbeats and the like are passes and commits of their own, and none of a job's.
        (passes, commits), least = (tuple(map(min, zip(*found[name], strict=True))) for name in ("http", "client"))
        assert passes <= min(PASSES_MAX, least[0] + 0.3), found
        assert commits <= least[1] + 0.3, found
