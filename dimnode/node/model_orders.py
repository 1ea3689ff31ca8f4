"""A model of the library as the pool is to run it: files by manifest path with the ids they must have, and facts.

Rule: what a runtime is told of a model comes from its signed manifest and from nowhere else.
"""

from typing import Any

from dimnode.exec.orders import Facts, ModelFile, ModelOrder
from dimnode.node.library import LocalModel
from dimnode.records.manifest import Manifest


def model_order(model: LocalModel) -> ModelOrder:
    """What an order says of this model."""
    manifest = Manifest.of(model.manifest)
    # The first file is the one that a runtime opens.
    ordered = (manifest.main, *(file for file in manifest.files if file != manifest.main))
    files = tuple(ModelFile(file.path, file.role, str(model.files[file.path]), bytes(file.root)) for file in ordered)
    return ModelOrder(manifest.id.hex(), manifest.runtime, files, _facts(model.manifest.payload), manifest.size_bytes)


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
