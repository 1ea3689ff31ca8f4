"""Packs the verifier into one file: `python -m dimnode.audit.build OUT.pyz`.

Rule: the same sources give the same bytes, and nothing gets in that the verifier does not import.
The result needs Python 3.11, pynacl and msgpack; NumPy only for receipts with averages.
"""

import sys
import zipfile
from pathlib import Path

PARTS = (
    "errors.py",
    "limits.py",
    "overlay_limits.py",  # the rest of limits.py
    "records/*.py",
    "consensus/__init__.py",
    "consensus/agreement.py",
    "consensus/recompute.py",
    "consensus/tensors.py",
    "audit/*.py",
)
_ENTRY = "import sys\nfrom dimnode.audit.__main__ import main\n\nsys.exit(main())\n"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the oldest time that a zip file can hold: builds must not differ by the clock


def build(target: Path) -> Path:
    """Write the archive and make it executable."""
    package = Path(__file__).resolve().parent.parent
    files = {path.relative_to(package.parent).as_posix(): path for part in PARTS for path in package.glob(part)}
    texts = {name: path.read_bytes() for name, path in files.items()}
    texts |= {"__main__.py": _ENTRY.encode(), "dimnode/__init__.py": b""}
    with target.open("wb") as file:
        file.write(b"#!/usr/bin/env python3\n")
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in sorted(texts):
                entry = zipfile.ZipInfo(name, _EPOCH)
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, texts[name])
    target.chmod(0o755)
    return target


if __name__ == "__main__":
    build(Path(sys.argv[1] if len(sys.argv) > 1 else "dim-verify.pyz"))
