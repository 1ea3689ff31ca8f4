"""The control socket's door, with the real client at the other end."""

from functools import partial
from pathlib import Path

import trio
from http_stage import FakeNode

from dimnode.api.control import ControlDoor
from dimnode.client import Client, Ended
from dimnode.config import socket_path
from dimnode.records.ids import RecordId

JOB = {"tasks": [{"model": "triage"}], "input": {"x": [[1.0, 2.0]]}}


class LongReceipts(FakeNode):
    """Each receipt takes until the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.asked_for, self.made = trio.Event(), trio.Event()

    async def fetch_receipt(self, job: RecordId) -> bytes:
        self.asked_for.set()
        await self.made.wait()
        return await super().fetch_receipt(job)


def test_while_a_long_receipt_is_made_neither_the_loop_nor_the_client_waits(tmp_path: Path) -> None:
    """`ended` is called by the loop; here by the job's submission, which comes back at once."""
    found: list[Ended] = []

    async def scenario() -> None:
        node, path = LongReceipts(), socket_path(tmp_path)  # pytest's folders can be too deep for a socket
        async with trio.open_nursery() as nursery:
            await nursery.start(ControlDoor(node, path).serve)
            client = await trio.to_thread.run_sync(partial(Client, socket=path))

            async def run() -> None:
                found.append(await trio.to_thread.run_sync(client.run, JOB, [], abandon_on_cancel=True))

            with trio.fail_after(10):
                async with trio.open_nursery() as running:
                    running.start_soon(run)
                    await node.asked_for.wait()
                    status = partial(client.ask, "status")
                    assert await trio.to_thread.run_sync(status, abandon_on_cancel=True)
                    assert not found
                    node.made.set()
            client.close()
            nursery.cancel_scope.cancel()

    trio.run(scenario)
    assert found[0].status == "ok" and found[0].receipt == b"receipt of " + found[0].job
