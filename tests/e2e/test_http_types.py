"""The TypeScript types of the HTTP API: made of the shipped document, and compiled strictly with their client.

Skipped, with the reason, where there is no Node, or where npm cannot fetch the compiler (once; then no network is
needed). `make interop` also runs the client against a real node.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

CLIENTS = Path(__file__).parents[2] / "clients" / "http"
TSC = "node_modules/typescript/bin/tsc"
INSTALL_SECONDS = 120
RUN_SECONDS = 120

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def node() -> str:
    """Node, with the compiler beside the client."""
    found, npm = shutil.which("node"), shutil.which("npm")
    if found is None or npm is None:
        pytest.skip("the types are compiled with Node and npm, which are not installed")
    if not (CLIENTS / TSC).is_file() or not (CLIENTS / "node_modules/openapi-typescript").is_dir():
        command = [npm, "ci", "--prefer-offline", "--ignore-scripts", "--no-audit", "--no-fund"]
        try:
            done = run(*command, seconds=INSTALL_SECONDS)
        except subprocess.TimeoutExpired:
            pytest.skip(f"npm did not install the compiler within {INSTALL_SECONDS} s")
        if done.returncode:
            pytest.skip(f"npm cannot install the compiler here: {done.stderr.strip()[-200:]}")
    return found


def run(*command: str, folder: Path = CLIENTS, seconds: int = RUN_SECONDS) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=seconds, check=False)


def test_the_types_are_those_of_the_document(node: str) -> None:
    done = run(node, "types.mjs", "--check")
    assert done.returncode == 0, done.stdout + done.stderr


def test_types_and_client_compile_strictly(node: str) -> None:
    done = run(node, TSC, "-p", ".")
    assert done.returncode == 0, done.stdout


def test_a_client_that_reads_a_field_that_no_answer_has_does_not_compile(node: str, tmp_path: Path) -> None:
    for name in ("dimnode.d.ts", "example.ts", "tsconfig.json", "package.json"):
        shutil.copy(CLIENTS / name, tmp_path / name)
    wrong = 'import type { components } from "./dimnode.d.ts";\n'
    wrong += 'export const read = (job: components["schemas"]["JobOut"]): string => job.verdikt;\n'
    with (tmp_path / "example.ts").open("a") as file:
        file.write(wrong)
    done = run(node, str(CLIENTS / TSC), "-p", ".", folder=tmp_path)
    assert done.returncode != 0
    assert "verdikt" in done.stdout
