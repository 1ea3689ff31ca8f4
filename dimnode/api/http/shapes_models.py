"""Shapes of questions and answers about models. Rule: as in `shapes`."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, Strict, StrictInt, model_validator
from typing_extensions import TypeAliasType

from dimnode.api.http.shapes import Shape
from dimnode.api.http.shapes_node import Told

TensorKind = TypeAliasType("TensorKind", Annotated[tuple[str, str, list[StrictInt]], Strict(False)])
"""[name, dtype, shape]; a type of its own, so that the document names it once."""


Step = TypeAliasType("Step", dict[str, Any])
"""One word of `transforms/1` (docs/transforms.md): {"op": word, ...}."""
Role = Literal["", "model", "weights", "config", "tokenizer", "labels", "other"]
Operation = Literal["fetch", "infer", "evaluate"]


class TakesOut(Told):
    """What a model takes in place of tensors, where its manifest says how it becomes some."""

    name: str
    kind: str = Field(description="text, image, audio, bytes, rows or tensor")
    columns: list[str]
    dtype: str
    shape: list[int]


class ModelOut(Told):
    """A model that can be run."""

    model: str = Field(description="the id of its signed manifest")
    name: str = Field(description="name:version")
    publisher: str
    format: str
    origin: str
    access: str = Field(description="public, private, restricted or pay-per-use")
    allowed: bool = Field(description="whether this node may have it run")
    mine: bool = Field(description="whether this node publishes it")
    licence: str
    summary: str
    labels: list[str]
    inputs: list[TensorKind] = Field(description="[name, dtype, shape]; -1 for any size")
    outputs: list[TensorKind]
    takes: list[TakesOut] = Field(description="what `pre` begins with; empty: give the tensors of `inputs`")
    texts: list[str] = Field(description="names of an answer that hold text")
    bytes: int
    here: bool
    peers: list[str]


class ModelsOut(Shape):
    """Models."""

    models: list[ModelOut]


class ModelFileOut(Told):
    """A file of a model."""

    path: str
    role: str
    root: str = Field(description="the CID of its bytes")
    bytes: int


class MayOut(Told):
    """Whether this node may do something with a model, and why."""

    allowed: bool
    code: str
    why: str


class PriceOut(Told):
    """What one answer or one row costs."""

    unit: str
    micro: int = Field(description="millionths of the currency")
    currency: str


class ModelGrant(Told):
    """Who may use a model beside its publisher."""

    peer: str
    operations: list[str]
    expires_ms: int | None
    terms: str
    revoked: bool


class ModelShown(ModelOut):
    """Everything that a model's manifest says, and who may use it."""

    version: str
    at_ms: int
    profile: str
    files: list[ModelFileOut]
    may: dict[str, MayOut] = Field(description="by operation: fetch, infer, evaluate")
    price: PriceOut | None
    previous: str = Field(description="the id of the manifest that it updates, or empty")
    lineage: list[Annotated[tuple[str, str], Strict(False)]] = Field(description="[relation, id]")
    architecture: str
    dtype: str
    quantisation: str
    memory_bytes: int
    max_batch: int
    pre: list[Step]
    post: list[Step]
    withdrawn: str | None = Field(description="why its publisher took it back; null while it stands")
    replacement: str = Field("", description="what to take instead of a withdrawn one: a name, or an id")
    newer: list[str] = Field(description="name:version of its updates")
    grants: list[ModelGrant] = Field(description="for an admin's key; others see none")


class PriceIn(Shape):
    """What an answer or a row costs."""

    unit: Literal["answer", "row"] = "answer"
    micro: int = Field(ge=0, le=2**53, description="millionths of the currency")
    currency: str = Field(pattern="^[A-Za-z0-9-]{1,16}$")


class UploadedFile(Shape):
    """One file of a model of several."""

    path: str = Field(min_length=1, max_length=255, description="its path in the model, such as vocab/tokenizer.json")
    blob: str = Field(max_length=128, description="what POST /dim/v1/blobs named it")
    role: Role = Field(default="", description="empty: by its name")


class ModelIn(Shape):
    """A model card for one upload, `blob`, or for several, `files` (docs/operator.md, Models)."""

    blob: str = Field(default="", max_length=128, description="what POST /dim/v1/blobs named it")
    files: list[UploadedFile] = Field(default=[], max_length=64)
    name: str = Field(min_length=1, max_length=128)
    version: str = Field(default="1.0.0", max_length=32)
    licence: str = Field(default="", max_length=128)
    summary: str = Field(default="", max_length=512)
    origin: Literal["trained", "rule", "imported", "converted", "quantised"] = "imported"
    format: Literal["", "onnx", "torch", "mlx", "coreml"] = Field(default="", description="empty: by the file")
    access: Literal["public", "private", "restricted", "pay-per-use"] = "public"
    price: PriceIn | None = Field(default=None, description="with pay-per-use, and only then")
    architecture: str = Field(default="", max_length=64)
    dtype: str = Field(default="", max_length=32)
    quantisation: str = Field(default="", max_length=32)
    labels: list[Annotated[str, Field(max_length=64)]] = Field(default=[], max_length=256)
    inputs: list[TensorKind] = Field(default=[], max_length=64)
    outputs: list[TensorKind] = Field(default=[], max_length=64)
    pre: list[Step] = Field(default=[], max_length=32, description="what stands before the model (docs/transforms.md)")
    post: list[Step] = Field(default=[], max_length=32, description="what stands after it")
    memory_bytes: int = Field(default=0, ge=0, le=2**53, description="what it needs, where that is known")
    max_batch: int = Field(default=0, ge=0, le=2**31 - 1, description="rows that it takes at once; 0: any number")

    @model_validator(mode="after")
    def _one_or_several(self) -> Self:
        if bool(self.blob) == bool(self.files):
            raise ValueError("either blob or files")
        return self


class AddedOut(Shape):
    """A model that is offered now."""

    model: str
    name: str
    access: str


class PullIn(Shape):
    """From where."""

    peers: list[Annotated[str, Field(max_length=128)]] = Field(
        default=[], max_length=8, description="ids or names of peers to ask first"
    )


class PulledOut(Told):
    """A model whose files are here."""

    model: str
    name: str
    bytes: int


class CheckedFile(ModelFileOut):
    """A file that was hashed again."""

    role: str = ""
    state: str = Field(description="holds, damaged or missing")


class CheckedOut(Told):
    """A model whose files were hashed again."""

    model: str
    name: str
    holds: bool
    files: list[CheckedFile]


class GrantIn(Shape):
    """Who may do what."""

    peer: str = Field(min_length=1, max_length=128, description="a peer's id or name")
    operations: list[Operation] = Field(default=[], max_length=8, description="empty: all of them")
    expires_ms: int | None = Field(default=None, ge=1, le=2**53, description="milliseconds since 1970; null: for ever")
    terms: str = Field(default="", max_length=256)


class GrantedOut(Told):
    """A grant that was signed."""

    grant: str = Field(description="the id of the record")
    name: str
    peer: str
    operations: list[str]
    expires_ms: int | None
    terms: str


class RevokeIn(Shape):
    """Who may no longer."""

    peer: str = Field(min_length=1, max_length=128)
    reason: str = Field(default="", max_length=256)


class RevokedOut(Told):
    """Grants that were taken back."""

    name: str
    peer: str
    revoked: list[str] = Field(description="ids of the grants")


class WithdrawIn(Shape):
    """Why a model is taken back."""

    reason: str = Field(default="", max_length=256)
    replacement: str = Field(default="", max_length=256, description="the model to use instead")


class WithdrawnOut(Told):
    """A model that was taken back."""

    model: str
    name: str
    withdrawal: str = Field(description="the id of the record")
