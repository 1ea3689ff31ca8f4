"""What a request costs the door, in figures that a noisy machine cannot blur."""

import http.client
import json
import threading
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest
import trio

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
