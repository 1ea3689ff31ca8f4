"""Is it alive, is it ready, how is it doing.

Rule: /health and /ready are open and say nothing about who asks what; /metrics wants a key, because rates are a secret.
"""

from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from dimnode.api.http.inside import ERRORS, House, Who, answer
from dimnode.api.http.shapes import ErrorOut
from dimnode.api.http.shapes_node import HealthOut, ReadyOut

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_METRICS: dict[int | str, dict[str, Any]] = {
    **ERRORS,
    200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "the text format, version 0.0.4"},
}

router = APIRouter(responses={status: ERRORS[status] for status in (400, 403, 500, 503)}, tags=["node"])


@router.get("/health", summary="Is the node alive", response_model=HealthOut)
async def health() -> Response:
    """The loop that answers this is the one that does everything else."""
    return answer({"ok": True})


@router.get(
    "/ready", summary="Is the node ready", response_model=ReadyOut, responses={503: {"model": ReadyOut | ErrorOut}}
)
async def ready(house: House) -> Response:
    """200 when jobs can run here or on a peer; 503 with what is missing."""
    found = house.node.readiness()
    return answer(found, 200 if found["ready"] else 503)


@router.get("/metrics", summary="Metrics for Prometheus", response_class=Response, responses=_METRICS)
async def metrics(house: House, who: Who) -> Response:
    """For Prometheus: docs/http.md lists every name."""
    who.need("read")
    return Response(house.meter.page(), 200, None, METRICS_TYPE)
