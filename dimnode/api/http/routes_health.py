"""Is it alive, is it ready, how is it doing.

Rule: /health and /ready are open and say nothing about who asks what; /metrics wants a key, because rates are a secret.
"""

from fastapi import APIRouter
from starlette.responses import Response

from dimnode.api.http.inside import ERRORS, House, Who, answer
from dimnode.api.http.shapes_node import HealthOut, ReadyOut

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"

router = APIRouter(responses={500: ERRORS[500], 503: ERRORS[503]}, tags=["node"])


@router.get("/health", response_model=HealthOut)
async def health() -> Response:
    """The loop that answers this is the one that does everything else."""
    return answer({"ok": True})


@router.get("/ready", response_model=ReadyOut, responses={503: {"model": ReadyOut}})
async def ready(house: House) -> Response:
    """200 when jobs can run here or on a peer; 503 with what is missing."""
    found = house.node.readiness()
    return answer(found, 200 if found["ready"] else 503)


@router.get("/metrics", response_class=Response, responses=dict(ERRORS) | {200: {"content": {"text/plain": {}}}})
async def metrics(house: House, who: Who) -> Response:
    """For Prometheus: docs/http.md lists every name."""
    who.need("read")
    return Response(house.meter.page(), 200, None, METRICS_TYPE)
