"""Every code that a person can see stands in docs/errors.md, and nothing else does."""

import ast
import re
from pathlib import Path

import pytest

from dimnode.p2p.conduct import CODES

ROOT = Path(__file__).resolve().parents[3]
DOCUMENT = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
CODE = re.compile(r"E-[a-z0-9]+-\d\d\d?")
OVERLAY = re.compile(r"E-(?:net|p2p|peers|swarm)-\d\d")
ROW = re.compile(r"^\| `([^`]+)` \| (.+) \| (.+) \|$", re.MULTILINE)
ERRORS = {"ConfigError", "Refused", "RunFailed", "NoNode", "DimError", "ListenFailed", "Complaint"}


def codes_in(path):
    """String constants that are codes or hold one, and whatever an error is constructed with as its code."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from CODE.findall(node.value)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ERRORS and node.args:
            first = node.args[0]
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield first.value


@pytest.fixture(scope="module")
def raised():
    """Every code in the product."""
    return {code for path in (ROOT / "dimnode").rglob("*.py") for code in codes_in(path)}


DOCUMENTED = [row[0] for row in ROW.findall(DOCUMENT)]


@pytest.mark.slow
def test_every_code_is_documented(raised):
    assert raised - set(DOCUMENTED) == set()


@pytest.mark.slow
def test_every_documented_code_exists(raised):
    assert set(DOCUMENTED) - raised == set()


@pytest.mark.slow
def test_every_refusal_of_the_overlay_is_named_by_a_test(raised):
    """By its code; an offence of a peer by its name, because its code is only shown to people."""
    tests = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))
    offences = {code for offence, code in CODES.items() if f"Offence.{offence.name}" in tests}
    assert {code for code in raised if OVERLAY.fullmatch(code)} - set(CODE.findall(tests)) - offences == set()


def test_no_code_is_documented_twice():
    assert len(DOCUMENTED) == len(set(DOCUMENTED))


def test_every_row_says_what_happened_and_what_to_do():
    assert all(len(what) > 10 and len(then) >= 5 for _, what, then in ROW.findall(DOCUMENT))
