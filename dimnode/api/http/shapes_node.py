"""Shapes of answers about the node and its neighbours. Rule: as in `shapes`."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, Strict, StrictInt
from typing_extensions import TypeAliasType

from dimnode.api.http.shapes import Shape

TensorKind = TypeAliasType("TensorKind", Annotated[tuple[str, str, list[StrictInt]], Strict(False)])
"""[name, dtype, shape]; a type of its own, so that the document names it once."""


class Told(Shape):
    """What the node tells in its own words; later versions may tell more."""

    model_config = ConfigDict(extra="ignore")


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
    bytes: int
    here: bool
    peers: list[str]


class ModelsOut(Shape):
    """Models."""

    models: list[ModelOut]


class CabinetOut(Shape):
    """A data cabinet."""

    name: str
    peer: str = Field(description="a peer's id, or self")
    columns: list[str]
    operations: list[str]


class CabinetsOut(Shape):
    """Data cabinets."""

    cabinets: list[CabinetOut]


class PeerOut(Told):
    """A peer."""

    peer: str
    name: str
    linked: bool
    path: str | None
    rtt_ms: float | None
    agent: str
    models: list[str]
    slots: int
    free_slots: int
    load_percent: float
    sandbox: str
    heard_seconds_ago: float | None


class PeersOut(Shape):
    """Peers."""

    me: str
    peers: list[PeerOut]

    @staticmethod
    def row_keys() -> list[str]:
        """What is told of a peer."""
        return list(PeerOut.model_fields)


class StandingRow(Told):
    """One peer in one context."""

    peer: str
    name: str
    context: str
    mean: float = Field(description="expected share of good answers, 0 to 1")
    events: int
    barred_until_ms: int | None


class StandingOut(Shape):
    """Standing."""

    standing: list[StandingRow]


class WhyEvent(Told):
    """One experience."""

    at_ms: int
    good: bool
    kind: str
    weight: float
    record: str


class WhyContext(Told):
    """One context."""

    context: str
    alpha: float
    beta: float
    mean: float
    barred_until_ms: int | None
    events: list[WhyEvent]


class WhyOut(Shape):
    """Why a peer stands as it does."""

    peer: str
    contexts: list[WhyContext]


class StatusOut(Told):
    """The node."""

    peer: str
    name: str
    version: str
    addresses: list[str]
    up_seconds: float
    peers_linked: int
    peers_known: int
    jobs_open: int
    tasks_held: int
    tasks_queued: int
    tasks_running: int
    workers: int
    models: int
    cabinets: int
    rss_bytes: int
    loop_late_p99_ms: float


class BlobOut(Shape):
    """Bytes that are here."""

    blob: str
    bytes: int


class PriceIn(Shape):
    """What an answer or a row costs."""

    unit: Literal["answer", "row"] = "answer"
    micro: int = Field(ge=0, le=2**53, description="millionths of the currency")
    currency: str = Field(pattern="^[A-Za-z0-9-]{1,16}$")


class ModelIn(Shape):
    """A model card for an uploaded file (docs/operator.md, Models)."""

    blob: str = Field(max_length=128, description="what POST /dim/v1/blobs named it")
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


class AddedOut(Shape):
    """A model that is offered now."""

    model: str
    name: str
    access: str


class HealthOut(Shape):
    """It answers."""

    ok: bool


class ReadyOut(Shape):
    """What it can do now."""

    ready: bool
    swarm_joined: bool
    workers_ready: bool
    disk_ok: bool
