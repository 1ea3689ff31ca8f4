"""Shapes of answers about the node and its neighbours. Rule: as in `shapes`."""

from pydantic import ConfigDict, Field

from dimnode.api.http.shapes import Shape


class Told(Shape):
    """What the node tells in its own words; later versions may tell more."""

    model_config = ConfigDict(extra="ignore")


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


class HealthOut(Shape):
    """It answers."""

    ok: bool


class ReadyOut(Shape):
    """What it can do now."""

    ready: bool
    swarm_joined: bool
    workers_ready: bool
    disk_ok: bool
