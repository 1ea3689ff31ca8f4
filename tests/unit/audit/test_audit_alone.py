"""The verifier runs where nothing but pynacl and msgpack is installed, also as one file."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dimnode.audit.__main__ import main
from dimnode.audit.build import build
from dimnode.records.ids import cid_text
from dimnode.records.receipt import pack_receipt, parse_receipt

ROOT = Path(__file__).resolve().parents[3]
GOLDEN = ROOT / "tests" / "golden"
FORBIDDING = """
import sys

ALLOWED = {"__main__", "dimnode", "nacl", "msgpack", "cffi", "_cffi_backend"}
ROOMS = {"audit", "records", "consensus", "errors", "limits", "overlay_limits"}

class Forbid:
    def find_spec(self, name, path=None, target=None):
        top, _, rest = name.partition(".")
        if top not in ALLOWED and top not in sys.stdlib_module_names:
            raise ImportError(f"forbidden: {name}")
        if top == "dimnode" and rest and rest.split(".")[0] not in ROOMS:
            raise AssertionError(f"the verifier must not import {name}")
        return None

sys.meta_path.insert(0, Forbid())
"""


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """A fresh interpreter without the environment's PYTHON variables and without this folder on its path."""
    return subprocess.run([sys.executable, "-I", *arguments], capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.slow
def test_nothing_but_pynacl_and_msgpack_is_imported() -> None:
    """Without NumPy an average is not checked, and everything else is."""
    program = FORBIDDING + (
        "from pathlib import Path\n"
        "from dimnode.audit.verifier import verify\n"
        f"for path in sorted(Path({str(GOLDEN)!r}).glob('*.dimr')):\n"
        "    report = verify(path.read_bytes())\n"
        "    print(path.stem, report.status, [c.why for c in report.checks if c.code == 'R-AGGREGATE' and c.why])\n"
    )
    done = run("-c", program)
    assert done.stderr == ""
    lines = set(done.stdout.splitlines())
    assert "average 3 ['needs numpy']" in lines
    assert {line for line in lines if not line.startswith("average")} == {
        f"{path.stem} 0 []" for path in GOLDEN.glob("*.dimr") if path.stem != "average"
    }


@pytest.mark.slow
def test_the_pyz_verifies_by_itself(tmp_path: Path) -> None:
    archive = build(tmp_path / "dim-verify.pyz")
    # The package itself must not be found: everything named dimnode comes out of the archive.
    program = FORBIDDING + (
        "import runpy\n"
        "import importlib.machinery\n"
        f"archive, root = {str(archive)!r}, {str(ROOT)!r}\n"
        "sys.path = [entry for entry in sys.path if entry != root]\n"
        "sys.meta_path = [finder for finder in sys.meta_path if 'editable' not in repr(finder).lower()]\n"
        f"sys.argv = [archive, {str(GOLDEN / 'chain.dimr')!r}, '--json']\n"
        "try:\n"
        "    runpy.run_path(archive, run_name='__main__')\n"
        "finally:\n"
        "    assert sys.modules['dimnode.audit.verifier'].__file__.startswith(archive)\n"
    )
    done = run("-c", program)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"] == 0


def test_the_same_sources_give_the_same_pyz(tmp_path: Path) -> None:
    assert build(tmp_path / "one.pyz").read_bytes() == build(tmp_path / "two.pyz").read_bytes()


def test_the_program_takes_names_and_blobs_from_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    receipt = parse_receipt((GOLDEN / "comparative.dimr").read_bytes())
    file, peers, blobs = tmp_path / "light.dimr", tmp_path / "peers.toml", tmp_path / "blobs"
    file.write_bytes(pack_receipt(receipt.root, receipt.records.values(), receipt.openings.values(), ()))
    peers.write_text('[peers]\nalba = "12D3KooWnobody"\n')
    assert main([str(file), "--trust", str(peers)]) == 2
    assert "E-verify-02" in capsys.readouterr().err
    from scene import PEERS

    from dimnode.records.ids import peer_text

    peers.write_text(f'[peers]\nalba = "{peer_text(PEERS["alba"])}"\n')
    assert main([str(file), "--trust", str(peers)]) == 3
    assert "alba signed the answer to task 0" in capsys.readouterr().out
    blobs.mkdir()
    for cid, blob in receipt.blobs.items():
        (blobs / cid_text(cid)).write_bytes(blob)
    assert main([str(file), "--blobs", str(blobs)]) == 0
    assert main([str(file), "--blobs", str(tmp_path / ("a name that no system takes" * 20))]) == 2
    assert "E-verify-01" in capsys.readouterr().err


def test_a_file_that_is_not_there_is_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none.dimr")]) == 2
    assert "E-verify-01" in capsys.readouterr().err
