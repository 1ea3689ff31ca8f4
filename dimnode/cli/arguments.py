"""Every command and its arguments, as one tree.

Rule: nothing heavy is imported here, so that `--help` is instant. A leaf names the function that carries it out as
"module:function"; `cli.main` imports that module only when the command is given.
"""

import argparse
from pathlib import Path
from typing import Any, NoReturn

from dimnode.errors import ConfigError

_EPILOG = """\
first steps:
  dim demo                         a whole swarm on this machine, nothing to set up
  dim init && dim up               a node of your own; it prints how the next machine joins
  dim run MODEL rows.csv           run a model somewhere in the swarm, with a receipt
  dim verify receipt.dimr          check a receipt, offline

exit codes: 0 ok · 1 failed or refuted · 2 usage or configuration · 3 incomplete · 4 refused · 5 no node running
"""


class Parser(argparse.ArgumentParser):
    """argparse, but a mistake is told like every other error."""

    def error(self, message: str) -> NoReturn:
        """Raises `ConfigError` E-cli-10."""
        raise ConfigError("E-cli-10", f"{self.prog}: {message}", "", f"{self.prog} --help")


def build_parser() -> Parser:
    """The whole tree."""
    parser = Parser(
        prog="dim",
        description="dimnode: a Decentralized Inference Machine. Every node is a peer; every answer has a receipt.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", dest="show_version", action="store_true", help="print the version and exit")
    nouns = parser.add_subparsers(title="commands", metavar="COMMAND", dest="noun")
    _node(nouns)
    _offers(nouns)
    _standing(nouns)
    _run(nouns)
    _job(nouns)
    _receipts(nouns)
    _demo(nouns)
    return parser


def _leaf(nouns: Any, name: str, run: str, summary: str, **more: Any) -> Parser:
    """A command that does something; every one takes --home and --json."""
    found: Parser = nouns.add_parser(name, help=summary, description=summary, **more)
    found.set_defaults(run=run)
    found.add_argument("--home", type=Path, metavar="DIR", help="the node's directory (default: DIM_HOME)")
    found.add_argument("--json", action="store_true", help="one JSON document on stdout")
    return found


def _noun(nouns: Any, name: str, summary: str) -> Any:
    """A word that only groups others."""
    found: Parser = nouns.add_parser(name, help=summary, description=summary)
    return found.add_subparsers(title="commands", metavar="COMMAND", dest="verb", required=True)


def _comma_list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _node(nouns: Any) -> None:
    init = _leaf(nouns, "init", "node:init", "make a node's directory: settings and key")
    init.add_argument("--profile", choices=("dev", "prod"), default="dev", help="dev: this machine only; prod: network")
    init.add_argument("--force", action="store_true", help="write new settings over old ones (the key stays)")
    up = _leaf(nouns, "up", "node:up", "run the node in the foreground")
    up.add_argument("--profile", choices=("dev", "prod"))
    up.add_argument("--no-execute", action="store_true", help="submit and relay only: run no models")
    for parser in (init, up):
        parser.add_argument("--name", help="what this node calls itself")
        parser.add_argument("--listen", action="append", metavar="MULTIADDR", help="e.g. /ip4/0.0.0.0/tcp/4710")
        parser.add_argument("--bootstrap", action="append", metavar="MULTIADDR", help="a node to join through")
    status = _leaf(nouns, "status", "node:status", "what the node is doing")
    status.add_argument("--watch", action="store_true", help="a line every two seconds until Ctrl-C")
    _leaf(nouns, "peers", "node:peers", "who else is there")
    _leaf(nouns, "doctor", "node:doctor", "what is wrong, and how to mend it")
    connect = _leaf(nouns, "connect", "node:connect", "dial a peer now")
    connect.add_argument("address", metavar="MULTIADDR", help="/ip4/…/tcp/…/p2p/PEER")
    _leaf(nouns, "stop", "node:stop", "stop the node in good order")


def _offers(nouns: Any) -> None:
    models = _noun(nouns, "models", "models that can be run")
    add = _leaf(models, "add", "models:add", "offer a model (docs/operator.md)")
    add.add_argument("file", type=Path, metavar="FILE", help="an .onnx file, or the .toml card of one")
    for name in ("--name", "--version", "--licence", "--summary"):
        add.add_argument(name)
    add.add_argument("--origin", choices=("trained", "rule", "imported"))
    add.add_argument("--labels", type=_comma_list, metavar="A,B", help="what the classes are called")
    _leaf(models, "ls", "models:ls", "models here and on peers")
    cabinets = _noun(nouns, "data", "data cabinets: compute comes to the data")
    add = _leaf(cabinets, "add", "cabinets:add", "offer a CSV file under a policy; it never leaves this machine")
    add.add_argument("name")
    add.add_argument("file", type=Path, metavar="FILE.csv")
    add.add_argument("--label", default="", metavar="COLUMN", help="the column with the truth")
    add.add_argument("--exclude", type=_comma_list, default=[], metavar="A,B", help="columns that models never see")
    add.add_argument("--policy", type=Path, metavar="policy.toml", help="what is allowed to whom")
    add.add_argument("--allow", type=_comma_list, metavar="OPS", help="instead: evaluate, statistics, for any peer")
    add.add_argument("--min-cohort", type=int, help="with --allow: fewer rows are refused (default 10)")
    _leaf(cabinets, "ls", "cabinets:ls", "the cabinets of this node")


def _standing(nouns: Any) -> None:
    rep = _noun(nouns, "rep", "what this node thinks of its peers")
    _leaf(rep, "ls", "standing:ls", "every peer's standing, by context")
    explain = _leaf(rep, "explain", "standing:explain", "why: the events and the records behind them")
    explain.add_argument("peer", help="a peer id, its last letters, or a name")


def _run(nouns: Any) -> None:
    run = _leaf(nouns, "run", "jobs:run", "run a model on rows, somewhere in the swarm")
    run.add_argument("model", help="NAME, NAME:VERSION or PUBLISHER/NAME:VERSION")
    run.add_argument("input", help="a CSV file with a header, a JSON file, or - for stdin")
    columns = run.add_mutually_exclusive_group()
    columns.add_argument("--columns", type=_comma_list, metavar="A,B", help="only these columns, in this order")
    columns.add_argument("--drop", type=_comma_list, metavar="A,B", help="all columns but these")
    run.add_argument("--row", type=int, action="append", metavar="N", help="only the Nth row (first: 1); repeatable")
    run.add_argument("--take", action="append", metavar="NAME=TENSOR[A:B]", help="fill model input NAME from a tensor")
    run.add_argument("--tier", help="how the answer is checked: signed (default) or quorum")
    run.add_argument("--n", type=int, help="with tier quorum: how many peers run it (default 3)")
    run.add_argument("--k", type=int, help="with tier quorum: how many must agree (default 2)")
    run.add_argument("--peer", help="run it there and nowhere else")
    run.add_argument("--receipt", type=Path, metavar="PATH", help="where the receipt goes (default: in the home)")
    run.add_argument("--timeout", type=float, metavar="SECONDS", help="give up after this long (default 120)")


def _job(nouns: Any) -> None:
    job = _noun(nouns, "job", "jobs of all three patterns (docs/job-files.md)")
    validate = _leaf(job, "validate", "jobs:validate", "a dry run: the plan, its cost and its risk")
    run = _leaf(job, "run", "jobs:run_file", "run a job file")
    for parser in (validate, run):
        parser.add_argument("file", type=Path, metavar="FILE", help="YAML or JSON")
    run.add_argument("--receipt", type=Path, metavar="PATH", help="where the receipt goes (default: in the home)")
    run.add_argument("--detach", action="store_true", help="print the job's id and do not wait")
    run.add_argument("--timeout", type=float, metavar="SECONDS", help="stop waiting after this long; the job goes on")
    ls = _leaf(job, "ls", "history:ls", "the newest jobs")
    ls.add_argument("--most", type=int, default=20, metavar="N")
    for verb, summary in (
        ("show", "a job's records, and what went over the network for it"),
        ("events", "what has happened to it"),
        ("result", "its answer"),
        ("cancel", "end it"),
    ):
        leaf = _leaf(job, verb, f"history:{verb}", summary)
        leaf.add_argument("job", help="a job id or its last letters")
        if verb == "events":
            leaf.add_argument("--follow", action="store_true", help="until the job has ended")
        if verb == "result":
            leaf.add_argument("--receipt", type=Path, metavar="PATH", help="where its receipt goes")


def _receipts(nouns: Any) -> None:
    verify = _leaf(nouns, "verify", "verify:verify", "check receipts, offline: no node, no network, no keys needed")
    verify.add_argument("file", type=Path, nargs="+", metavar="FILE")
    verify.add_argument("--trust", type=Path, metavar="peers.toml", help="names of the keys that you trust")
    verify.add_argument("--blobs", type=Path, metavar="DIR", help="blobs that were left out of the file, named by CID")
    verify.add_argument("--require", action="append", default=[], metavar="NAME=N", help="not in this version")
    receipt = _noun(nouns, "receipt", "look into receipts")
    show = _leaf(receipt, "show", "receipts:show", "the tree of records: who signed what")
    show.add_argument("file", type=Path, metavar="FILE")
    show.add_argument("--trust", type=Path, metavar="peers.toml", help="names of the keys that you trust")
    redact = _leaf(receipt, "redact", "receipts:redact", "a copy without inputs and outputs; every signature stays")
    redact.add_argument("file", type=Path, metavar="FILE")
    redact.add_argument("out", type=Path, metavar="OUT")


def _demo(nouns: Any) -> None:
    demo = _leaf(nouns, "demo", "demo:demo", "a whole swarm on this machine: three patterns, a crash, a liar, receipts")
    demo.add_argument("--keep", action="store_true", help="leave the swarm running afterwards")
    demo.add_argument("--story", default="wdbc", help="which story is told")
    demo.add_argument("--folder", default="demo", metavar="DIR", help="where nodes and receipts go (default: ./demo)")
    demo.add_argument("--patients", default="", metavar="CSV", help="other patients in the shipped file's columns")
