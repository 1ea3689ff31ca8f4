"""What goes in and out over HTTP, as the OpenAPI page shows it.

Rule: these shapes are for clients and are translated; records and job files never see them. A field that is not here is
refused on the way in, and never sent on the way out.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, Strict, StrictInt

from dimnode.limits import LIMITS


class Shape(BaseModel):
    """A shape of this API's own: a number is a number, and neither a text nor a truth value."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True, strict=True)


class Trouble(Shape):
    """What went wrong, in OpenAI's words plus a hint."""

    message: str = Field(description="what failed, and the likely cause")
    type: str
    param: str | None = Field(description="the place in the request")
    code: str = Field(description="E-<room>-<nn>, the same as on the command line")
    hint: str = Field(description="what to do next")


class ErrorOut(Shape):
    """Every answer that is no success."""

    error: Trouble


# ---- a job on the way in


class TakeIn(Shape):
    """What becomes one input of the model."""

    name: str = Field(max_length=128)
    from_: str = Field(default="input", alias="from", max_length=16, description="input, input.1 or step.0")
    tensor: str = Field(default="", max_length=128)
    columns: Annotated[tuple[StrictInt, StrictInt], Strict(False)] | None = Field(
        default=None, description="[first, one past the last]"
    )


class ConditionIn(Shape):
    """Only rows where `column` `op` `value`."""

    column: str = Field(max_length=128)
    op: Literal["eq", "ne", "lt", "le", "gt", "ge"]
    value: float


class TaskIn(Shape):
    """One step, vote or site."""

    model: str = Field(default="", max_length=256, description="a name, name:version, publisher/name:version or an id")
    op: Literal["infer", "evaluate", "statistics"] = "infer"
    peer: str = Field(default="", max_length=128, description="there and nowhere else")
    cabinet: str = Field(default="", max_length=128)
    purpose: str = Field(default="", max_length=256)
    take: list[TakeIn] = Field(default_factory=list, max_length=32)
    where: list[ConditionIn] = Field(default_factory=list, max_length=8)


class RuleIn(Shape):
    """How answers become a result."""

    method: str = Field(default="", max_length=64)
    weights: list[float] = Field(default_factory=list, max_length=64)


class QuorumIn(Shape):
    """n replicas of each step, k of which must agree."""

    n: int = Field(ge=1, le=7)
    k: int = Field(ge=1, le=7)


class JobIn(Shape):
    """A job, with the keys of a job file (docs/job-files.md)."""

    pattern: Literal["chained", "comparative", "collaborative"] = "chained"
    tasks: list[TaskIn] = Field(min_length=1, max_length=LIMITS.jobs.tasks_per_job_max)
    input: dict[str, Any] = Field(default_factory=dict, description="named tables of numbers: {name: [[…], …]}")
    blobs: list[str] = Field(default_factory=list, max_length=16, description="or inputs that were uploaded, by id")
    rule: RuleIn | None = None
    tier: str = Field(default="signed", max_length=16)
    quorum: QuorumIn | None = None
    comparator: dict[str, Any] | None = None
    min_sites: int = Field(default=0, ge=0, le=LIMITS.jobs.tasks_per_job_max)
    deadline_seconds: float = Field(default=120.0, gt=0)
    priority: Literal["low", "normal", "high"] = "normal"
    visibility: Literal["swarm", "participants"] = "swarm"
    label: str = Field(default="", max_length=128)


# ---- on the way out


class TensorOut(Shape):
    """One named array."""

    name: str
    dtype: str
    shape: list[int]
    values: Any = Field(description="nested lists; null when there are too many to show: fetch the blob")


class OutputOut(Shape):
    """One output of a job."""

    blob: str = Field(description="its id, for GET /dim/v1/jobs/{job}/blobs/{blob}")
    bytes: int
    tensors: list[TensorOut]
    predicted: list[str] = Field(
        default=[], description="the tensor `label` in the names of the classes; left out where the model has none"
    )


class JobOut(Shape):
    """A job, open or ended."""

    job: str = Field(description="its id: the CID of its signed spec")
    status: Literal["open", "ok", "failed", "refused", "cancelled", "expired", "split"]
    verdict: str = Field(default="", description="the id of the signed verdict")
    code: str = Field(default="", description="why it did not end well")
    reason: str = ""
    outputs: list[OutputOut] = Field(default_factory=list)
    receipt: str = Field(default="", description="where the receipt is")
    events: str = Field(default="", description="where the events are")


class JobRow(Shape):
    """A line of a list of jobs."""

    job: str
    label: str
    pattern: str
    tier: str
    at_ms: int
    status: str


class JobsOut(Shape):
    """Jobs, newest first."""

    jobs: list[JobRow]
    before_ms: int | None = Field(description="give it as `before_ms` for the next page; null on the last")


class StepOut(Shape):
    """Where a step could run now."""

    op: str
    model: str
    cabinet: str
    peers: list[str]


class PlanOut(Shape):
    """What would happen to a job, its cost and its risk. Nothing was run."""

    pattern: str
    tier: str
    cost_factor: float
    residual_risk: str
    steps: list[StepOut]
    runnable: bool


class EventOut(Shape):
    """One event in a job's life. `id` is null for what passes without a record."""

    id: int | None
    at_ms: int
    what: str
    task: int
    epoch: int
    peer: str
    text: str


class EventsOut(Shape):
    """Events that are on record, oldest first."""

    events: list[EventOut]
    last: int = Field(description="give it as `after` for what comes then")


class CancelOut(Shape):
    """A cancellation was asked for; the job ends as cancelled unless it ended before."""

    job: str
    cancelling: bool
