"""Models over HTTP: what can be run, what came up becomes one, who may use it.

Rule: reading wants `read`; what changes what this node offers, has or lets others do wants `admin`, and goes through
the same commands as on the command line. What a model file declares is read in a sandbox, never in this process.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import Response

from dimnode.api.http.caller import names_of_model
from dimnode.api.http.inside import ERRORS, House, Who, answer, ask
from dimnode.api.http.routes_blobs import upload_of
from dimnode.api.http.shapes_models import (
    AddedOut,
    CheckedOut,
    GrantedOut,
    GrantIn,
    ModelIn,
    ModelShown,
    ModelsOut,
    PulledOut,
    PullIn,
    RevokedOut,
    RevokeIn,
    WithdrawIn,
    WithdrawnOut,
)
from dimnode.errors import Refused

router = APIRouter(prefix="/dim/v1", responses=dict(ERRORS), tags=["models"])

Publisher = Annotated[str, Query(max_length=64)]


@router.get("/models", summary="List models", response_model=ModelsOut)
async def models(house: House, who: Who, publisher: Publisher = "") -> Response:
    """Every model that can be run now, here or on a peer, and that this key may use; or all that one peer publishes."""
    who.need("read")
    try:
        found = await ask(house, "models.ls", publisher=publisher or None)
    except Refused:
        if who.key.models:  # why not would tell it of publishers and models that are not its own
            return answer({"models": []})
        raise
    return answer({"models": [row for row in found["models"] if _may_use(who, row)]})


@router.post("/models", summary="Add a model", response_model=AddedOut, status_code=201)
async def add_model(house: House, who: Who, model: ModelIn) -> Response:
    """Offer uploads as a model: `POST /dim/v1/blobs` first. They become its files without a copy.

    Inputs and outputs of the card are compared with the model (`E-models-07`), and read from it where it says none.
    """
    who.need("admin")
    card = model.model_dump(exclude={"blob", "files"})
    files = [(file.path, str(file.role), upload_of(house, who, file.blob)) for file in model.files]
    if model.blob:
        place = upload_of(house, who, model.blob)
        files.append((place.name, "model", place))
    return answer(await house.node.add_model(card, files), 201)


@router.post("/models/{model:path}/pull", summary="Fetch a model", response_model=PulledOut)
async def pull(house: House, who: Who, model: str, where: PullIn) -> Response:
    """Have a model's files here; answered when they are. A request that ends earlier stops it, and the next one goes on
    where it was."""
    who.need("admin")
    return answer(await ask(house, "models.pull", model=model, peers=where.peers))


@router.post("/models/{model:path}/verify", summary="Hash a model's files again", response_model=CheckedOut)
async def verify(house: House, who: Who, model: str) -> Response:
    """A file that does not hold is removed, and the model is no longer offered by this node."""
    who.need("admin")
    return answer(await ask(house, "models.verify", model=model))


@router.post("/models/{model:path}/grant", summary="Let a peer use a model", response_model=GrantedOut, status_code=201)
async def grant(house: House, who: Who, model: str, grant: GrantIn) -> Response:
    """Sign a grant for a restricted or pay-per-use model of this node's own."""
    who.need("admin")
    return answer(await ask(house, "models.grant", model=model, **grant.model_dump()), 201)


@router.post("/models/{model:path}/revoke", summary="Take a grant back", response_model=RevokedOut)
async def revoke(house: House, who: Who, model: str, revoke: RevokeIn) -> Response:
    """End all grants of a peer for a model of this node's own; whoever hears of it obeys."""
    who.need("admin")
    return answer(await ask(house, "models.revoke", model=model, **revoke.model_dump()))


@router.post("/models/{model:path}/withdraw", summary="Take a model back", response_model=WithdrawnOut)
async def withdraw(house: House, who: Who, model: str, withdraw: WithdrawIn) -> Response:
    """No peer that hears of it runs or hands out this model of this node's own any more."""
    who.need("admin")
    return answer(await ask(house, "models.withdraw", model=model, **withdraw.model_dump()))


@router.get("/models/{model:path}", summary="Show a model", response_model=ModelShown)
async def model(house: House, who: Who, model: str) -> Response:
    """One model by id, name or name:version, also one that was withdrawn or that nobody offers now."""
    who.need("read")
    no = Refused("E-models-01", f"no model {model[:80]!r} is known here", "", "GET /dim/v1/models")
    try:
        found = await ask(house, "models.show", model=model)
    except Refused:
        if who.key.models:  # a key that is bound to models does not learn of others
            raise no from None
        raise
    if not _may_use(who, found):
        raise no
    newer = [title for title in found["newer"] if _may_use(who, found | {"model": "", "name": title})]
    return answer(found if who.is_admin else found | {"grants": [], "newer": newer})


def _may_use(who: Who, row: dict[str, Any]) -> bool:
    """By any of `caller.model_names`."""
    names = (row["name"], row["name"].rpartition(":")[0])
    goes_by = names_of_model(names, row["model"], row["publisher"])
    return not who.key.models or not set(goes_by).isdisjoint(who.key.models)
