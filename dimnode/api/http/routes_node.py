"""The node and its neighbours over HTTP: what can be run, where, and what this node thinks of its peers.

Rule: read only; an answer is a plain map of the node's own, shown with units in the names of its keys.
"""

from fastapi import APIRouter
from starlette.responses import Response

from dimnode.api.http.inside import ERRORS, House, Who, answer, ask
from dimnode.api.http.shapes_node import (
    CabinetsOut,
    PeersOut,
    StandingOut,
    StatusOut,
    WhyOut,
)

router = APIRouter(prefix="/dim/v1", responses=dict(ERRORS))


@router.get("/data", summary="List data cabinets", response_model=CabinetsOut, tags=["data"])
async def cabinets(house: House, who: Who) -> Response:
    """Cabinets of this node and of its peers: names and columns, never rows or paths."""
    who.need("read")
    own = (await ask(house, "data.ls"))["cabinets"]
    rows = [
        {"name": row["name"], "peer": "self", "columns": row["columns"], "operations": row["operations"]} for row in own
    ]
    for peer in (await ask(house, "peers"))["peers"]:
        rows += [
            {"name": name, "peer": peer["peer"], "columns": columns, "operations": []}
            for name, columns in peer["cabinets"].items()
        ]
    return answer({"cabinets": rows})


@router.get("/peers", summary="List peers", response_model=PeersOut, tags=["swarm"])
async def peers(house: House, who: Who) -> Response:
    """Peers that were heard lately."""
    who.need("read")
    found = await ask(house, "peers")
    keys = PeersOut.row_keys()
    return answer({"me": found["me"], "peers": [{key: row.get(key) for key in keys} for row in found["peers"]]})


@router.get("/standing", summary="Standing of peers", response_model=StandingOut, tags=["swarm"])
async def standing(house: House, who: Who) -> Response:
    """What this node thinks of its peers, from its own experience alone."""
    who.need("read")
    return answer(await ask(house, "rep.ls"))


@router.get("/standing/{peer}", summary="Why a peer stands as it does", response_model=WhyOut, tags=["swarm"])
async def why(house: House, who: Who, peer: str) -> Response:
    """The events behind a peer's standing, each with the record that shows it."""
    who.need("read")
    return answer(await ask(house, "rep.explain", peer=peer))


@router.get("/status", summary="Status of the node", response_model=StatusOut, tags=["node"])
async def status(house: House, who: Who) -> Response:
    """How the node is; an admin's key."""
    who.need("admin")
    found = await ask(house, "status")
    keys = StatusOut.model_fields
    return answer({key: found[key] for key in keys if key in found})
