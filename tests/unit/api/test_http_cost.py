"""What a request costs the door, in figures that a noisy machine cannot blur."""

import http.client
import json
import threading
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest
import trio
import trio.testing

from dimnode.api.http.server import Patience
from tests.unit.api.http_stage import JOB, Stage, on_stage

REQUESTS = 20


class Costs(trio.abc.Instrument):
    """Of everything in this loop while it is added."""

    def __init__(self, stage: Stage, patch: pytest.MonkeyPatch) -> None:
        self.passes = self.tasks = self.writes = self.threads = 0
        self.statements: list[str] = []
        stage.book._database.set_trace_callback(self.statements.append)
        send_all = Patience.send_all

        async def counted_write(stream: Patience, data: bytes) -> None:
            self.writes += 1
            await send_all(stream, data)

        def counted_thread(run_sync: Any) -> Any:
            def counted(*arguments: Any, **more: Any) -> Any:
                self.threads += 1
                return run_sync(*arguments, **more)

            return counted

        patch.setattr(Patience, "send_all", counted_write)
        for threads in (trio.to_thread, anyio.to_thread):
            patch.setattr(threads, "run_sync", counted_thread(threads.run_sync))

    def before_io_wait(self, timeout: float) -> None:
        self.passes += 1

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        self.tasks += 1


async def beside(call: Any) -> None:
    """Run `call` in a thread of its own, of which trio sees the end and nothing else."""
    over, token, problems = trio.Event(), trio.lowlevel.current_trio_token(), []

    def run() -> None:
        try:
            call()
        except BaseException as error:
            problems.append(error)
        token.run_sync_soon(over.set)

    threading.Thread(target=run).start()
    await over.wait()
    assert not problems, problems


@pytest.mark.parametrize(
    ("method", "path", "body", "passes", "statements"),
    [("GET", "/health", "", 12, 0), ("POST", "/dim/v1/jobs?wait=30", json.dumps(JOB), 17, 2)],
)
def test_a_kept_connection_is_answered_with_no_thread_few_passes_and_two_statements_for_a_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, path: str, body: str, passes: int, statements: int
) -> None:
    async def act(stage: Stage) -> None:
        headers = {"Authorization": f"Bearer {stage.key()}", "Content-Type": "application/json"}
        connection = http.client.HTTPConnection(*stage.address, timeout=10)

        def ask(times: int) -> None:
            for _ in range(times):
                connection.request(method, path, body or None, headers if body else {})
                answer = connection.getresponse()
                assert answer.status == 200, answer.read()
                answer.read()

        await beside(lambda: ask(2))
        await trio.testing.wait_all_tasks_blocked()  # the clock that starts once the last answer is out is theirs
        costs = Costs(stage, monkeypatch)
        trio.lowlevel.add_instrument(costs)
        await beside(lambda: ask(REQUESTS))
        trio.lowlevel.remove_instrument(costs)
        connection.close()
        # Hypercorn's: header, body and end; a task for the request and one for its clock.
        assert costs.writes <= 3 * REQUESTS
        assert costs.tasks <= 2 * REQUESTS
        assert costs.threads == 0
        assert len(costs.statements) == statements * REQUESTS, costs.statements
        # One more where the client's header and body come apart, and a few for the client's end.
        assert costs.passes <= (passes + 1) * REQUESTS + 4

    on_stage(tmp_path, act)


TASKS = b'{"tasks":[{"model":"triage"}],"input":{"x":%s}}'
BODIES = [
    TASKS % b"[[1.0,2.0]]",
    b"\xef\xbb\xbf" + TASKS % b"[[1.0,2.0]]",
    (TASKS % b"[[1.0,2.0]]").decode().encode("utf-16"),
    TASKS % b"[[1.0,2.0]]" + b"x",
    TASKS.replace(b"tasks", b"taks") % b"[[1.0,2.0]]",
    b'{"tasks":[{"model":"nobodys"}],' + (TASKS % b"[[1.0,2.0]]")[1:],
    *(TASKS % row for row in (b"[[NaN,2]]", b"[[1e999,2]]", b"[[-Infinity,2]]", b'["\\ud800"]', b'"\xff"')),
    *(TASKS % (b"[[%s,2]]" % (b"9" * digits)) for digits in (30, 400, 5000)),
    *(TASKS % (b"[" * deep + b"]" * deep) for deep in (63, 300, 50_000)),
    *(b"", b"null", b"[]", b'"x"', b"7"),
]


def test_who_is_answered_past_the_framework_is_answered_as_by_it(tmp_path: Path) -> None:
    """`wait=0.0` is nothing that the short way takes."""

    async def act(stage: Stage) -> None:
        statuses = set()
        for key in (stage.key(), stage.key("read")):
            async with stage.client(key, headers={"Content-Type": "application/json"}) as client:
                for body in BODIES:
                    answers = [
                        await client.post("/dim/v1/jobs", params=asked, content=body) for asked in ({}, {"wait": "0.0"})
                    ]
                    short, usual = [(found.status_code, found.json().get("error")) for found in answers]
                    assert short == usual, body[:80]
                    statuses.add(short[0])
        assert statuses == {200, 400, 403}

    on_stage(tmp_path, act)
