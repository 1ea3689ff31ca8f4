"""The worker's side of the memory that it shares with the node: two mappings.

Rule: what the node wrote stays as it is until its answer has been sent. Imported behind the walls, so without trio.
"""

import mmap
import os


class SharedArena:
    """Inputs where they lie, and room for one answer. The descriptors are its own from now on."""

    def __init__(self, inputs: int, output: int, input_bytes: int, output_bytes: int) -> None:
        self._inputs = memoryview(mmap.mmap(inputs, input_bytes, access=mmap.ACCESS_READ))
        self._output = memoryview(mmap.mmap(output, output_bytes))
        os.close(inputs)
        os.close(output)

    def view(self, offset: int, length: int) -> memoryview:
        """An input where it lies, read-only."""
        return self._inputs[offset : offset + length]

    def put(self, output: bytes) -> int:
        """Put an answer in; its length."""
        self._output[: len(output)] = output
        return len(output)
