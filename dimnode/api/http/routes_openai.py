"""OpenAI's shape of two questions: which models are there, and what are these texts as vectors.

Rule: an answer here is an ordinary job's: one chain of one step, with a receipt. Fields of theirs that mean nothing
here are passed over; values that would change the answer are honoured or refused.

Source: https://platform.openai.com/docs/api-reference/embeddings and /models
"""

import base64
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

import numpy as np
from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from dimnode.api.http.caller import model_names
from dimnode.api.http.inside import ERRORS, RECEIPT_HEADER, House, Inside, Who, answer, both_of
from dimnode.api.http.shapes import Shape
from dimnode.api.http.text import no_tokens, takes_text
from dimnode.errors import Refused
from dimnode.limits import LIMITS
from dimnode.records.envelope import Record
from dimnode.records.ids import cid_text, peer_text
from dimnode.records.tensors import decode_tensors

router = APIRouter(prefix="/v1", responses=dict(ERRORS), tags=["OpenAI"])

_TEXTS_MAX: Final = 2048
_LETTERS_MAX: Final = 200_000
_OWNER_LETTERS: Final = 8

Text = Annotated[str, Field(max_length=_LETTERS_MAX)]
Tokens = Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1, max_length=8192)]


class EmbeddingsIn(BaseModel):
    """`POST /v1/embeddings`."""

    model_config = ConfigDict(extra="ignore", strict=True)

    model: str = Field(max_length=256)
    input: (
        Text
        | Annotated[list[Text], Field(min_length=1, max_length=_TEXTS_MAX)]
        | Tokens
        | Annotated[list[Tokens], Field(min_length=1, max_length=_TEXTS_MAX)]
    )
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(default=None, ge=1)


class EmbeddingOut(Shape):
    """One text's vector: numbers, or base64 of float32 in little endian."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class UsageOut(Shape):
    """Tokens."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsOut(Shape):
    """Vectors in the order of the texts."""

    object: Literal["list"]
    data: list[EmbeddingOut]
    model: str
    usage: UsageOut


class OpenAiModel(Shape):
    """A model that this key may use."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class OpenAiModels(Shape):
    """Models."""

    object: Literal["list"]
    data: list[OpenAiModel]


@router.get("/models", summary="List models that take text", response_model=OpenAiModels)
async def models(house: House, who: Who) -> Response:
    """Models that take text and that this key may use."""
    who.need("read")
    return answer({"object": "list", "data": [_model_map(record) for record in await _text_models(house, who)]})


@router.get("/models/{model:path}", summary="Show a model that takes text", response_model=OpenAiModel)
async def model(house: House, who: Who, model: str) -> Response:
    """One of them."""
    who.need("read")
    for record in await _text_models(house, who):
        if model in model_names(record):
            return answer(_model_map(record))
    raise Refused("E-models-01", f"no model {model[:80]!r} takes text here", "", "GET /v1/models")


def not_embedded(ended: Mapping[str, Any]) -> Refused:
    """Why there are no vectors: an extra is missing at those that have the model, or the job failed."""
    code, reason = ended.get("code"), str(ended.get("reason", ""))
    if code == "E-exec-91" or (code == "E-jobs-13" and re.search(r"\btext\b", reason)):
        return no_tokens(reason)
    hint = "try again; GET /dim/v1/jobs says more of the job"
    return Refused("E-http-17", "the texts were not embedded", f"{code} {reason}", hint, 1000)


@router.post("/embeddings", summary="Embed texts", response_model=EmbeddingsOut)
async def embeddings(request: Request, body: EmbeddingsIn) -> Response:
    """Texts, or tokens, to vectors, by a model of the swarm."""
    house, who = await both_of(request)
    who.need("submit")
    who.need_model(house.submission.names_of(body.model))
    record = house.node.find_model(body.model)
    rows = _rows(body.input)
    _bounded("letters", sum(len(row) for row in rows), house.limits.embedding_letters_max)
    cut = await house.texts.cut(record, rows)
    _bounded("tokens", cut.tokens, house.limits.embedding_tokens_max)
    _bounded("tokens, padded to the longest text,", cut.padded, house.limits.embedding_padded_tokens_max)
    job = {"tasks": [{"model": cid_text(record.id)}], "visibility": "participants"}
    seconds = LIMITS.http.wait_seconds_max
    identity, ended = await house.submission.submit(
        who, {**job, "deadline_seconds": seconds}, [cut.to_blob()], wait_seconds=seconds + 1
    )
    if ended is None or ended["status"] != "ok":
        raise not_embedded(ended or {"code": "E-jobs-05", "reason": "it took too long"})
    vectors = _vectors(ended["outputs"][0], len(cut.rows), body.dimensions)
    names, tokens = model_names(record), cut.tokens or _tokens(ended["outputs"][0])
    found = {
        "object": "list",
        "data": [
            {"object": "embedding", "index": place, "embedding": _written(vector, body.encoding_format)}
            for place, vector in enumerate(vectors)
        ],
        "model": names[0],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    return answer(found, headers={RECEIPT_HEADER: cid_text(ended["verdict"]), "X-Dimnode-Job": cid_text(identity)})


def _bounded(what: str, count: int, most: int) -> None:
    if count > most:
        raise Refused("E-input-05", f"{count} {what} are too many at once", f"at most {most}", "send fewer texts")


def _rows(given: Any) -> Sequence[Any]:
    """One text, several, one row of tokens, or several."""
    if isinstance(given, str):
        return [given]
    return [given] if isinstance(given[0], int) else list(given)


def _vectors(blob: bytes, count: int, dimensions: int | None) -> np.ndarray[Any, Any]:
    """The output tensor `embedding`, or the only one. Raises `Refused` when it is no vector per text."""
    tensors = {tensor.name: tensor for tensor in decode_tensors(blob)}
    vectors = [tensor for tensor in tensors.values() if tensor.dtype == "float32" and len(tensor.shape) == 2]
    found = tensors.get("embedding") or (vectors[0] if len(vectors) == 1 else None)
    if found is None or found.dtype != "float32" or len(found.shape) != 2 or found.shape[0] != count:
        raise Refused("E-http-15", "the model gives no vector for each text", "", "GET /v1/models lists those that do")
    if dimensions not in (None, found.shape[1]):
        raise Refused("E-http-13", f"dimensions is {dimensions}", f"this model gives {found.shape[1]}", "leave it out")
    return np.frombuffer(found.raw, dtype="<f4").reshape(found.shape)


def _tokens(blob: bytes) -> int:
    """What a model that cut the texts itself says of their tokens; 0 when it does not."""
    found = next((tensor for tensor in decode_tensors(blob) if tensor.name == "tokens"), None)
    if found is None or found.dtype != "int64":
        return 0
    return max(0, int(np.frombuffer(found.raw, dtype="<i8").sum()))


def _written(vector: np.ndarray[Any, Any], form: str) -> list[float] | str:
    return base64.b64encode(vector.tobytes()).decode() if form == "base64" else vector.tolist()


async def _text_models(house: Inside, who: Any) -> list[Record]:
    """By what can be run now."""
    rows = (await house.node.ask("models.ls", {"op": "models.ls"}))["models"]
    found = []
    for row in rows:
        record = house.node.find_model(row["model"])
        names = model_names(record)
        allowed = not who.key.models or any(name in who.key.models for name in names)
        if allowed and takes_text(record):
            found.append(record)
    return found


def _model_map(record: Record) -> dict[str, Any]:
    said = record.payload
    return {
        "id": model_names(record)[0],
        "object": "model",
        "created": said["at_ms"] // 1000,
        "owned_by": f"…{peer_text(record.by)[-_OWNER_LETTERS:]}",
    }
