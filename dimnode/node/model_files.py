"""The files of a model that a person adds: which of a folder belong to it, and what each is for.

Rule: only plain files with plain names, no links, nothing hidden: what is published is exactly what was looked at.
Everything here blocks.
"""

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from dimnode.errors import Refused, why_of
from dimnode.exec.runtimes.refusals import HEAD_BYTES, refusal_of, require_model_format
from dimnode.records.manifest_kinds import FILES_MAX, clash, path_problem, safe_path
from dimnode.store.home import KEY_FILE

CARD: Final = "model.toml"
"""What a person says of a model beside its files. The manifest says it to others; `[notes]` are the person's alone."""
_ROLES: Final = {
    ".onnx": "model",
    ".mlmodel": "model",
    ".safetensors": "weights",
    ".onnx_data": "weights",
    ".json": "config",
}
_TOKENIZERS: Final = frozenset(
    {
        *("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.txt", "vocab.json", "merges.txt"),
        *("special_tokens_map.json", "added_tokens.json", "spiece.model", "sentencepiece.bpe.model"),
    }
)
_LABELS: Final = frozenset({"labels.txt", "labels.json"})
_FORMATS: Final = {".onnx": "onnx", ".mlmodel": "coreml", ".safetensors": "torch"}
_WEIGHTY: Final = ("model", "weights")
_ENTRIES_MAX: Final = 4096
"""Of a folder, before it is clear that it is no model's."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file of a model before it is published: its path in the manifest, what it is for, where it lies."""

    path: str
    role: str
    place: Path


@dataclass(frozen=True, slots=True)
class Gathered:
    """`skipped`: hidden and empty files, and pickles, which are left out."""

    files: tuple[SourceFile, ...]
    skipped: tuple[str, ...]


def gather(source: Path) -> Gathered:
    """The files of a model, from one file or a folder. Raises `Refused` naming the first that cannot be published."""
    try:
        found = source.lstat()
        if stat.S_ISDIR(found.st_mode):
            return _of_folder(source)
        if not stat.S_ISREG(found.st_mode):
            raise Refused("E-models-05", f"{source} is not a plain file", "", "check the path")
        if not found.st_size:
            raise Refused("E-models-05", f"{source} is empty", "", "check the path")
        with source.open("rb") as file:
            require_model_format(source.name, file.read(HEAD_BYTES))
    except (OSError, ValueError) as error:  # a name with a NUL in it is no name
        raise Refused("E-models-05", f"cannot read {str(source)!r}", why_of(error), "check the path") from None
    return Gathered((SourceFile(safe_path(source.name), "model", source),), ())


def _of_folder(source: Path) -> Gathered:
    files: list[SourceFile] = []
    skipped: list[str] = []
    if (source / KEY_FILE).exists():
        what = f"{source} is a node's own directory"
        raise Refused("E-models-28", what, "its key would be published", "a folder of the model alone")
    for entry in _walk(source):
        path = PurePosixPath(entry.relative_to(source)).as_posix()
        found = entry.lstat()
        if any(part.startswith(".") for part in path.split("/")):
            skipped.append(path)
            continue
        if path == CARD or stat.S_ISDIR(found.st_mode):
            continue
        if not stat.S_ISREG(found.st_mode):
            what = f"{path} is a link or a special file"
            raise Refused("E-models-26", what, "a model has plain files only", "copy the file there")
        if problem := path_problem(path):
            raise Refused("E-models-26", f"a model may have no file {path[:120]!r}", problem, "rename it")
        if not found.st_size or _holds_code(path, entry):
            skipped.append(path)
            continue
        files.append(SourceFile(path, role_of(path), entry))
        if len(files) > FILES_MAX:
            raise Refused("E-models-27", f"{source} has more than {FILES_MAX} files", "", "a folder of the model alone")
    if not any(file.role in _WEIGHTY for file in files):
        what = f"{source} has no file of a model"
        raise Refused(
            "E-models-05", what, "weights end in .onnx or .safetensors, or are a .mlpackage", "check the path"
        )
    files.sort(key=lambda file: file.path)
    if again := clash([file.path for file in files]):
        what = f"{again!r} is there twice, but for capital letters"
        raise Refused("E-models-26", what, "some systems could not keep both", "rename one")
    return Gathered(tuple(files), tuple(sorted(skipped)))


def gather_listed(files: Sequence[SourceFile]) -> Gathered:
    """Files that each lie somewhere under another name, as somebody lists them. Raises `Refused` as `gather` does."""
    if len(files) > FILES_MAX:
        raise Refused("E-models-27", f"the model has more than {FILES_MAX} files", "", "fewer files")
    for file in files:
        if problem := path_problem(file.path):
            raise Refused("E-models-26", f"a model may have no file {file.path[:120]!r}", problem, "rename it")
        if not file.place.is_file() or not file.place.stat().st_size:
            raise Refused("E-models-05", f"cannot read {file.path}", "it is empty, or gone", "hand it in again")
        with file.place.open("rb") as opened:
            require_model_format(file.path, opened.read(HEAD_BYTES))
    if not any(file.role in _WEIGHTY for file in files):
        raise Refused("E-models-05", "no file is the model", "", "give one the role model or weights")
    if again := clash([file.path for file in files]):
        what = f"{again!r} is there twice, but for capital letters"
        raise Refused("E-models-26", what, "some systems could not keep both", "rename one")
    return Gathered(tuple(sorted(files, key=lambda file: file.path)), ())


def _holds_code(path: str, place: Path) -> bool:
    """A pickle in any wrapping, which folders often have beside safetensors: by its name and by its first bytes.

    A CoreML package is of a .mlmodel and a weight.bin.
    """
    named = "" if "com.apple.CoreML/" in path else path
    with place.open("rb") as file:
        return bool(refusal_of(named, file.read(HEAD_BYTES)))


def _walk(source: Path) -> list[Path]:
    """Everything below a folder, without following a link."""
    found: list[Path] = []
    for folder, folders, names in os.walk(source, followlinks=False):
        folders.sort()
        found += [Path(folder, name) for name in (*folders, *names)]
        if len(found) > _ENTRIES_MAX:
            what = f"{source} has more than {_ENTRIES_MAX} entries"
            raise Refused("E-models-27", what, "", "a folder of the model alone")
    return found


def role_of(path: str) -> str:
    """What a file is for, by its name."""
    name = PurePosixPath(path).name.lower()
    if name in _TOKENIZERS:
        return "tokenizer"
    if name in _LABELS:
        return "labels"
    return _ROLES.get(PurePosixPath(name).suffix, "other")


def format_of(files: tuple[SourceFile, ...]) -> str:
    """The format that the files look like; "" when they look like none."""
    if any(part.endswith(".mlpackage") for file in files for part in file.path.split("/")):
        return "coreml"
    suffixes = {PurePosixPath(file.place.name.lower()).suffix for file in files}
    return next((name for suffix, name in _FORMATS.items() if suffix in suffixes), "")
