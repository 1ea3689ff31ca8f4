"""What the documents and the hints tell people to type exists."""

import ast
import re
import shlex
import tomllib
from pathlib import Path

import pytest
from fake_node import FakeNode
from test_cli_arguments import LEAVES

from dimnode.audit.files import read_trust
from dimnode.cabinets.policy import parse_policy
from dimnode.config import Config

ROOT = Path(__file__).resolve().parents[3]
OPERATORS = ROOT / "docs" / "operator.md"
GUIDES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md", ROOT / "bootstrap" / "README.md"]
NAMES = {name.removeprefix("dim ") for name in LEAVES}
PROSE = {"prints"}
NOUNS = {name.split()[0] for name in NAMES}


def typed_lines():
    """Lines of code blocks that begin with dim, without their comments."""
    for guide in GUIDES:
        inside = False
        for line in guide.read_text(encoding="utf-8").splitlines():
            inside ^= line.startswith("```")
            found = re.match(r"(?:echo .* \| )?(dim .*?)(?:  +#.*)?$", line)
            if inside and found and "▶" not in line:  # a drawing
                yield found[1].strip()


@pytest.mark.parametrize("line", sorted(set(typed_lines())))
def test_a_command_of_a_guide_can_be_typed(line):
    words = shlex.split(re.sub(r"[\[\]]", "", line))
    name = max((name for name in LEAVES if line.startswith(name)), key=len)
    LEAVES[name].parse_args(words[len(name.split()) :])


def test_every_option_is_told_of_in_a_guide():
    told = "\n".join(guide.read_text(encoding="utf-8") for guide in GUIDES)
    options = {
        option
        for parser in LEAVES.values()
        for action in parser._actions
        for option in action.option_strings
        if option.startswith("--")
    }
    assert {option for option in options - {"--help"} if not re.search(rf"{option}(?![\w-])", told)} == set()


def hints():
    """Words that follow `dim` in the product's own texts."""
    for path in (ROOT / "dimnode").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
                for match in re.finditer(r"(?<![\w/.-])dim ([a-z]+)(?: ([a-z]+))?", node.value):
                    if match[1] not in PROSE:
                        yield path.name, match[1], match[2]


@pytest.mark.slow
def test_every_hint_names_a_command_that_exists():
    for file, noun, verb in hints():
        known = noun in NOUNS
        grouped = noun in NOUNS and noun not in NAMES
        assert known, f"{file}: dim {noun}"
        assert not grouped or f"{noun} {verb}" in NAMES, f"{file}: dim {noun} {verb}"


def test_the_settings_table_of_the_operators_guide_is_complete():
    text = OPERATORS.read_text(encoding="utf-8")
    table = text[text.index("| key | default") : text.index("## Models")]
    documented = {
        key for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for key in re.findall(r"`(\w+)`", row)
    }
    assert documented == set(Config.__struct_fields__) - {"faults"}


def test_the_policy_of_the_operators_guide_is_one():
    blocks = re.findall(r"```toml\n(.*?)```", OPERATORS.read_text(encoding="utf-8"), re.DOTALL)
    [policy] = [block for block in blocks if "min_cohort" in block]
    for example in ('["12D3KooW…"]', '["bagaqiera…"]'):
        policy = policy.replace(example, '"any"')
    assert parse_policy(tomllib.loads(policy)).min_cohort == 20


def test_the_shipped_list_of_peers_can_be_read_and_is_empty():
    assert read_trust(ROOT / "bootstrap" / "peers.toml") == {}


def test_who_has_no_cabinets_is_told_where_those_of_others_are_and_how_one_is_made(dim, tmp_path):
    with FakeNode(tmp_path, data__ls={"result": {"cabinets": []}}):
        said = dim("data", "ls")
    assert said.code == 0
    assert said.err.strip().endswith("hint: dim data add NAME FILE.csv --policy policy.toml")
    assert "dim peers" in said.err
