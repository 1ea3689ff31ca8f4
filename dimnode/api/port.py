"""What the people's doors may ask of the node: the one interface between `api` and everything below.

Rule: doors never import other doors. They speak in plain maps and `Refused`; the node answers through this port.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from dimnode.jobs.effects import Refuse, Reply
from dimnode.jobs.events import Submitted
from dimnode.records.envelope import Record
from dimnode.records.ids import PeerId, RecordId

Answer = dict[str, Any]
"""Plain values: str, int, float, bool, bytes, None, lists and maps of them."""


ListedFile = tuple[str, str, Path]
"""A file of a model: its path in the manifest, what it is for ("": by its name), where it lies here."""


class Token(Protocol):
    """Where somebody waits for a job."""

    def ended(self, reply: Reply, outputs: tuple[bytes, ...]) -> None:
        """The job is over."""

    def refused(self, refuse: Refuse) -> None:
        """The job was not taken."""


class NodePort(Protocol):
    """The node as its doors see it."""

    me: PeerId
    net: RecordId

    def find_model(self, name: str) -> Record:
        """A manifest by name or id. Raises `Refused`."""

    def find_peer(self, name: str) -> PeerId:
        """A peer by id or advertised name. Raises `Refused`."""

    def compose_spec(self, body: Mapping[str, Any], inputs: Sequence[bytes], token: Token) -> Submitted:
        """The event for a new job of this node's own; its inputs are held."""

    def rejoin(self, job: RecordId, token: Token) -> Submitted:
        """The event by which one more client waits for an open job."""

    async def submit(self, client: object, event: Submitted) -> None:
        """Put a job into the inbox; waits while this client's lane is full."""

    def abandon(self, event: Submitted) -> None:
        """Let go of a composed job that is not submitted after all."""

    def known_job(self, nonce: bytes) -> RecordId | None:
        """The job that this node's own submission with this nonce named."""

    def has_ended(self, job: RecordId) -> bool:
        """Whether the journal holds its verdict."""

    async def fetch_end(self, job: RecordId) -> Answer | None:
        """How a job ended, from the journal, None while it is open; what is long is read in a thread.

        Raises `Refused` when its outputs are no longer kept.
        """

    def class_names(self, job: RecordId) -> list[str]:
        """What the classes of a job's answer are called, by the manifests of its models; empty where none says it."""

    async def fetch_receipt(self, job: RecordId) -> bytes:
        """The receipt of an ended job; one that is long is made in a thread. Raises `Refused`."""

    def watch(self, job: RecordId, watcher: Callable[[Answer], None]) -> Callable[[], None]:
        """Live events of a job; call the result to stop."""

    def find_job(self, name: str | bytes) -> RecordId:
        """A job of this node by id, or by the letters that tables show. Raises `Refused` E-job-13."""

    def trail(self, job: RecordId, after: int, most: int) -> list[Answer]:
        """What is on record of a job after event `after`, oldest first: id, at_ms, what, task, epoch, peer, text."""

    async def job_blob(self, job: RecordId, cid: bytes) -> bytes | None:
        """An input or output of a job, when its bytes are here; a long one is read in a thread."""

    async def add_model(self, card: Mapping[str, Any], files: Sequence[ListedFile]) -> Answer:
        """Offer uploads as a model; without `inputs` in the card they are read from it, in a sandbox.

        Raises `Refused` and `RunFailed`.
        """

    async def model_file(self, model: Record, name: str) -> bytes:
        """A small file of a model, from this home or from a peer that offers the model. Raises `Refused`."""

    def readiness(self) -> Answer:
        """ready, swarm_joined, workers_ready, disk_ok."""

    def numbers(self) -> Answer:
        """Gauges and counters by name, for metrics."""

    def job_of_verdict(self, verdict: RecordId) -> RecordId | None:
        """The job of this node that ended with this verdict."""

    def job_rows(self, jobs: Sequence[bytes] | None, most: int, before_ms: int) -> list[Answer]:
        """Lines of these jobs, or of all of this node's, newest first: job, label, pattern, tier, at_ms, status.

        More than `most` when several share the last one's millisecond.
        """

    async def ask(self, op: str, arguments: Mapping[str, Any]) -> Answer:
        """Any other question or command by name. Raises `Refused`."""
