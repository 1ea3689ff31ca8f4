"""The golden stories are the stage for forged receipts too, and the engine's stage for its limits."""

import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "golden"), str(TESTS / "unit" / "jobs")]
