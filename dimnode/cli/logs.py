"""What the node writes on stderr: one line per record, as text or as JSON, with ids in fields of their own.

Rule: a line says what happened to which job, peer or request, and never what was in it: no input, no output, no secret
of a key. So of an exception only its type and place are written; its words may quote what somebody sent.
"""

import json
import logging
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import PurePath
from traceback import extract_tb
from typing import Any, Final

from dimnode.cli.output import harmless

FIELDS: Final = ("job", "task", "peer", "key", "request", "method", "route", "status", "ms")
"""What a record may carry beside its message, given as `extra`."""
_FRAMES_MAX: Final = 12


def configure_logging(level: str, form: str = "text") -> None:
    """Records of ours from this level up; other people's libraries only when they complain."""
    stream = logging.StreamHandler(sys.stderr)
    stream.setFormatter(JsonLines() if form == "json" else TextLines())
    logging.basicConfig(level=logging.WARNING, handlers=[stream], force=True)
    logging.getLogger("dimnode").setLevel(level.upper())
    # No line says which code wrote it, in which thread: finding that out is a fifth of a line's cost.
    logging._srcfile = None  # see "Optimization" in the standard library's logging HOWTO
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


class TextLines(logging.Formatter):
    """For people: time, level, logger, message, then the fields as name=value."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._second, self._clock = -1, ""

    def format(self, record: logging.LogRecord) -> str:
        """Newlines become bars, so that a line is a record, and control characters harmless."""
        whole = super().format(record) if record.exc_info or record.stack_info else self.formatMessage(record)
        if whole.isprintable():
            return whole
        return " | ".join(harmless(part) for part in whole.splitlines() if part.strip())

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 the standard library's name
        """The line without the exception. Two of these are written for each job: hence no template."""
        said = "".join([f" {name}={value}" for name, value in fields_of(record).items()])
        return f"{self.formatTime(record)} {record.levelname} {record.name}: {record.getMessage()}{said}"

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 as above
        """Local time with milliseconds; a second is spelled once."""
        if (second := int(record.created)) != self._second:
            self._second, self._clock = second, time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))
        return f"{self._clock},{int(record.msecs):03d}"

    def formatException(self, ei: Any) -> str:  # noqa: N802 the standard library's name
        """Type and place."""
        return places(ei[1])


class JsonLines(logging.Formatter):
    """For machines: one object per line with time, level, logger, message, and the fields that apply."""

    def format(self, record: logging.LogRecord) -> str:
        """`error` is an exception's type and place."""
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        said: dict[str, Any] = {"time": moment.replace("+00:00", "Z"), "level": record.levelname.lower()}
        said |= {"logger": record.name, "message": record.getMessage(), **fields_of(record)}
        if record.exc_info and record.exc_info[1] is not None:
            said["error"] = places(record.exc_info[1])
        return json.dumps(said)


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """Those of `FIELDS` that this record has."""
    known = record.__dict__
    return {name: found for name in FIELDS if (found := known.get(name)) is not None and found != ""}


def places(error: BaseException) -> str:
    """The types of an exception and of what caused it, each with where it came from, innermost frame first."""
    return " because of ".join(_place(found) for found in _chain(error))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        if isinstance(error, BaseExceptionGroup):
            for inner in error.exceptions:
                yield from _chain(inner)
        else:
            yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _place(error: BaseException) -> str:
    frames = list(reversed(extract_tb(error.__traceback__)))[:_FRAMES_MAX]
    said = [f"{PurePath(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]
    return f"{type(error).__name__} at {' < '.join(said) or 'nowhere'}"
