"""Writes the golden files again: `python tests/golden/make_golden.py`.

A change of any byte of them changes the ids of every record in the world: see docs/receipt.md, "When it changes".
"""

import json
from pathlib import Path

from membership_vectors import membership_text
from model_vectors import models_text
from scene import STORIES
from vectors import vectors

FOLDER = Path(__file__).parent


def vectors_text() -> str:
    """vectors.json as it is kept."""
    return json.dumps(vectors(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for name, story in STORIES.items():
        (FOLDER / f"{name}.dimr").write_bytes(story())
    (FOLDER / "vectors.json").write_text(vectors_text(), encoding="utf-8")
    (FOLDER / "models.json").write_text(models_text(), encoding="utf-8")
    (FOLDER / "membership.json").write_text(membership_text(), encoding="utf-8")
