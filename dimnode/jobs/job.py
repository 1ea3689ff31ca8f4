"""A job and its tasks as the owner holds them while the job is open.

Rule: everything here can be rebuilt from the journal; what a restart does not need (waiting clients) is marked so.
Pure: no I/O, no clock.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from dimnode.consensus.selection import Need
from dimnode.jobs.events import Key, Part, Token
from dimnode.jobs.states import JobMove, JobState, TaskMove, TaskState, step_job, step_task
from dimnode.records.ids import Cid, PeerId, RecordId
from dimnode.records.plan import step_of, step_sources, tasks_of
from dimnode.records.receipt import Opening

WALLS: Final = "x_sandbox"
"""The key of a spec with the layers of a sandbox that the job insists on."""
WALLS_MAX: Final = 16
_TAKEN = (TaskState.LEASED, TaskState.ANSWERED)


@dataclass(slots=True)
class Task:
    """One lease-able unit of a job.

    A peer in `failed_at` is not asked again; one in `lost_at` (it vanished or was silent) only when nobody else can.
    `inputs` stay what they were at the first lease: a step's inputs never change. Words renew a lease until
    `lease_until` (trio clock) and no longer.
    """

    number: int
    state: TaskState = TaskState.WAITING
    epoch: int = 0
    peer: PeerId | None = None
    lease: RecordId | None = None
    lease_until: float = 0.0
    inputs: tuple[Opening, ...] = ()
    context: str = ""
    attempts: int = 0
    failures: int = 0
    failed_at: set[PeerId] = field(default_factory=set)
    lost_at: set[PeerId] = field(default_factory=set)
    code: str = ""
    reason: str = ""

    def move(self, move: TaskMove) -> None:
        """Change state by the table; an impossible move is our own bug."""
        self.state = step_task(self.state, move)


@dataclass(frozen=True, slots=True)
class Accepted:
    """A successful answer, kept until the verdict."""

    task: int
    peer: PeerId
    answer: RecordId
    weight: int
    output: Opening

    def part(self) -> Part:
        """What a comparison or an aggregation needs of it."""
        return Part(self.peer, self.answer, self.weight, self.output.cid)


@dataclass(frozen=True, slots=True)
class StepResult:
    """What was decided about a step."""

    accepted: RecordId | None
    supporters: tuple[RecordId, ...]
    dissent: tuple[RecordId, ...]


@dataclass(slots=True)
class Job:
    """An open job. `tokens` are clients that wait for its end; they do not survive a restart, the job does.

    `failed` are answers that were no success and `refusals` rulings that said no: evidence for the receipt. `left_out`
    are tasks whose answers did not fit the others. `held` names each record that the job holds, once per hold.
    """

    id: RecordId
    spec: Mapping[str, Any]
    inputs: tuple[Opening, ...]
    deadline: float
    state: JobState = JobState.WORKING
    tokens: list[Token] = field(default_factory=list)
    tasks: dict[int, Task] = field(default_factory=dict)
    answers: dict[RecordId, Accepted] = field(default_factory=dict)
    steps: list[StepResult] = field(default_factory=list)
    failed: list[RecordId] = field(default_factory=list)
    refusals: list[RecordId] = field(default_factory=list)
    abandoned: list[RecordId] = field(default_factory=list)
    left_out: list[int] = field(default_factory=list)
    held: list[RecordId] = field(default_factory=list)
    second_rounds: set[int] = field(default_factory=set)

    def move(self, move: JobMove) -> None:
        """Change state by the table; an impossible move is our own bug."""
        self.state = step_job(self.state, move)

    @property
    def pattern(self) -> str:
        """chained, comparative or collaborative."""
        return str(self.spec["pattern"])

    @property
    def quorum(self) -> bool:
        """Replicas of each step are compared."""
        return bool(self.spec["tier"] == "quorum")

    @property
    def walls(self) -> frozenset[str]:
        """The layers of a sandbox without which nothing of it may run."""
        return walls_wanted(self.spec)

    def key(self, task: Task) -> Key:
        """The name of the task's newest lease."""
        return (self.id, task.number, task.epoch)

    def template(self, task: Task) -> Mapping[str, Any]:
        """What the spec says of the task's step."""
        found: Mapping[str, Any] = self.spec["tasks"][step_of(self.spec, task.number)]
        return found

    def is_second_round(self, task: Task) -> bool:
        """It is a replica that only runs because the first ones were split."""
        if not self.quorum:
            return False
        first = tasks_of(self.spec, step_of(self.spec, task.number)).start
        return task.number >= first + int(self.spec["quorum"]["n"])

    def can_do_without(self, task: Task) -> bool:
        """It is a replica, and the others of its step are enough for a quorum; if not, it waits for a peer to come."""
        if not self.quorum:
            return False
        numbers = tasks_of(self.spec, step_of(self.spec, task.number))
        others = [self.tasks[number] for number in numbers if number in self.tasks and number != task.number]
        hopeful = sum(other.state is not TaskState.FAILED for other in others)
        return self.is_second_round(task) or hopeful >= int(self.spec["quorum"]["k"])

    def inputs_of(self, task: Task) -> tuple[Opening, ...]:
        """What the task reads: inputs of the job and outputs of decided steps."""
        count = len(self.inputs)
        sources = step_sources(self.spec, step_of(self.spec, task.number))
        return tuple(self.inputs[source] if source < count else self.step_output(source - count) for source in sources)

    def step_output(self, step: int) -> Opening:
        """The output of the accepted answer of a decided step."""
        accepted = self.steps[step].accepted
        assert accepted is not None, "a step without an accepted answer has no output"
        return self.answers[accepted].output

    def need(self, task: Task) -> Need:
        """What a peer must offer to take this task, and who must not."""
        template = self.template(task)
        exclude = task.failed_at
        if self.quorum or self.pattern == "collaborative":  # a replica or a site counts once
            exclude = exclude | self._peers_beside(task)
        if self.pattern == "collaborative":
            exclude = exclude | sites_of_others(self.spec, template)
        return need_of(template, frozenset(exclude), self.walls)

    def avoided(self, task: Task) -> set[PeerId]:
        """Peers that should get this task only when nobody else can: voters differ where possible."""
        if self.pattern != "comparative":
            return task.lost_at
        return task.lost_at | self._peers_beside(task)

    def blobs(self) -> list[Cid]:
        """Every blob this job holds: inputs and accepted outputs."""
        return [opening.cid for opening in self.inputs] + [note.output.cid for note in self.answers.values()]

    def _peers_beside(self, task: Task) -> set[PeerId]:
        """Who has another replica of the same step, or another site's share or vote."""
        step = step_of(self.spec, task.number) if self.quorum else None
        return {
            other.peer
            for other in self.tasks.values()
            if other is not task
            and other.peer is not None
            and other.state in _TAKEN
            and (step is None or step_of(self.spec, other.number) == step)
        }


def sites_of_others(spec: Mapping[str, Any], template: Mapping[str, Any]) -> set[PeerId]:
    """Peers that other tasks of a collaborative job name: they are not to be had for this one."""
    return {other["peer"] for other in spec["tasks"] if "peer" in other and other is not template}


def walls_wanted(spec: Mapping[str, Any]) -> frozenset[str]:
    """Layers that the spec names. It has no schema: what is no list of words asks for nothing that anybody has."""
    said = spec.get(WALLS)
    if said is None:
        return frozenset()
    listed = said if type(said) is list and all(type(word) is str for word in said) else ["?"]
    return frozenset(listed[:WALLS_MAX])


def walls_in(sandbox: str) -> frozenset[str]:
    """The layers in what an advert or answer says of its sandbox, "landlock+seccomp"; none where something leaks."""
    words, _, leaks = sandbox.partition(" ")
    return frozenset() if leaks else frozenset(words.split("+")) - {"", "none"}


def need_of(
    template: Mapping[str, Any], exclude: frozenset[bytes] = frozenset(), walls: frozenset[str] = frozenset()
) -> Need:
    """What a step asks of a peer."""
    return Need(
        model=template.get("model", b""),
        operation=template["op"],
        cabinet=template.get("cabinet", ""),
        pinned=template.get("peer"),
        exclude=exclude,
        walls=walls,
    )
