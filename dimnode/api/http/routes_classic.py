"""The endpoints of existing DIM clients, with their camelCase bodies, over the same jobs.

Rule: a translation and nothing more: such a job is a job file like any other, and its receipt verifies like any other.
The table of what becomes what is in docs/http.md.
"""

import hashlib
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Header, Request, WebSocket
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from dimnode.api.http.events import job_events, send_over_socket
from dimnode.api.http.inside import ERRORS, RECEIPT_HEADER, House, Who, answer
from dimnode.api.http.routes_jobs import After
from dimnode.api.http.shapes import OutputOut, Shape
from dimnode.errors import Refused
from dimnode.records.ids import cid_text

router = APIRouter(responses=dict(ERRORS), tags=["classic DIM"])

_METHODS: Final[Mapping[str, str]] = {
    "federated_averaging": "federated_average",
    "federated_average": "federated_average",
    "fedavg": "federated_average",
    "weighted_averaging": "weighted_average",
    "weighted_average": "weighted_average",
    "sum": "sum_counts",
    "sum_counts": "sum_counts",
    "majority_vote": "majority_vote",
    "majority_voting": "majority_vote",
    "weighted_vote": "weighted_vote",
    "weighted_voting": "weighted_vote",
}
_STATUS: Final[Mapping[str, str]] = {"ok": "completed", "cancelled": "cancelled"}


class Camel(BaseModel):
    """Bodies of other people's clients: what they send beside is passed over, as it always was."""

    model_config = ConfigDict(extra="ignore", populate_by_name=True, strict=True)


class MethodIn(Camel):
    """How answers become a result."""

    method: str = Field(default="", max_length=64)
    weights: list[float] = Field(default_factory=list, max_length=64)


class StepIn(Camel):
    """One step of a chain, or one model of a comparison."""

    model_id: str = Field(default="", alias="modelId", max_length=256)
    node: str = Field(default="", max_length=128)


class ConfigIn(Camel):
    """What is to be run, and where."""

    model_id: str = Field(default="", alias="modelId", max_length=256)
    model_ids: list[str] = Field(default_factory=list, alias="modelIds", max_length=64)
    nodes: list[str] = Field(default_factory=list, max_length=64, description="pins executors, in order")
    steps: list[StepIn] = Field(default_factory=list, max_length=64)
    operation: Literal["", "infer", "evaluate", "statistics"] = ""
    dataset: str = Field(default="", max_length=128, description="the cabinet at each node")
    aggregation: MethodIn = Field(default_factory=MethodIn)
    consensus: MethodIn = Field(default_factory=MethodIn)
    input_data: Any = Field(default=None, alias="inputData", description="rows, or {name: rows}")
    min_nodes: int = Field(default=0, alias="minNodes", ge=0, le=64)
    timeout_seconds: float = Field(default=120.0, alias="timeoutSeconds", gt=0)


class SubmitIn(Camel):
    """`POST /api/inference/submit`."""

    pattern: Literal["collaborative", "comparative", "chained"]
    config: ConfigIn
    input_data: Any = Field(default=None, alias="inputData", description="rows, or {name: rows}; here or in config")
    priority: Literal["low", "normal", "high"] = "normal"


class JobStatusOut(Shape):
    """How a job stands."""

    job_id: str = Field(alias="jobId")
    status: Literal["running", "completed", "failed", "cancelled"]
    pattern: str = ""
    code: str = ""
    reason: str = ""


class JobResultOut(JobStatusOut):
    """How it ended."""

    outputs: list[OutputOut] = Field(default_factory=list)
    receipt: str = ""


@router.post("/api/inference/submit", summary="Submit a job (classic)", response_model=JobStatusOut, status_code=202)
async def submit(
    house: House,
    who: Who,
    request: Request,
    body: SubmitIn,
    idempotency_key: Annotated[str, Header(max_length=255)] = "",
) -> Response:
    """Hand a job in."""
    digest = hashlib.sha256(await request.body()).digest()
    job, ended = await house.submission.submit(who, job_file(body), repeat=idempotency_key, digest=digest)
    request.state.job = cid_text(job)  # for the log
    found = {"jobId": cid_text(job), "status": _status(ended), "pattern": body.pattern, "code": "", "reason": ""}
    return answer(found, 202)


@router.get("/api/inference/status/{job_id}", summary="Status of a job (classic)", response_model=JobStatusOut)
async def status(house: House, who: Who, job_id: str) -> Response:
    """How it stands."""
    who.need("read")
    job = house.job(who, job_id)
    return answer(_told(house, job, await house.node.fetch_end(job)))


@router.get("/api/inference/result/{job_id}", summary="Result of a job (classic)", response_model=JobResultOut)
async def result(house: House, who: Who, job_id: str) -> Response:
    """How it ended; 409 while it is open."""
    who.need("read")
    job = house.job(who, job_id)
    ended = await house.node.fetch_end(job)
    if ended is None:
        raise Refused("E-job-12", "this job has no verdict yet", "", "GET /api/inference/status/{jobId}")
    found = await house.job_map(job, ended)
    told = _told(house, job, ended) | {"outputs": found["outputs"], "receipt": found["receipt"]}
    return answer(told, headers={RECEIPT_HEADER: found["verdict"]})


@router.post("/api/inference/cancel/{job_id}", summary="Cancel a job (classic)", response_model=JobStatusOut)
async def cancel(house: House, who: Who, job_id: str) -> Response:
    """Ask for its end. Harmless when repeated."""
    who.need("submit")
    job = house.job(who, job_id)
    await house.node.ask("job.cancel", {"op": "job.cancel", "job": job})
    return answer(_told(house, job, await house.node.fetch_end(job)))


@router.websocket("/ws/jobs/{job_id}")
async def follow(house: House, who: Who, socket: WebSocket, job_id: str, after: After = 0) -> None:
    """Its events as text messages, until it has ended."""
    who.need("read")
    job = house.job(who, job_id)
    await socket.accept()
    await send_over_socket(socket, job_events(house.node, job, after, house.limits, house.closing), house.closing)


def job_file(body: SubmitIn) -> dict[str, Any]:
    """The job file that a classic body means. Raises `Refused` E-http-13 for what it cannot mean."""
    config = body.config
    job: dict[str, Any] = {
        "pattern": body.pattern,
        "priority": body.priority,
        "deadline_seconds": config.timeout_seconds,
        "tasks": _tasks(body),
    }
    given = body.input_data if body.input_data is not None else config.input_data
    if given is not None:
        job["input"] = given if isinstance(given, dict) else {"x": given}
    chosen = config.consensus if body.pattern == "comparative" else config.aggregation
    if chosen.method:
        if chosen.method not in _METHODS:
            raise Refused("E-http-13", f"unknown method {chosen.method!r}", "", f"one of: {', '.join(_METHODS)}")
        job["rule"] = {"method": _METHODS[chosen.method]}
        if chosen.weights:
            job["rule"]["weights"] = chosen.weights
    if config.min_nodes:
        job["min_sites"] = config.min_nodes
    return job


def _tasks(body: SubmitIn) -> list[dict[str, Any]]:
    config = body.config
    steps = config.steps or [StepIn(modelId=model) for model in config.model_ids]
    match body.pattern:
        case "collaborative":
            return _sites(config)
        case "comparative":
            steps = steps or [StepIn(modelId=config.model_id, node=node) for node in config.nodes]
        case _:
            steps = steps or [StepIn(modelId=config.model_id)]
    nodes = [*config.nodes, *[""] * len(steps)]
    tasks = [{"model": step.model_id, "peer": step.node or nodes[place]} for place, step in enumerate(steps)]
    return [{key: text for key, text in task.items() if text} for task in tasks]


def _sites(config: ConfigIn) -> list[dict[str, Any]]:
    """The same question to each named node's cabinet."""
    if not config.nodes:
        raise Refused("E-http-13", "config.nodes is empty", "", "name the nodes that hold data: GET /dim/v1/data")
    if not config.dataset:
        raise Refused("E-http-13", "config.dataset is empty", "", "name the cabinet: GET /dim/v1/data")
    operation = config.operation or ("evaluate" if config.model_id else "statistics")
    task = {"op": operation, "cabinet": config.dataset}
    if config.model_id:
        task["model"] = config.model_id
    return [{**task, "peer": node} for node in config.nodes]


def _status(ended: Mapping[str, Any] | None) -> str:
    return "running" if ended is None else _STATUS.get(ended["status"], "failed")


def _told(house: House, job: Any, ended: Mapping[str, Any] | None) -> dict[str, Any]:
    rows = house.node.job_rows([job], 1, 2**62)
    found = {"jobId": cid_text(job), "status": _status(ended), "pattern": rows[0]["pattern"] if rows else ""}
    ended = ended or {}
    return {**found, "code": ended.get("code", ""), "reason": ended.get("reason", "")}
