"""What goes into the room and what comes out: orders, their outcome and the codes of everything that can go wrong.

Rule: an order is a declaration, never code. It names a model by its hash, tensors by their place and rows by
conditions; nothing in it is evaluated. Pure: no I/O, no clock.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

Key = tuple[bytes, int, int]
"""(job, task, epoch): the identity of one piece of work."""

Op = Literal["infer", "evaluate", "statistics", "cohort", "load", "measure"]
"""The last two are the operator's: `load` loads the model, `measure` times the bare runtime on an input."""

Priority = Literal["low", "normal", "high"]
Status = Literal["ok", "failed", "timeout", "crashed", "memory", "cancelled", "refused"]
Comparison = Literal["eq", "ne", "lt", "le", "gt", "ge"]

# A refusal at the door: the order was never taken in.
QUEUE_FULL: Final = "E-exec-01"
NO_SANDBOX: Final = "E-exec-02"
ALREADY_HERE: Final = "E-exec-03"
NO_ZYGOTE: Final = "E-exec-04"
# The order or its input.
BAD_ORDER: Final = "E-exec-10"
BAD_INPUT: Final = "E-exec-11"
NO_TENSOR: Final = "E-exec-12"
BAD_SHAPE: Final = "E-exec-13"
BAD_DTYPE: Final = "E-exec-14"
NOT_FINITE: Final = "E-exec-15"
INPUT_TOO_LARGE: Final = "E-exec-16"
# The model.
NO_MODEL: Final = "E-exec-20"
WRONG_HASH: Final = "E-exec-21"
NOT_ONNX: Final = "E-exec-22"
EXTERNAL_DATA: Final = "E-exec-23"
CUSTOM_OPERATOR: Final = "E-exec-24"
NO_RUNTIME: Final = "E-exec-25"
UNFIT_MODEL: Final = "E-exec-26"
NO_DEVICE: Final = "E-exec-27"
NO_ARCHITECTURE: Final = "E-exec-60"
BAD_WEIGHTS: Final = "E-exec-61"
REFUSED_FORMAT: Final = "E-exec-62"
CODE_IN_CONFIG: Final = "E-exec-63"
BAD_CONFIG: Final = "E-exec-64"
UNFIT_WEIGHTS: Final = "E-exec-65"
NO_OPERATOR: Final = "E-exec-66"
NO_DTYPE: Final = "E-exec-67"
BAD_PACKAGE: Final = "E-exec-69"
# The rows of a cabinet.
NO_ROWS_FILE: Final = "E-exec-30"
BAD_ROWS_FILE: Final = "E-exec-31"
BAD_COLUMN: Final = "E-exec-32"
NO_ROWS: Final = "E-exec-33"
# The run.
RUN_FAILED: Final = "E-exec-40"
BAD_OUTPUT: Final = "E-exec-41"
OUTPUT_TOO_LARGE: Final = "E-exec-42"
TIMED_OUT: Final = "E-exec-50"
OUT_OF_MEMORY: Final = "E-exec-51"
CRASHED: Final = "E-exec-52"
CANCELLED: Final = "E-exec-53"
BROKE_PROTOCOL: Final = "E-exec-54"
NOT_STARTED: Final = "E-exec-55"
# No room, or not in time: nothing ran, and the same order may be offered again.
QUOTA_FULL: Final = "E-exec-80"
NO_MEMORY: Final = "E-exec-81"
TOO_LATE: Final = "E-exec-82"
DISPLACED: Final = "E-exec-83"
DRAINING: Final = "E-exec-84"


@dataclass(frozen=True, slots=True)
class Take:
    """Model input `name` is tensor `tensor` of `inputs[source]`, of it the columns [start, stop) of the last axis.

    (-1, -1) takes all columns. The values are cast to the dtype the model declares when no value changes by it.
    """

    name: str
    source: int
    tensor: str
    start: int = -1
    stop: int = -1


@dataclass(frozen=True, slots=True)
class Condition:
    """Keep a row when `column` `op` `micro` / 1,000,000. An empty cell meets no condition."""

    column: str
    op: Comparison
    micro: int


@dataclass(frozen=True, slots=True)
class Rows:
    """A cabinet's CSV file: UTF-8, one header line, commas.

    Feature columns are all numeric columns but `label` and `exclude`, in file order. A column is numeric when every
    cell of the file that is not empty is a number. All of `where` must hold.
    """

    path: str
    label: str
    exclude: tuple[str, ...] = ()
    where: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One file of a model: its path and role in the manifest, where it lies here, and the id its bytes must have."""

    path: str
    role: str
    place: str
    cid: bytes


@dataclass(frozen=True, slots=True)
class Facts:
    """What a manifest says of a model and a runtime has to know. Shapes use -1 for a free size; "" is not said.

    `pre` and `post` are lists of {"op": word, ...} from the fixed vocabulary of transforms.
    """

    architecture: str = ""
    dtype: str = ""
    quantisation: str = ""
    inputs: tuple[tuple[str, str, tuple[int, ...]], ...] = ()
    outputs: tuple[tuple[str, str, tuple[int, ...]], ...] = ()
    labels: tuple[str, ...] = ()
    pre: tuple[Mapping[str, Any], ...] = ()
    post: tuple[Mapping[str, Any], ...] = ()
    max_batch: int = 0


@dataclass(frozen=True, slots=True)
class ModelOrder:
    """The model that an order names. `id` says which: a worker holds one, and one worker serves all orders with it.

    `runtime` is what the manifest needs (`Manifest.runtime`). `files` as it lists them, `file_bytes` of all of them
    together.
    """

    id: str
    runtime: str
    files: tuple[ModelFile, ...]
    facts: Facts = Facts()
    file_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Order:
    """One piece of work.

    `model` is None for statistics and cohort; the worker checks each of its files before it parses the first.
    `inputs` are tensors/1 blobs. With an empty `take` each model input is the tensor of its name. `deterministic`
    orders run alone on one thread, batch as given; others may share a batch with their like. `client` is the peer
    for whom this is done, whose quota it uses; empty for the node's own questions. After `deadline_seconds` from the
    offer nobody wants the answer any more.
    """

    key: Key
    op: Op
    model: ModelOrder | None
    inputs: tuple[bytes, ...]
    take: tuple[Take, ...]
    rows: Rows | None
    priority: Priority
    timeout_seconds: float
    deterministic: bool = True
    client: bytes = b""
    deadline_seconds: float = math.inf

    @property
    def runtime(self) -> str:
        """The runtime whose worker does it: "" when any will, because no model is run."""
        return self.model.runtime if self.model is not None else ""


@dataclass(frozen=True, slots=True)
class Finished:
    """How an order ended; `refused`: it was given back unrun, as if it had never been taken.

    `output` is a tensors/1 blob when `status` is ok, else empty. `gpu_bytes` is 0 where nothing ran on one.

    `run_us` computing and `cpu_us` of this run are claims of the worker, cut to what this node's clock lets stand,
    `rss_bytes`, its peak so far, is its claim alone; of a worker that did not survive its run this node's system says
    both. `queue_us` is from offer to start. `rows`: rows computed, or for a cohort rows matched. `runtime` is the class
    within which results are comparable; `sandbox` names the layers that really were installed.
    """

    key: Key
    status: Status
    code: str
    message: str
    output: bytes
    run_us: int
    queue_us: int
    cpu_us: int
    rss_bytes: int
    rows: int
    runtime: Mapping[str, str | int]
    sandbox: str
    gpu_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Busy:
    """The pool did not take the order. `retry_after_ms` 0: the same offer will not work later either."""

    code: str
    message: str
    retry_after_ms: int


@dataclass(frozen=True, slots=True)
class PoolStats:
    """What the pool is doing now. Since it opened, `finished` counts outcomes by status, `refused` offers by code.

    `failure`: why no worker of any runtime can be started here; then nothing is known of a sandbox.
    """

    queued: int
    running: int
    workers: int
    worker_pids: tuple[int, ...]
    sandbox: str
    sandbox_complete: bool
    runtimes: Mapping[str, "RuntimeState"]
    finished: Mapping[str, int]
    refused: Mapping[str, int]
    members: tuple["WorkerState", ...]
    waiting: tuple["Waiting", ...]
    memory_bytes: int
    memory_bytes_max: int
    running_max: int
    failure: str = ""


@dataclass(frozen=True, slots=True)
class WorkerState:
    """One worker: which model it holds, and whether it is `loading`, `running`, `pausing` or `idle`."""

    pid: int
    model: str
    runtime: str
    state: str
    orders: int
    memory_bytes: int
    pinned: bool
    idle_seconds: float


@dataclass(frozen=True, slots=True)
class Waiting:
    """What one identity has in the queue, by priority, and with workers."""

    client: bytes
    high: int
    normal: int
    low: int
    running: int
    share: float


@dataclass(frozen=True, slots=True)
class RuntimeState:
    """What is known of one runtime here. Not `known`: it is installed, and nothing has needed it yet."""

    known: bool
    failure: str
    sandbox: str
    sandbox_complete: bool
    traits: Mapping[str, str]
    note: str = ""

    def works(self, require_sandbox: bool) -> bool:
        """Whether an order for it may be taken, as far as is known."""
        return not self.known or (not self.failure and (self.sandbox_complete or not require_sandbox))
