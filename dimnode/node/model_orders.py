"""A model of the library as the pool is to run it: files by manifest path with the ids they must have, and facts.

Rule: what a runtime is told of a model comes from its signed manifest and from nowhere else.
"""

from typing import Any

from dimnode.exec.orders import Facts, ModelFile, ModelOrder
from dimnode.node.library import LocalModel


def model_order(model: LocalModel) -> ModelOrder:
    """What an order says of this model."""
    said = model.manifest.payload
    path, *_, cid, _ = said["files"][0]  # manifest/2 has the role of a file between its path and its root
    files = (ModelFile(path, "model", model.path, bytes(cid)),)
    return ModelOrder(model.manifest.id.hex(), said["format"], files, _facts(said))


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
