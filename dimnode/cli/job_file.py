"""A job file as people write it: the map that it holds, and which file its `input` names.

Rule: a job file may come from somebody else. What it holds is plain maps, lists, texts and numbers, as many as a frame
takes: everything else is refused here with words, before it could reach a node. Nothing that it names is opened here.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from dimnode.cli.inputs import Choice, parse_json, unreadable
from dimnode.errors import ConfigError, DimError, Refused
from dimnode.limits import LIMITS

_PAGE: Final = "docs/job-files.md"
_DEPTH_MAX: Final = 32
_WHOLE_BITS: Final = 64
_FLAG: Final = re.compile(r"--(columns|drop|row)\b(?: (?!or )([^;]+))?")
_KEY_OF: Final = {"columns": "columns", "drop": "drop", "row": "rows"}
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def read_job_file(path: Path) -> dict[str, Any]:
    """The map that a YAML or JSON job file holds; a date in it is the text that stands there.

    Raises `ConfigError`: E-cli-40 for what is malformed, naming the line, or is none of JSON's types; E-cli-41 for a
    file that cannot be read. Raises `Refused` E-cli-04 for more than a node takes.
    """
    most = LIMITS.api.request_bytes_max
    try:
        with path.expanduser().open(encoding="utf-8-sig") as file:
            text = file.read(most + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(str(path), error, f"{_PAGE} shows job files") from None
    if len(text) > most:
        raise Refused("E-cli-04", f"{path} is too large", f"at most {most} bytes go to the node at once")
    found = parse_json(text, str(path), _PAGE) if path.suffix.lower() == ".json" else _yaml(text, path)
    if not isinstance(found, dict):
        raise ConfigError("E-cli-40", f"{path} holds no job", "a job file is a map of keys", _PAGE)
    if fault := _fault_of(found):
        raise ConfigError("E-cli-40", f"{path} holds {fault}", "a job holds what JSON can", _PAGE)
    return found


def file_of_job(job: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The job's `input` when it names a file."""
    wanted = job.get("input")
    return wanted if isinstance(wanted, Mapping) and isinstance(wanted.get("file"), str) else None


def choice_of(wanted: Mapping[str, Any]) -> Choice:
    """columns, drop, rows and name of an `input: {file: …}`. Raises `ConfigError` E-cli-43."""
    unknown = sorted(map(str, wanted.keys() - {"file", "columns", "drop", "rows", "name"}))
    if unknown:
        hint = "input: {file: rows.csv, columns: [a, b], drop: [c], rows: [1, 2], name: x}"
        raise ConfigError("E-cli-43", f"input: unknown key {unknown[0]!r} beside `file`", "", hint)
    rows = wanted.get("rows", [])
    if not isinstance(rows, list) or any(type(row) is not int for row in rows):
        raise ConfigError("E-cli-43", "input: rows is a list of numbers from 1", "", "rows: [1, 2]")
    for key in ("columns", "drop"):
        if not isinstance(wanted.get(key) or [], list):
            raise ConfigError("E-cli-43", f"input: {key} is a list of names", "", f"{key}: [a, b]")
    names = [tuple(map(str, wanted.get(key) or ())) for key in ("columns", "drop")]
    return Choice(names[0], names[1], tuple(rows), str(wanted.get("name", "")))


@contextmanager
def hints_for_files() -> Iterator[None]:
    """What `dim run` hints at as flags is said as keys of `input`: neither a job file nor `dim job` has flags."""
    try:
        yield
    except DimError as error:
        said = error.complaint
        hint = _FLAG.sub(lambda found: f"{_KEY_OF[found[1]]}{f': [{found[2]}]' if found[2] else ''}", said.hint)
        error.complaint = replace(said, hint=hint)
        raise


def _yaml(text: str, path: Path) -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """Without YAML's dates: `label: 2026-11-30` is a text."""

    Loader.yaml_implicit_resolvers = {
        first: [pair for pair in pairs if pair[0] != "tag:yaml.org,2002:timestamp"]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    try:
        return yaml.load(text, Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError("E-cli-40", f"{path}: malformed YAML{place}", error.problem or "", _PAGE) from None
    except (yaml.YAMLError, ValueError, RecursionError, LookupError, AttributeError) as error:
        # A number with too many digits; one with none behind `!!int`, which the library looks at all the same.
        cause = next(iter(str(error).splitlines()), "")
        raise ConfigError("E-cli-40", f"{path}: malformed YAML", cause, _PAGE) from None


def _fault_of(job: Any) -> str:
    """What of it cannot travel in a frame, in words; "" when all of it can.

    In YAML one list may stand in many places, or in itself: they are counted as often as they would be written.
    """
    left, waiting = LIMITS.wire.frame_containers_max, [(job, 1)]
    while waiting:
        value, depth = waiting.pop()
        if not isinstance(value, dict | list):
            if fault := _fault_of_leaf(value):
                return fault
            continue
        left -= 1
        if left < 0:
            return f"more than {LIMITS.wire.frame_containers_max} lists and maps"
        if depth > _DEPTH_MAX:
            return f"more than {_DEPTH_MAX} lists and maps in each other"
        if isinstance(value, dict):
            if wrong := [key for key in value if not isinstance(key, str)]:
                return f"the key {wrong[0]!r}, which is no text"
            value = [*value, *value.values()]
        waiting += [(entry, depth + 1) for entry in value]
    return ""


def _fault_of_leaf(value: Any) -> str:
    if value is not None and not isinstance(value, bool | int | float | str):
        return f"a {type(value).__name__}"
    if isinstance(value, int) and value.bit_length() >= _WHOLE_BITS:
        return f"a whole number of {value.bit_length()} bits"
    return "half of a letter (a lone surrogate)" if isinstance(value, str) and _SURROGATE.search(value) else ""
