"""A model of the library as the pool is to run it: files by manifest path with the ids they must have, and facts.

Rule: what a runtime is told of a model comes from its signed manifest and from nowhere else.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dimnode.exec.orders import Facts, ModelFile, ModelOrder
from dimnode.records.envelope import Record
from dimnode.records.ids import Cid
from dimnode.records.manifest import Manifest


@dataclass(frozen=True)
class LocalModel:
    """A model whose files are on this machine, by their paths in the manifest; `roots`: the blobs that they are."""

    manifest: Record
    files: Mapping[str, Path]
    roots: tuple[Cid, ...]

    @cached_property
    def order(self) -> ModelOrder:
        """What an order says of this model; each of a thousand a second says the same."""
        manifest = Manifest.of(self.manifest)
        # The first file is the one that a runtime opens.
        ordered = (manifest.main, *(file for file in manifest.files if file != manifest.main))
        files = tuple(ModelFile(file.path, file.role, str(self.files[file.path]), bytes(file.root)) for file in ordered)
        facts = _facts(self.manifest.payload)
        return ModelOrder(manifest.id.hex(), manifest.runtime, files, facts, manifest.size_bytes)


def _facts(said: Any) -> Facts:
    return Facts(
        architecture=said.get("architecture", ""),
        dtype=said.get("dtype", ""),
        quantisation=said.get("quantisation", ""),
        inputs=_tensors(said["inputs"]),
        outputs=_tensors(said["outputs"]),
        labels=tuple(said["labels"]),
        pre=tuple(said.get("pre", ())),
        post=tuple(said.get("post", ())),
        max_batch=said.get("max_batch", 0),
    )


def _tensors(rows: Any) -> tuple[tuple[str, str, tuple[int, ...]], ...]:
    return tuple((name, dtype, tuple(shape)) for name, dtype, shape in rows)
