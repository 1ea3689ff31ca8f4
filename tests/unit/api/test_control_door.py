"""The control socket's door, with the real client at the other end."""

import os
import select
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from dimnode.api.control import ControlDoor, complaint_of
from dimnode.api.port import Answer
from dimnode.client import Client, Ended
from dimnode.config import socket_path
from dimnode.control_line import Line, Slot
from dimnode.errors import NoNode, Refused
from dimnode.limits import LIMITS, Limits
from dimnode.records.ids import RecordId
from dimnode.records.tensors import Tensor, encode_tensors
from dimnode.wire import FrameDecoder, pack_frame, unpack_body
from tests.unit.api import http_stage
from tests.unit.api.http_stage import FakeNode

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


def behind_the_door(
    path: Path, act: Callable[[trio.Event], None], limits: Limits = LIMITS, node: FakeNode | None = None
) -> None:
    """Run `act` in a thread, in front of a node of dictionaries; the event is for closing the door early."""

    async def main() -> None:
        shut = trio.Event()
        async with trio.open_nursery() as nursery:
            await nursery.start(ControlDoor(node or FakeNode(), path, limits).serve)

            async def close() -> None:
                await shut.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(close)
            with trio.fail_after(60), trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(act, shut)
            nursery.cancel_scope.cancel()

    trio.run(main)


def test_answers_that_come_while_a_client_still_asks_are_read_and_never_cut_it_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sixty answers of a megabyte, which the node may not hold, and of which each comes before the next question."""
    monkeypatch.setattr(http_stage, "OUTPUT", encode_tensors([Tensor("y", "uint8", (1_000_000,), bytes(1_000_000))]))
    blob = encode_tensors([Tensor("x", "float32", (8192, 2), bytes(65536))])
    few = replace(LIMITS, api=replace(LIMITS.api, client_unread_bytes_max=8 * 1024 * 1024))
    ended: list[Ended] = []

    def act(_: trio.Event) -> None:
        with Client(socket=socket_path(tmp_path)) as client:
            ended.extend(client.run_many(({"tasks": JOB["tasks"]}, [blob]) for _ in range(60)))

    behind_the_door(socket_path(tmp_path), act, few)
    assert {end.status for end in ended} == {"ok"} and len(ended) == 60


def test_what_has_come_is_read_without_waiting_and_a_lost_node_is_told_to_who_waits(tmp_path: Path) -> None:
    def act(shut: trio.Event) -> None:
        line, slot = Line(None, socket_path(tmp_path)), Slot()
        line.catch_up()  # nothing has come
        _, frame = line.frame(slot, "job.show")
        line.send(frame, [slot])
        select.select([line._socket], [], [], 20)
        line.catch_up()
        assert slot.done
        trio.from_thread.run_sync(shut.set)
        select.select([line._socket], [], [], 20)
        line.catch_up()
        for _ in range(2):
            with pytest.raises(NoNode, match="the connection to the node broke"):
                line.advance(lambda: False, None)

    behind_the_door(socket_path(tmp_path), act)


class Mistaken(FakeNode):
    """What it answers has a number that no frame holds, and what it is given breaks it."""

    async def ask(self, op: str, arguments: Mapping[str, Any]) -> Answer:
        return {"bytes": 2**64} if op == "models.ls" else await super().ask(op, arguments)

    def known_job(self, nonce: bytes) -> RecordId | None:
        raise KeyError(nonce)


def test_a_mistake_of_ours_refuses_the_question_and_ends_neither_its_client_nor_the_node(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def act(_: trio.Event) -> None:
        with Client(socket=socket_path(tmp_path)) as client:
            with pytest.raises(Refused, match="E-api-99"):
                client.ask("models.ls")
            with pytest.raises(Refused, match="E-api-99"):
                client.run(JOB, [], nonce=bytes(16))
            assert client.status()

    behind_the_door(socket_path(tmp_path), act, node=Mistaken())
    assert [record.exc_info is not None for record in caplog.records] == [True, True]


def test_a_question_without_a_short_id_ends_its_connection_and_nothing_else(tmp_path: Path) -> None:
    """The refusal of an answer that is too long would repeat what stands there, however long that is."""
    few = replace(LIMITS, api=replace(LIMITS.api, request_bytes_max=3 * 1024 * 1024))

    def act(_: trio.Event) -> None:
        wrong = [{"id": identity} for identity in (bytes(3 * 1024 * 1024 - 64), "x" * 65, [], {"a": 1})]
        for without in (*wrong, {}):
            line = Line(None, socket_path(tmp_path))
            line.send(pack_frame({**without, "op": "x"}, 2**32), [])
            with pytest.raises(NoNode):
                line.advance(lambda: False, None)
        with Client(socket=socket_path(tmp_path)) as client:
            assert client.status()

    behind_the_door(socket_path(tmp_path), act, few)


@pytest.mark.parametrize("op", ["status", "no such question"])
@pytest.mark.parametrize("identity", [7, 2**64 - 1, "a word", "x" * 64, b"\0" * 64, 1.5, True, None])
def test_an_id_is_anything_short_and_comes_back_as_it_was(tmp_path: Path, identity: object, op: str) -> None:
    """Clients that others wrote count as they like."""
    found: list[object] = []

    def act(_: trio.Event) -> None:
        line = Line(None, socket_path(tmp_path))
        line.send(pack_frame({"id": identity, "op": op}), [])
        decoder = FrameDecoder()
        while not found:
            found.extend(map(unpack_body, decoder.feed(line._socket.recv(65536))))

    behind_the_door(socket_path(tmp_path), act)
    assert isinstance(found[0], dict) and found[0]["id"] == identity


def test_a_job_of_lists_in_lists_without_end_is_refused_and_ends_neither_its_connection_nor_the_node(
    tmp_path: Path,
) -> None:
    """Python cannot print them, nor say what is wrong with them."""

    def act(_: trio.Event) -> None:
        with Client(socket=socket_path(tmp_path)) as client:
            for deep in (LIMITS.wire.frame_depth_max, 1000):
                for inner in ([], {}):
                    for _ in range(deep):
                        inner = [inner] if isinstance(inner, list) else {"a": inner}
                    with pytest.raises(Refused, match="E-api-03"):
                        client.run({**JOB, "input": {"x": inner}}, [])
            assert client.status()

    behind_the_door(socket_path(tmp_path), act)


def test_an_error_about_a_file_whose_name_is_no_text_can_be_told() -> None:
    """A stranger's folder has it; packing it as it is ended the node."""
    said = complaint_of(Refused("E-models-26", f"{os.fsdecode(b'a' + bytes([255]))} is a link", "x", "y"))
    assert unpack_body(pack_frame(said)[4:])["what"] == r"a\udcff is a link"
