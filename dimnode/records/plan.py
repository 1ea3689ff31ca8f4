"""How a spec unfolds into steps and tasks: read alike by owner, executor and verifier.

Rule: everything here follows from the spec alone, so nobody has to be believed about it.
A *step* is an entry of the spec's `tasks`. A *task* is one lease-able unit: step × replica. With tier `signed` there
is one replica of each step; with `quorum` a step has room for two rounds of n replicas, the second only on a split.
Pure: no I/O, no clock.
"""

from collections.abc import Mapping
from typing import Any

Spec = Mapping[str, Any]


def replicas_per_step(spec: Spec) -> int:
    """How many task numbers a step owns; 1 also where tier and quorum do not fit each other, as no schema forbids."""
    return 2 * int(spec["quorum"]["n"]) if spec["tier"] == "quorum" and "quorum" in spec else 1


def step_of(spec: Spec, task: int) -> int:
    """The step that a task belongs to."""
    return task // replicas_per_step(spec)


def tasks_of(spec: Spec, step: int) -> range:
    """The task numbers of a step."""
    replicas = replicas_per_step(spec)
    return range(step * replicas, (step + 1) * replicas)


def step_sources(spec: Spec, step: int) -> tuple[int, ...]:
    """What a step reads, as global source numbers in ascending order.

    Sources below len(spec.inputs) are the job's inputs; source len(spec.inputs) + i is the output of step i. Without a
    declared `take`, a first or parallel step reads every job input and a later step of a chain reads its predecessor.
    """
    inputs = len(spec["inputs"])
    take = spec["tasks"][step].get("take")
    if take:
        return tuple(sorted({row[1] for row in take}))
    if step == 0 or spec["pattern"] != "chained":
        return tuple(range(inputs))
    return (inputs + step - 1,)


def local_take(spec: Spec, step: int) -> tuple[tuple[str, int, str, int, int], ...]:
    """The declared mapping with sources renumbered as positions in the lease's `inputs`."""
    position = {source: index for index, source in enumerate(step_sources(spec, step))}
    return tuple(
        (name, position[source], tensor, start, stop)
        for name, source, tensor, start, stop in spec["tasks"][step].get("take", ())
    )


def sources_exist(spec: Spec) -> bool:
    """True when every step reads only job inputs and, in a chain, outputs of earlier steps."""
    inputs = len(spec["inputs"])
    chained = spec["pattern"] == "chained"
    return all(
        source < inputs + (step if chained else 0)
        for step in range(len(spec["tasks"]))
        for source in step_sources(spec, step)
    )
