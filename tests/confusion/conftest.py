"""Small models in every format lie beside the tests of the room for compute."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "unit" / "exec"))
