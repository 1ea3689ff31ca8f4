"""Whether token ids can be looked up in a table of words.

Rule: looked at before any library sees them: some read past the end of the table without a word.
"""

from dimnode.errors import RunFailed
from dimnode.exec import orders
from dimnode.exec.mapping import Array


def check_tokens(ids: Array, words: int, positions: int) -> None:
    """Raises `RunFailed`: an id outside the table, more tokens than positions, or none at all."""
    if not ids.size:
        raise RunFailed(orders.BAD_SHAPE, "model input 'input_ids' is empty")
    if ids.shape[1] > positions:
        raise RunFailed(orders.BAD_SHAPE, f"{ids.shape[1]} tokens, and the model has {positions} positions")
    if ids.min() < 0 or ids.max() >= words:
        raise RunFailed(orders.BAD_DTYPE, f"model input 'input_ids' has ids outside 0 to {words - 1}")
