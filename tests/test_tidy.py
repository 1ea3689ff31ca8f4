"""Style as a test: what a reviewer would say again and again is said here once."""

import ast
import re
import subprocess
from functools import cache
from pathlib import Path

import names_of_posix
import pytest

ROOT = Path(__file__).parent.parent
PRODUCT = sorted((ROOT / "dimnode").rglob("*.py"))
CORES = ("records", "consensus", "jobs", "cabinets", "wire.py")
PURE_FILES = {
    *("p2p/membership.py", "p2p/frames.py", "p2p/gossip.py", "p2p/host/yamux_frames.py"),
    *("p2p/admission.py", "p2p/blocklist.py", "p2p/conduct.py", "p2p/exchange.py", "p2p/invitation.py"),
    *("p2p/blob_places.py", "p2p/bitswap_words.py"),
    *("api/http/buckets.py", "api/http/caller.py", "api/http/closing.py", "api/http/complaints.py"),
    *("api/http/loads.py", "p2p/host/name_shelf.py", "p2p/host/provider_shelf.py"),
}
FORBIDDEN_IN_CORES = {"trio", "time", "socket", "sqlite3", "os", "logging", "threading", "subprocess", "asyncio"}
EMPTY_NAMES = {"data", "info", "manager", "handler", "util", "utils", "helper", "helpers", "misc", "common"}
LISTED_BROAD_CATCHES = {
    "dimnode/p2p/host",  # libp2p raises whatever it likes
    "dimnode/p2p/contain.py",  # what a peer's words began is not worth the node
    "dimnode/exec/worker.py",  # a model's failure is an outcome
    "dimnode/exec/zygote.py",
    "dimnode/exec/state_dict.py",  # a hostile checkpoint may raise anything
    "dimnode/exec/transforms/images.py",  # Pillow's plugins raise whatever a broken file makes of their arithmetic
    "dimnode/exec/transforms/texts.py",  # tokenizers raises bare Exception
    "dimnode/api/control.py",  # a bug in an answer is an answer
    "dimnode/api/http/guard.py",  # a bug in a route is an answer
    "dimnode/api/http/server.py",  # what a client caused ends its connection
    "dimnode/api/http/text.py",  # tokenizers raises bare Exception
    "dimnode/cli/tables.py",  # arro3's panics
    "dimnode/cli/main.py",  # the last line of defence before a person
}
POINTED_TO = re.compile(
    r"(?<![\w/.-])(?:tests|docs|dimnode|benchmarks|interop|examples|bootstrap|decisions|clients)/[\w/.-]+"
    r"\.(?:py|md|js|mjs|ts|toml|service|json)\b"
)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def is_core(path: Path) -> bool:
    inner = path.relative_to(ROOT / "dimnode").as_posix()
    return inner.split("/")[0] in CORES or inner in PURE_FILES


@cache
def nodes_of(path: Path) -> tuple[ast.AST, ...]:
    """Every node of it, the module first; parsed once for all the questions that are asked about it."""
    return tuple(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


@cache
def imported(path: Path) -> frozenset[str]:
    found = set()
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return frozenset(found)


def posix_names_in(path: Path) -> set[str]:
    """What this file takes of the standard library, or asks it for, that only some systems have."""
    found, modules = set(), {}
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            modules |= {alias.asname or alias.name: alias.name for alias in node.names}
    for node in nodes_of(path):
        match node:
            case ast.Attribute(value=ast.Name(id=module), attr=name) if module in modules:
                found.add((modules[module], name))
            case ast.Call(
                func=ast.Name(id="getattr" | "hasattr"), args=[ast.Name(id=module), ast.Constant(value=name), *_]
            ):
                found.add((modules.get(module, ""), name))
            case ast.Attribute(attr=name) if name in names_of_posix.METHODS:
                found.add(("", name))
            case ast.ImportFrom(module=module, names=names, level=0):
                found |= {(module, alias.name) for alias in names}
            case ast.Constant(value=str() as text) if text.startswith("/proc/"):
                found.add(("/proc/", ""))
    return {f"{module}.{name}" if name else module for module, name in found if _is_of_posix(module, name)}


def _is_of_posix(module: str, name: str) -> bool:
    names = names_of_posix.NAMES.get(module)
    return bool(names and names.fullmatch(name)) or name in names_of_posix.METHODS or module == "/proc/"


@pytest.mark.parametrize("path", PRODUCT, ids=name_of)
def test_a_module_opens_with_what_it_does_and_is_not_too_long(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 500, "split it: 250 lines is comfortable, 500 too long"
    if path.name != "__init__.py":
        assert ast.get_docstring(nodes_of(path)[0]), "say what the file does and which rule it keeps"


@pytest.mark.parametrize("path", [path for path in PRODUCT if is_core(path)], ids=name_of)
def test_a_core_does_no_io_and_reads_no_clock(path):
    assert not imported(path) & FORBIDDEN_IN_CORES


@pytest.mark.parametrize("path", PRODUCT, ids=name_of)
def test_libp2p_stays_behind_its_one_door(path):
    inside = name_of(path).startswith("dimnode/p2p/host/")
    assert inside or not imported(path) & {"libp2p", "multiaddr"}


@pytest.mark.parametrize("path", PRODUCT, ids=name_of)
def test_what_only_posix_has_stays_in_one_place(path):
    if path.parent == ROOT / "dimnode/posix":
        return
    assert not imported(path) & names_of_posix.MODULES
    assert not posix_names_in(path)


def test_the_search_finds_names_of_posix_however_they_are_written(tmp_path):
    written = """
import os, signal
import socket as sockets
from os import fork as again, getpid
from select import poll
os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
sockets.socket(sockets.AF_UNIX).recvmsg(1), sockets.AF_INET
getattr(os, "RWF_NOWAIT", 0), hasattr(os, "readv"), hasattr(os, "replace")
signal.SIGKILL, signal.SIGTERM
open(f"/proc/{pid}/status")
"""
    (tmp_path / "such.py").write_text(written, encoding="utf-8")
    ours = "os.O_NOFOLLOW os.RWF_NOWAIT os.fork os.readv select.poll signal.SIGKILL socket.AF_UNIX .recvmsg /proc/"
    assert posix_names_in(tmp_path / "such.py") == set(ours.split())


@pytest.mark.parametrize("path", PRODUCT, ids=name_of)
def test_nothing_is_ever_unpickled_or_evaluated(path):
    assert not imported(path) & {"pickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}
    called = {node.func.id for node in nodes_of(path) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert not called & {"eval", "exec", "compile", "__import__"}


@pytest.mark.parametrize("path", PRODUCT, ids=name_of)
def test_functions_are_readable_in_one_look(path):
    for node in nodes_of(path):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= 80, f"{node.name} has {length} lines"


@pytest.mark.parametrize("path", PRODUCT, ids=name_of)
def test_names_say_something(path):
    assert path.stem not in EMPTY_NAMES
    for node in nodes_of(path):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            assert node.name.strip("_").lower() not in EMPTY_NAMES, node.name


@pytest.mark.parametrize("path", PRODUCT, ids=name_of)
def test_broad_catches_stand_only_at_listed_boundaries(path):
    if any(name_of(path).startswith(listed) for listed in LISTED_BROAD_CATCHES):
        return
    for node in nodes_of(path):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"line {node.lineno}: bare except"
            names = {n.id for n in ast.walk(node.type) if isinstance(n, ast.Name)}
            assert not names & {"Exception", "BaseException"}, f"line {node.lineno}"


def test_init_files_are_empty_but_for_the_lazy_client():
    for path in PRODUCT:
        if path.name == "__init__.py" and path.parent.name != "dimnode":
            assert not path.read_text(encoding="utf-8").strip(), name_of(path)


def test_a_file_that_the_project_points_to_is_there():
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "decisions").glob("*.md")]
    for path in (*PRODUCT, *pages):
        for named in POINTED_TO.findall(path.read_text(encoding="utf-8")):
            assert (ROOT / named).exists(), f"{name_of(path)} points to {named}"


def test_the_repository_speaks_of_the_project_alone():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in listed.stdout.split():
        path = ROOT / name
        if path.suffix in {".py", ".md", ".toml", ".txt", ".yaml", ".yml", ".service", ""} and path.is_file():
            text = path.read_text(encoding="utf-8", errors="ignore")
            for secret in ("/" + "work/", "/" + "root/", "index" + "-url"):
                assert secret not in text, f"{name} mentions {secret}"
