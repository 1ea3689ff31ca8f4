"""What an installation weighs, and whether all extras live together.

    python benchmarks/footprint.py [--all]

Makes a fresh environment in a temporary folder, installs the package as a user would (base, onnx), and counts bytes of
files beyond an empty environment. Exits 1 above 350 MB. `--all` installs every extra but `dev` into it and runs
`pip check`.
"""

import argparse
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
BASE_BYTES_MAX = 350_000_000


def size_of(folder: Path) -> int:
    """Bytes of all files, links not followed."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir() or path.is_symlink())


def extras() -> str:
    """All that a user may install."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return ",".join(sorted(project["optional-dependencies"].keys() - {"dev"}))


def install(python: Path, what: list[str]) -> float:
    """Seconds that pip took."""
    start = time.perf_counter()
    command = [str(python), "-m", "pip", "--disable-pip-version-check", "-q", "install", "-c", "constraints.txt"]
    subprocess.run([*command, *what], check=True, cwd=ROOT, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> int:
    """0 when the base is within its bound and nothing is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", action="store_true")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "venv"
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
        python, empty = place / "bin" / "python", size_of(place)
        took = install(python, ["./third_party/fastecdsa", ".[onnx]"])
        base = size_of(place) - empty
        print(f"base with onnx: {base / 1e6:.0f} MB in {took:.0f} s (bound {BASE_BYTES_MAX / 1e6:.0f} MB)")
        broken = 0
        if chosen.all:
            took = install(python, [f".[{extras()}]"])
            print(f"all extras ({extras()}): {(size_of(place) - empty) / 1e6:.0f} MB, {took:.0f} s more")
            broken = subprocess.run([str(python), "-m", "pip", "check"], check=False).returncode
    return int(base > BASE_BYTES_MAX or broken != 0)


if __name__ == "__main__":
    sys.exit(main())
