"""Jobs over HTTP: check, hand in, list, look at, follow, cancel, and the receipt.

Rule: a job that was taken in is durable before its id is told, and goes on whether or not anybody listens.
"""

import hashlib
import json
import re
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, WebSocket
from fastapi.routing import APIRoute
from starlette.responses import Response

from dimnode.api.http.events import EventStream, job_events, send_over_socket
from dimnode.api.http.inside import ERRORS, RECEIPT_HEADER, House, Inside, Who, answer, both_of
from dimnode.api.http.routes_blobs import input_blobs
from dimnode.api.http.shapes import CancelOut, EventsOut, JobIn, JobOut, JobsOut, PlanOut
from dimnode.api.jobfile import read_job
from dimnode.api.port import Answer
from dimnode.errors import PeerFault, Refused
from dimnode.limits import LIMITS
from dimnode.records.ids import RecordId, cid_bytes, cid_text

RECEIPT_TYPE = "application/vnd.dimnode.receipt"
SUBPROTOCOL = "dimnode.v1"

router = APIRouter(prefix="/dim/v1", responses=dict(ERRORS), tags=["jobs"])

Wait = Annotated[float, Query(ge=0, le=LIMITS.http.wait_seconds_max, description="seconds to wait for its end")]
After = Annotated[int, Query(ge=0, le=2**62, description="only events after this id")]
_REPEAT_LETTERS_MAX = 255
_PLAIN_WAIT = re.compile(r"(?:wait=([0-9]{1,4}))?")
_NEVER_MS = 10**15
"""Far away, and a number that JavaScript keeps: the page of this API fills it into its form."""
_SSE: dict[int | str, dict[str, Any]] = {
    200: {"model": EventsOut, "content": {"text/event-stream": {"schema": {"type": "string"}}}},
    204: {"description": "a stream of an ended job after its last event: do not come back"},
}


@router.post("/jobs/validate", summary="Check a job without running it", response_model=PlanOut)
async def validate(house: House, who: Who, job: JobIn) -> Response:
    """Where it would run, what it costs and what may still be wrong. Nothing is run."""
    who.need("submit")
    wanted = job_file(job)
    read = read_job(wanted)
    house.submission.need_models(who, read)
    read, blobs = await house.submission.large_input(who, read, await input_blobs(house, who, job.blobs))
    found = await house.node.ask(
        "job.validate", {"op": "job.validate", "job": wanted | {"input": read.input}, "blobs": blobs}
    )
    return answer(found)


async def submit(
    request: Request,
    job: JobIn,
    wait: Wait = 0.0,
    idempotency_key: Annotated[str, Header(max_length=_REPEAT_LETTERS_MAX)] = "",
) -> Response:
    """Hand a job in: 202 while it is open, 200 when it ended within `wait` seconds.

    The same Idempotency-Key with the same body is the same job, for ever.
    """
    house, who = await both_of(request)
    digest = hashlib.sha256(await request.body()).digest()
    blobs = await input_blobs(house, who, job.blobs)
    found, ended = await house.submission.submit(
        who, job_file(job), blobs, repeat=idempotency_key, digest=digest, wait_seconds=wait
    )
    request.state.job = cid_text(found)  # for the log
    return await job_answer(house, found, ended)


class PlainFirst(APIRoute):
    """`submit`, past the framework for a request without a fault, which is nearly every one: what the framework looks
    at for any route is a fifth of what a job over HTTP costs. All others are its own, so it names what is wrong."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """For the framework."""
        usual = super().get_route_handler()

        async def handle(request: Request) -> Response:
            asked = _PLAIN_WAIT.fullmatch(request.scope["query_string"].decode("latin-1"))
            wait = -1.0 if asked is None else float(asked[1] or 0)
            repeat = request.headers.get("idempotency-key", "")
            if not 0 <= wait <= LIMITS.http.wait_seconds_max or len(repeat) > _REPEAT_LETTERS_MAX:
                return await usual(request)
            try:
                job = JobIn.model_validate(json.loads(await request.body()))
            except (ValueError, RecursionError):
                return await usual(request)
            return await submit(request, job, wait, repeat)

        return handle


router.add_api_route(
    "/jobs",
    submit,
    methods=["POST"],
    summary="Submit a job",
    response_model=JobOut,
    status_code=202,
    responses={200: {"model": JobOut}},
    route_class_override=PlainFirst,
)


@router.get("/jobs", summary="List jobs", response_model=JobsOut)
async def jobs(
    house: House,
    who: Who,
    most: Annotated[int, Query(ge=1, le=LIMITS.http.jobs_per_page_max)] = 20,
    before_ms: Annotated[int, Query(ge=0, le=_NEVER_MS)] = _NEVER_MS,
) -> Response:
    """This key's jobs, newest first; with an admin's key all of this node's."""
    who.need("read")
    if who.is_admin:
        rows = house.node.job_rows(None, most, before_ms)
        return answer({"jobs": rows, "before_ms": rows[-1]["at_ms"] if len(rows) >= most else None})
    asked = house.account.jobs_of(who.key.id, most, before_ms)  # some of them may not have been taken
    rows = house.node.job_rows([row.job for row in asked], len(asked), 2**62) if asked else []
    return answer({"jobs": rows, "before_ms": asked[-1].at_ms if len(asked) >= most else None})


@router.get("/jobs/{job}", summary="Show a job", response_model=JobOut)
async def show(house: House, who: Who, job: str, wait: Wait = 0.0) -> Response:
    """How it stands; with `wait`, how it stands when it has ended or the time is over."""
    who.need("read")
    found = house.job(who, job)
    ended = await house.node.fetch_end(found) or await house.submission.wait(found, wait)
    return await job_answer(house, found, ended, status=200)


@router.post("/jobs/{job}/cancel", summary="Cancel a job", response_model=CancelOut)
async def cancel(house: House, who: Who, job: str) -> Response:
    """Ask for its end. Harmless when repeated, and when it has ended."""
    who.need("submit")
    return answer(await house.node.ask("job.cancel", {"op": "job.cancel", "job": house.job(who, job)}))


@router.get("/jobs/{job}/events", summary="Events of a job", response_model=EventsOut, responses=_SSE)
async def events(
    house: House,
    who: Who,
    request: Request,
    job: str,
    after: After = 0,
    last_event_id: Annotated[str, Header(max_length=32)] = "",
) -> Response:
    """Its events: as JSON what is on record, or live as server-sent events with `Accept: text/event-stream`.

    A stream that broke goes on after `Last-Event-ID` (browsers send it by themselves).
    """
    who.need("read")
    found = house.job(who, job)
    if last_event_id.isdecimal():
        after = max(after, min(int(last_event_id), 2**62))
    if "text/event-stream" in request.headers.get("accept", ""):
        if house.node.has_ended(found) and not house.node.trail(found, after, 1):
            return Response(status_code=204)  # browsers come back after every other end
        return EventStream(job_events(house.node, found, after, house.limits, house.closing))
    rows = house.node.trail(found, after, house.limits.events_per_page)
    return answer({"events": rows, "last": rows[-1]["id"] if rows else after})


@router.get(
    "/jobs/{job}/receipt",
    summary="Receipt of a job",
    response_class=Response,
    responses={200: {"content": {RECEIPT_TYPE: {}}}},
)
async def receipt(house: House, who: Who, job: str) -> Response:
    """The signed record tree in one file: `dim verify` it anywhere."""
    who.need("read")
    return await receipt_answer(house, house.job(who, job))


@router.get(
    "/receipts/{verdict}",
    summary="Receipt of a verdict",
    response_class=Response,
    responses={200: {"content": {RECEIPT_TYPE: {}}}},
)
async def receipt_of_verdict(house: House, who: Who, verdict: str) -> Response:
    """The receipt that an `X-Dimnode-Receipt` header names."""
    who.need("read")
    try:
        found = house.node.job_of_verdict(RecordId(cid_bytes(verdict)))
    except PeerFault:
        found = None
    no = Refused("E-job-13", f"no receipt {verdict[:80]!r}", "", "GET /dim/v1/jobs")
    if found is None:
        raise no
    try:
        job = house.job(who, cid_text(found))
    except Refused:  # another key's: not even its job's id is told
        raise no from None
    return await receipt_answer(house, job)


@router.websocket("/jobs/{job}/ws")
async def follow(house: House, who: Who, socket: WebSocket, job: str, after: After = 0) -> None:
    """The same events as text messages, until the job has ended."""
    who.need("read")
    found = house.job(who, job)
    await socket.accept(SUBPROTOCOL if SUBPROTOCOL in socket.scope.get("subprotocols", ()) else None)
    await send_over_socket(socket, job_events(house.node, found, after, house.limits, house.closing), house.closing)


def job_file(job: JobIn) -> dict[str, Any]:
    """The job file that the request means: only what was said, under the file's names."""
    said = job.model_dump(exclude_unset=True, exclude={"blobs", "input"}, by_alias=True)
    found = {key: value for key, value in said.items() if value is not None}
    return found | ({"input": job.input} if job.input else {})  # as it is: a copy of many numbers takes its time


async def job_answer(house: Inside, job: RecordId, ended: Answer | None, status: int = 0) -> Response:
    """A `JobOut`, with the receipt's name in a header once there is one."""
    headers = {RECEIPT_HEADER: cid_text(ended["verdict"])} if ended and ended["verdict"] else {}
    return answer(await house.job_map(job, ended), status or (202 if ended is None else 200), headers)


async def receipt_answer(house: Inside, job: RecordId) -> Response:
    """The file."""
    ended = None
    with suppress(Refused):  # the answer made room for newer ones, which its receipt says
        ended = await house.node.fetch_end(job)
    raw = await house.node.fetch_receipt(job)
    name = cid_text(job)[-8:]
    headers = {"Content-Disposition": f'attachment; filename="{name}.dimr"'}
    if ended is not None:
        headers[RECEIPT_HEADER] = cid_text(ended["verdict"])
    return Response(raw, 200, headers, RECEIPT_TYPE)
