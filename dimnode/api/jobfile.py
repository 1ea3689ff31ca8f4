"""A job as people write it (YAML or JSON), and the spec that it means.

Rule: this schema is for people and is translated; records never see it. Names become ids here, decimals become
integers here, once. A mistake is named with its place in the file.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol

import msgspec

from dimnode.api.given import given_tensors, number_tensor
from dimnode.api.inputs import check_inputs
from dimnode.consensus.agreement import check_comparator
from dimnode.consensus.tiers import check_quorum, check_tier
from dimnode.errors import PeerFault, Refused
from dimnode.jobs.job import WALLS, WALLS_MAX
from dimnode.jobs.work import SAME_BITS
from dimnode.limits import LIMITS
from dimnode.records.envelope import Record
from dimnode.records.ids import PeerId
from dimnode.records.tensors import encode_tensors
from dimnode.records.transforms import sources_of
from dimnode.schema_words import in_words

MICRO = 1_000_000
_CONDITION_MAX = 1e12
_SOURCE = re.compile(r"(input|step)\.([0-9]{1,3})")
_VOTES = ("majority_vote", "weighted_vote")
_COMPARATORS = (
    "exact; argmax_atol with tensor and atol_micro; rtol with rtol_micro; cosine with min_ppm; "
    "numbers are whole: millionths, at most 1000 (10^9), for min_ppm at most 10^6"
)
_AGGREGATES = ("sum_counts", "federated_average", "weighted_average")


class TakeEntry(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Model input `name` is `tensor` of `source`: "input", "input.1", or "step.0" (the first step's output)."""

    name: str
    source: str = msgspec.field(default="input", name="from")
    tensor: str = ""
    columns: tuple[int, int] = (-1, -1)


class ConditionEntry(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Only rows where `column` `op` `value`."""

    column: str
    op: Literal["eq", "ne", "lt", "le", "gt", "ge"]
    value: float


class TaskEntry(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """One step, vote or site."""

    model: str = ""
    op: Literal["infer", "evaluate", "statistics"] = "infer"
    peer: str = ""
    cabinet: str = ""
    purpose: str = ""
    take: tuple[TakeEntry, ...] = ()
    where: tuple[ConditionEntry, ...] = ()


class RuleEntry(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """How answers become a result. Weights are decimals, one per task."""

    method: str = ""
    weights: tuple[float, ...] = ()


class QuorumEntry(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """n replicas of each step, k of which must agree."""

    n: int
    k: int


class JobFile(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The file. See docs/job-files.md for every key with an example."""

    pattern: Literal["chained", "comparative", "collaborative"] = "chained"
    tasks: tuple[TaskEntry, ...] = ()
    label: str = ""
    input: dict[str, Any] = {}
    rule: RuleEntry = RuleEntry()
    tier: str = "signed"
    quorum: QuorumEntry | None = None
    comparator: dict[str, Any] = {}
    min_sites: int = 0
    deadline_seconds: float = LIMITS.jobs.deadline_ms_default / 1000
    priority: Literal["low", "normal", "high"] = "normal"
    visibility: Literal["swarm", "participants"] = "swarm"
    deterministic: bool = False
    sandbox: Annotated[tuple[str, ...], msgspec.Meta(max_length=WALLS_MAX)] = ()


class Names(Protocol):
    """Where names are looked up."""

    def find_model(self, name: str) -> Record:
        """Raises `Refused`."""

    def find_peer(self, name: str) -> PeerId:
        """Raises `Refused`."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """The spec's body without nonce, the input blobs, and the manifests of its models by step."""

    body: dict[str, Any]
    inputs: tuple[bytes, ...]
    models: tuple[Record | None, ...]


def read_job(raw: Mapping[str, Any]) -> JobFile:
    """The job of an already parsed file. Raises `Refused` naming the place of the mistake."""
    try:
        return msgspec.convert(raw, JobFile)
    except msgspec.ValidationError as error:
        what = f"the job is wrong: {in_words(error, JobFile)}"
        raise Refused("E-job-01", what, "", "docs/job-files.md shows every key") from None
    except UnicodeEncodeError:  # JSON can say it, and no record can
        raise Refused("E-job-01", "the job is wrong: half of a letter in a text", "", "docs/job-files.md") from None


def compile_job(job: JobFile, names: Names, blobs: Sequence[bytes] = ()) -> Compiled:
    """The spec that the job means. `blobs` are inputs given as tensors/1 bytes instead of `input`. Raises `Refused`."""
    if not job.tasks:
        raise Refused("E-job-02", "the job has no tasks", "", "add at least one entry under `tasks:`")
    if len(job.tasks) > LIMITS.jobs.tasks_per_job_max:
        raise Refused("E-job-02", f"the job has {len(job.tasks)} tasks", f"at most {LIMITS.jobs.tasks_per_job_max}")
    models = tuple(names.find_model(task.model) if task.model else None for task in job.tasks)
    inputs = tuple(blobs) or ((input_blob(job.input, models[0]),) if job.input else ())
    for blob in inputs:
        if len(blob) > LIMITS.exec.input_bytes_max:
            raise Refused("E-input-05", f"the input has {len(blob)} bytes", f"limit {LIMITS.exec.input_bytes_max}")
    body: dict[str, Any] = {
        "pattern": job.pattern,
        "tasks": [
            _task(task, model, names, _Readable(len(inputs), step if job.pattern == "chained" else 0))
            for step, (task, model) in enumerate(zip(job.tasks, models, strict=True))
        ],
        "tier": _tier(job),
        "rule": _rule(job),
        "deadline_ms": _deadline_ms(job),
        "priority": job.priority,
        "visibility": job.visibility,
    }
    if job.deterministic:
        body[SAME_BITS] = True
    if job.sandbox:
        body[WALLS] = list(job.sandbox)
    if job.quorum is not None:
        body["quorum"] = {"n": job.quorum.n, "k": job.quorum.k}
    if job.comparator:
        body["comparator"] = _comparator(job)
    if job.min_sites:
        if not 1 <= job.min_sites <= len(job.tasks):
            raise Refused("E-job-07", f"min_sites is {job.min_sites}, but there are {len(job.tasks)} sites")
        body["min_sites"] = job.min_sites
    if job.label:
        body["label"] = job.label[:128]
    _check_pattern(job, bool(inputs))
    check_inputs(body["tasks"], models, inputs, chained=job.pattern == "chained")
    return Compiled(body, inputs, models)


def input_blob(named: Mapping[str, Any], model: Record | None) -> bytes:
    """What is written as `input` to tensors/1: what the model's `pre` declares, else numbers in the dtype of its inputs
    (else float32 or int64). Raises `Refused`."""
    sources = sources_of(model.payload.get("pre", ())) if model else ()
    declared = {row[0]: row[1] for row in model.payload["inputs"]} if model else {}
    try:
        if sources:
            return encode_tensors(given_tensors(sources, named))
        return encode_tensors(number_tensor(name, value, declared.get(name, "")) for name, value in named.items())
    except PeerFault as fault:
        raise Refused("E-input-03", f"the input cannot be used: {fault.rule}") from None
    except UnicodeEncodeError:
        raise Refused("E-input-03", "the input cannot be used: a name is no text") from None


@dataclass(frozen=True, slots=True)
class _Readable:
    """How many inputs the job has, and how many steps of the chain come before the one that reads."""

    inputs: int
    steps: int


def _task(task: TaskEntry, model: Record | None, names: Names, readable: _Readable) -> dict[str, Any]:
    if model is None and task.op != "statistics":
        raise Refused("E-job-03", f"a task with op {task.op!r} needs a model", "", "add `model: NAME`")
    if task.op != "infer" and not task.cabinet:
        raise Refused("E-job-03", f"a task with op {task.op!r} works on a cabinet", "", "add `cabinet: NAME`")
    entry: dict[str, Any] = {"op": task.op}
    if model is not None:
        entry["model"] = model.id
    if task.peer:
        entry["peer"] = names.find_peer(task.peer)
    if task.cabinet:
        entry["cabinet"] = task.cabinet
    if task.purpose:
        entry["purpose"] = task.purpose
    if task.take:
        entry["take"] = [
            [row.name, _source(row.source, readable), row.tensor or row.name, *row.columns] for row in task.take
        ]
    if task.where:
        entry["where"] = [[row.column, row.op, _micro(row)] for row in task.where]
    return entry


def _micro(row: ConditionEntry) -> int:
    if not abs(row.value) <= _CONDITION_MAX:  # neither does NaN pass this
        raise Refused(
            "E-job-03", f"`where: {row.column}` compares with {row.value}", "numbers up to 10^12 are compared"
        )
    return round(row.value * MICRO)


def _source(text: str, readable: _Readable) -> int:
    if text == "input" and readable.inputs:
        return 0
    if found := _SOURCE.fullmatch(text):
        index = int(found[2])
        if found[1] == "step" and index < readable.steps:
            return readable.inputs + index
        if found[1] == "input" and index < readable.inputs:
            return index
    cause = f"inputs: {readable.inputs}; steps of a chain before this one: {readable.steps}; both are numbered from 0"
    raise Refused("E-job-04", f"`from: {text[:80]}` names nothing", cause, "input, input.1 or step.0")


def _tier(job: JobFile) -> str:
    tier = check_tier(job.tier)
    if (tier == "quorum") != (job.quorum is not None):
        raise Refused("E-job-05", "tier `quorum` and `quorum: {n, k}` go together", "", "quorum: {n: 3, k: 2}")
    if job.quorum is not None:
        check_quorum(job.quorum.n, job.quorum.k)
        if job.pattern != "chained":
            raise Refused("E-job-05", "tier `quorum` replicates steps of a chain", f"the pattern is {job.pattern}")
    return tier


def _comparator(job: JobFile) -> dict[str, Any]:
    try:
        check_comparator(job.comparator)
    except PeerFault as fault:
        wrong = fault.rule.removeprefix("comparator: ")
        what = f"`comparator: {wrong}` is out of range or no whole number"
        if wrong == "fields":
            what = f"there is no comparator {{{', '.join(f'{key}: {job.comparator[key]}' for key in job.comparator)}}}"
        raise Refused("E-job-06", what, _COMPARATORS, "comparator: {kind: exact}") from None
    return dict(job.comparator)


def _rule(job: JobFile) -> dict[str, Any]:
    fitting: tuple[str, ...]
    match job.pattern:
        case "chained":
            fitting = ("quorum",) if job.quorum is not None else ("first",)
        case "comparative":
            fitting = _VOTES
        case _:
            fitting = _AGGREGATES
    method = job.rule.method or fitting[0]
    if method not in fitting:
        what = f"rule {method!r} does not fit the pattern {job.pattern}"
        what += f" of tier {job.tier}" if job.pattern == "chained" else ""
        raise Refused("E-job-08", what, f"what fits: {', '.join(fitting)}", f"rule: {{method: {fitting[0]}}}")
    rule: dict[str, Any] = {"method": method}
    if method.startswith("weighted"):
        if len(job.rule.weights) != len(job.tasks) or any(not 0 <= weight <= 1000 for weight in job.rule.weights):
            raise Refused("E-job-08", f"rule {method!r} needs one weight from 0 to 1000 per task")
        rule["weights_permille"] = [round(weight * 1000) for weight in job.rule.weights]
    elif job.rule.weights:
        raise Refused("E-job-08", f"rule {method!r} takes no weights")
    return rule


def _deadline_ms(job: JobFile) -> int:
    if not 0.001 <= job.deadline_seconds <= LIMITS.jobs.deadline_ms_max / 1000:  # neither does NaN pass this
        raise Refused("E-job-09", f"deadline_seconds is {job.deadline_seconds}", "from 0.001 to 86400")
    return round(job.deadline_seconds * 1000)


def _check_pattern(job: JobFile, has_input: bool) -> None:
    readers = job.tasks[:1] if job.pattern == "chained" else job.tasks  # later steps of a chain read their predecessor
    wants_input = any(not task.cabinet for task in readers)
    if wants_input and not has_input:
        raise Refused("E-input-04", "the job has no input", "", "add `input: {x: [[…]]}` or give a file")
    if job.pattern == "collaborative" and any(not task.cabinet for task in job.tasks):
        raise Refused("E-job-10", "a collaborative job works on cabinets", "", "add `cabinet: NAME` to every task")


def new_nonce() -> bytes:
    """16 random bytes: one submission."""
    return os.urandom(16)
