"""The node and its neighbours over HTTP: what can be run, where, and what this node thinks of its peers.

Rule: read only; an answer is a plain map of the node's own, shown with units in the names of its keys.
"""

from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from dimnode.api.http.inside import ERRORS, House, Who, answer
from dimnode.api.http.shapes_node import (
    CabinetsOut,
    ModelOut,
    ModelsOut,
    PeersOut,
    StandingOut,
    StatusOut,
    WhyOut,
)
from dimnode.errors import Refused
from dimnode.records.ids import cid_text

router = APIRouter(prefix="/dim/v1", responses=dict(ERRORS))


async def _ask(house: House, op: str, **arguments: Any) -> dict[str, Any]:
    return await house.node.ask(op, {"op": op, **arguments})


@router.get("/models", summary="List models", response_model=ModelsOut, tags=["models"])
async def models(house: House, who: Who) -> Response:
    """Every model that can be run now, here or on a peer, and that this key may use."""
    who.need("read")
    found = await _ask(house, "models.ls")
    return answer({"models": [row for row in found["models"] if _may_use(who, row)]})


@router.get("/models/{model:path}", summary="Show a model", response_model=ModelOut, tags=["models"])
async def model(house: House, who: Who, model: str) -> Response:
    """One model by id, name or name:version."""
    who.need("read")
    no = Refused("E-models-01", f"no model {model[:80]!r} can be run now", "", "GET /dim/v1/models")
    try:
        record = house.node.find_model(model)
    except Refused:
        if who.key.models:  # a key that is bound to models does not learn of others
            raise no from None
        raise
    found = await _ask(house, "models.ls")
    rows = [row for row in found["models"] if row["model"] == cid_text(record.id) and _may_use(who, row)]
    if not rows:
        raise no
    return answer(rows[0])


@router.get("/data", summary="List data cabinets", response_model=CabinetsOut, tags=["data"])
async def cabinets(house: House, who: Who) -> Response:
    """Cabinets of this node and of its peers: names and columns, never rows or paths."""
    who.need("read")
    own = (await _ask(house, "data.ls"))["cabinets"]
    rows = [
        {"name": row["name"], "peer": "self", "columns": row["columns"], "operations": row["operations"]} for row in own
    ]
    for peer in (await _ask(house, "peers"))["peers"]:
        rows += [
            {"name": name, "peer": peer["peer"], "columns": columns, "operations": []}
            for name, columns in peer["cabinets"].items()
        ]
    return answer({"cabinets": rows})


@router.get("/peers", summary="List peers", response_model=PeersOut, tags=["swarm"])
async def peers(house: House, who: Who) -> Response:
    """Peers that were heard lately."""
    who.need("read")
    found = await _ask(house, "peers")
    keys = PeersOut.row_keys()
    return answer({"me": found["me"], "peers": [{key: row.get(key) for key in keys} for row in found["peers"]]})


@router.get("/standing", summary="Standing of peers", response_model=StandingOut, tags=["swarm"])
async def standing(house: House, who: Who) -> Response:
    """What this node thinks of its peers, from its own experience alone."""
    who.need("read")
    return answer(await _ask(house, "rep.ls"))


@router.get("/standing/{peer}", summary="Why a peer stands as it does", response_model=WhyOut, tags=["swarm"])
async def why(house: House, who: Who, peer: str) -> Response:
    """The events behind a peer's standing, each with the record that shows it."""
    who.need("read")
    return answer(await _ask(house, "rep.explain", peer=peer))


@router.get("/status", summary="Status of the node", response_model=StatusOut, tags=["node"])
async def status(house: House, who: Who) -> Response:
    """How the node is; an admin's key."""
    who.need("admin")
    found = await _ask(house, "status")
    keys = StatusOut.model_fields
    return answer({key: found[key] for key in keys if key in found})


def _may_use(who: Who, row: dict[str, Any]) -> bool:
    """By any of `caller.model_names`."""
    names = (row["name"], row["name"].rpartition(":")[0])
    goes_by = {row["model"], *names, *(f"{row['publisher']}/{name}" for name in names)}
    return not who.key.models or not goes_by.isdisjoint(who.key.models)
