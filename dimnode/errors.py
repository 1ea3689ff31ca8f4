"""The error families, split by whose fault it is.

Rule: an exception says who must act. `PeerFault`: the other node broke the protocol (caught at its link).
`Refused`: a legitimate no, shown to the person who asked. `RunFailed`: the model or its input failed, an outcome
of a task. `ConfigError`: the operator's settings. Everything else is our own bug and ends the nursery.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Complaint:
    """What a person reads: a documented code, what failed, the likely cause and the next command to type."""

    code: str
    what: str
    cause: str = ""
    hint: str = ""

    def lines(self) -> list[str]:
        """Three lines at most, the same on every door."""
        text = [f"error {self.code}: {self.what}"]
        if self.cause:
            text.append(f"cause: {self.cause}")
        if self.hint:
            text.append(f"hint: {self.hint}")
        return text


def why_of(error: Exception) -> str:
    """The cause for a person: of what the system refuses, its words without number and path."""
    return (isinstance(error, OSError) and error.strerror) or str(error)


class DimError(Exception):
    """Base of all expected failures; carries a `Complaint`."""

    def __init__(self, code: str, what: str, cause: str = "", hint: str = "") -> None:
        super().__init__(f"{code}: {what}")
        self.complaint = Complaint(code, what, cause, hint)


class ConfigError(DimError):
    """The operator's settings or arguments are wrong: one paragraph, exit code 2."""


class Refused(DimError):
    """A legitimate no: policy, quota, unknown name. Exit code 4. `retry_after_ms` > 0 means: later may work."""

    def __init__(self, code: str, what: str, cause: str = "", hint: str = "", retry_after_ms: int = 0) -> None:
        super().__init__(code, what, cause, hint)
        self.retry_after_ms = retry_after_ms


class RunFailed(DimError):
    """The model, its input or its limits ended the run: an outcome of the task, never a crash of the node."""


class NoNode(DimError):
    """No node answers on the control socket. Exit code 5."""


class PeerFault(Exception):
    """A peer broke the protocol. `rule` names the broken rule; the link that caught it is dropped.

    Inside `records` it means: these bytes are not a valid record. Whoever got them decides whose fault that is.
    """

    def __init__(self, rule: str) -> None:
        super().__init__(rule)
        self.rule = rule
