"""What every route stands on, and the few lines that all of them repeat.

Rule: a route reads its caller and this, nothing global; a job that is not the caller's does not exist for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import trio
from fastapi import Depends
from starlette.requests import HTTPConnection
from starlette.responses import Response

from dimnode.api.http.caller import Caller
from dimnode.api.http.closing import Closing
from dimnode.api.http.meter import Meter
from dimnode.api.http.shapes import ErrorOut
from dimnode.api.http.submission import Account, Submission
from dimnode.api.http.text import Texts
from dimnode.api.http.values import add_names, output_map
from dimnode.api.port import Answer, NodePort
from dimnode.errors import PeerFault, Refused
from dimnode.limits import HttpLimits
from dimnode.records.ids import RECORD_PREFIX, RecordId, cid_bytes, cid_text

if TYPE_CHECKING:
    from dimnode.api.http.routes_blobs import Shelf

RECEIPT_HEADER = "X-Dimnode-Receipt"


@dataclass(frozen=True, slots=True)
class Inside:
    """The node behind the door."""

    node: NodePort
    account: Account
    submission: Submission
    texts: Texts
    meter: Meter
    shelf: Shelf
    closing: Closing
    limits: HttpLimits

    def job(self, caller: Caller, name: str) -> RecordId:
        """A job of this caller's, or any for an admin. Raises `Refused` E-job-13: others' jobs cannot be told apart
        from those that never were."""
        no = Refused("E-job-13", f"no job {name[:80]!r}", "ids are whole here", "GET /dim/v1/jobs")
        try:
            raw = cid_bytes(name)
        except PeerFault:
            raise no from None
        if not raw.startswith(RECORD_PREFIX):  # last letters would be looked for among all jobs of all keys
            raise no
        job = RecordId(raw)
        asked = self.account.job(job)
        mine = asked is not None and asked.key == caller.key.id
        if not mine and not (caller.is_admin and self.node.trail(job, 0, 1)):
            raise no
        return job

    async def job_map(self, job: RecordId, ended: Answer | None) -> dict[str, Any]:
        """A `JobOut`."""
        text = cid_text(job)
        found: dict[str, Any] = {"job": text, "status": "open", "events": f"/dim/v1/jobs/{text}/events"}
        if ended is None:
            return found
        found |= {
            "status": ended["status"],
            "verdict": cid_text(ended["verdict"]) if ended["verdict"] else "",
            "outputs": [await self._output(blob) for blob in ended["outputs"] if blob is not None],
            "receipt": f"/dim/v1/jobs/{text}/receipt",
        }
        add_names(found["outputs"], lambda: self.node.class_names(job))
        if ended.get("code"):
            found |= {"code": ended["code"], "reason": ended.get("reason", "")}
        return found

    async def _output(self, blob: bytes) -> dict[str, Any]:
        """A long one is looked through in a thread."""
        if len(blob) <= self.limits.output_in_loop_bytes_max:
            return output_map(blob)
        return await trio.to_thread.run_sync(output_map, blob)


async def inside_of(connection: HTTPConnection) -> Inside:
    """The app's `Inside`. A coroutine, like the next one: the framework runs plain functions in threads."""
    found = connection.app.state.inside
    assert isinstance(found, Inside)
    return found


async def caller_of(connection: HTTPConnection) -> Caller:
    """Set by the guard before any route runs."""
    found = connection.scope["state"]["caller"]
    assert isinstance(found, Caller)
    return found


async def both_of(connection: HTTPConnection) -> tuple[Inside, Caller]:
    """For the routes of jobs: the framework takes longer to solve two dependencies than a key's look-up takes."""
    return await inside_of(connection), await caller_of(connection)


House = Annotated[Inside, Depends(inside_of)]
Who = Annotated[Caller, Depends(caller_of)]

ERRORS: Mapping[int | str, dict[str, Any]] = {
    status: {"model": ErrorOut, "description": words}
    for status, words in (
        (400, "the request is wrong"),
        (401, "no valid key"),
        (403, "not with this key, host or origin"),
        (404, "not there, or not this key's"),
        (409, "not now, or not like this again"),
        (413, "too large"),
        (415, "bodies are JSON"),
        (429, "too often; see Retry-After"),
        (500, "a bug in dimnode"),
        (503, "nobody can do it now; see Retry-After"),
    )
}
"""What every route may answer beside its own."""


async def ask(house: Inside, op: str, **arguments: Any) -> Answer:
    """A question or command of the node's own. Raises `Refused`."""
    return await house.node.ask(op, {"op": op, **arguments})


def answer(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """JSON, written once."""
    return Response(msgspec.json.encode(body), status, dict(headers or {}), "application/json")
