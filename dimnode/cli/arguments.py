"""Every command and its arguments, as one tree.

Rule: nothing heavy is imported here, so that `--help` is instant. A leaf names the function that carries it out as
"module:function"; `cli.main` imports that module only when the command is given.
"""

import argparse
import re
from difflib import get_close_matches
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


_NO_CHOICE = re.compile(r"invalid choice: '([^']*)' \(")
_MISTAKE_MAX = 400  # letters: what was typed may be a whole document


class Parser(argparse.ArgumentParser):
    """argparse, but a mistake is told like every other error, and no flag has a second, shorter name.

    Whether `--json` was given has to be seen also where the arguments were not understood; and what `--js` means today
    would change when one more flag is added.
    """

    def __init__(self, **words: Any) -> None:
        super().__init__(allow_abbrev=False, **words)

    def error(self, message: str) -> NoReturn:
        """Raises `ConfigError` E-cli-10."""
        if (typed := _NO_CHOICE.search(message)) and (
            near := get_close_matches(typed[1], re.findall(r"'([^']*)'", message[typed.end() :]), 1)
        ):
            message = f"{message[: typed.end() - 1].strip()}; did you mean {near[0]!r}?"
        raise ConfigError("E-cli-10", f"{self.prog}: {message[:_MISTAKE_MAX]}", "", f"{self.prog} --help")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """What a command does not know is its own mistake: argparse would let `dim` itself complain of it."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"there is no argument {' '.join(unknown)}")
        return found, unknown


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
    _swarm(nouns)
    _offers(nouns)
    _blobs(nouns)
    _kubo(nouns)
    _standing(nouns)
    _keys(nouns)
    _run(nouns)
    _job(nouns)
    _receipts(nouns)
    _demo(nouns)
    return parser


def _leaf(nouns: Any, name: str, run: str, summary: str, *, nested: bool = False, **more: Any) -> Parser:
    """A command that does something; every one takes --home and --json, `nested` ones also before their name."""
    found: Parser = nouns.add_parser(name, help=summary, description=summary, **more)
    found.set_defaults(run=run)
    unsaid: dict[str, Any] = {"default": argparse.SUPPRESS} if nested else {}
    found.add_argument("--home", type=Path, metavar="DIR", help="the node's directory (default: DIM_HOME)", **unsaid)
    found.add_argument("--json", action="store_true", help="one JSON document on stdout", **unsaid)
    return found


def _noun(nouns: Any, name: str, summary: str) -> Any:
    """A word that only groups others."""
    found: Parser = nouns.add_parser(name, help=summary, description=summary)
    return found.add_subparsers(title="commands", metavar="COMMAND", dest="verb", required=True)


def _bench(models: Any) -> None:
    bench = _leaf(models, "bench", "labour:bench", "latency and throughput of a model here, beside the bare runtime")
    bench.add_argument("model", metavar="MODEL")
    bench.add_argument("--batches", type=_numbers, default=[1, 2, 4, 8], metavar="1,2,4,8", help="rows in a run")
    bench.add_argument("--size", type=int, default=16, help="of other free dimensions (default 16)")
    bench.add_argument("--seconds", type=float, default=0.5, help="for each figure (default 0.5)")


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in _comma_list(text)]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of whole numbers, as in 1,2,4,8") from None


def _comma_list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _trust(parser: Parser) -> None:
    words = "names of peers that you know; they go before what peers call themselves"
    parser.add_argument("--trust", type=Path, metavar="peers.toml", help=words)


def _node(nouns: Any) -> None:
    init = _leaf(nouns, "init", "init:init", "make a node's directory: settings and key")
    init.add_argument("--profile", choices=("dev", "prod"), default="dev", help="dev: this machine only; prod: network")
    init.add_argument("--force", action="store_true", help="write new settings over old ones (the key stays)")
    init.add_argument("--certificate", type=Path, metavar="FILE", help="TLS for the HTTP door, PEM")
    init.add_argument("--private-key", type=Path, metavar="FILE", help="of that certificate, PEM")
    init.add_argument("--self-signed", action="store_true", help="TLS for the HTTP door with a certificate of its own")
    up = _leaf(nouns, "up", "node:up", "run the node in the foreground")
    up.add_argument("--profile", choices=("dev", "prod"))
    up.add_argument("--no-execute", action="store_true", help="submit and relay only: run no models")
    for parser in (init, up):
        parser.add_argument("--http", metavar="HOST:PORT", help="where the HTTP door listens once there is a key")
        parser.add_argument("--name", help="what this node calls itself")
        parser.add_argument("--listen", action="append", metavar="MULTIADDR", help="e.g. /ip4/0.0.0.0/tcp/4710")
        parser.add_argument("--bootstrap", action="append", metavar="MULTIADDR", help="a node to join through")
    status = _leaf(nouns, "status", "labour:status", "what the node is doing: queue, workers, memory")
    status.add_argument("--watch", action="store_true", help="keep it up to date until Ctrl-C; in a pipe, line by line")
    drain = _leaf(nouns, "drain", "labour:drain", "take no more leases, finish what runs")
    drain.add_argument("--off", action="store_true", help="take leases again")
    drain.add_argument("--wait", action="store_true", help="return when nothing runs any more")
    _peers(nouns)
    _leaf(nouns, "doctor", "node:doctor", "what is wrong, and how to mend it")
    connect = _leaf(nouns, "connect", "node:connect", "dial a peer now")
    connect.add_argument("address", metavar="MULTIADDR", help="/ip4/…/tcp/…/p2p/PEER")
    _leaf(nouns, "stop", "node:stop", "stop the node in good order")


def _peers(nouns: Any) -> None:
    peers = _leaf(nouns, "peers", "peers:peers", "who else is there; block, allow, blocked: who is let in")
    peers.add_argument("--watch", action="store_true", help="then a line for each change until Ctrl-C")
    verbs = peers.add_subparsers(title="commands", metavar="COMMAND", dest="verb")
    network = "an IP address, or a network such as 192.0.2.0/24"
    block = _leaf(verbs, "block", "peers:block", "keep a peer or an address out, at once and for good", nested=True)
    block.add_argument("target", metavar="PEER|ADDRESS", help=f"a peer id, its last letters, a name, {network}")
    block.add_argument("--reason", default="", help="for `dim peers blocked`; nobody else is told")
    allow = _leaf(verbs, "allow", "peers:allow", "take a block back, or add to the settings' allow list", nested=True)
    allow.add_argument("target", metavar="PEER|ADDRESS", help=f"a whole peer id, {network}")
    _leaf(verbs, "blocked", "peers:blocked", "who is kept out, and why", nested=True)


def _swarm(nouns: Any) -> None:
    swarm = _noun(nouns, "swarm", "a swarm of your own: who may join, who is in (docs/swarms.md)")
    new = _leaf(swarm, "new", "swarms:new", "found a private swarm; this node is its admin")
    new.add_argument("name", metavar="NAME")
    new.add_argument("--psk", action="store_true", help="hide all traffic behind a pre-shared key too (slower)")
    new.add_argument("--admin", action="append", metavar="PEER", help="one more admin, by peer id; repeatable")
    invite = _leaf(swarm, "invite", "swarms:invite", "one string that lets another machine join (admins)")
    invite.add_argument("--expires", default="7d", metavar="7d", help="how long it lets somebody in (default 7d)")
    invite.add_argument("--uses", type=int, default=1, metavar="N", help="how many machines may use it (default 1)")
    invite.add_argument("--member-expires", metavar="30d", help="membership ends after this long (default: never)")
    invite.add_argument("--label", metavar="TEXT", help="what dim swarm show calls it; the invited see it")
    invite.add_argument("--address", action="append", metavar="MULTIADDR", help="where to join (default: this node's)")
    join = _leaf(swarm, "join", "swarms:join", "use an invitation; then dim up")
    join.add_argument("invitation", nargs="+", metavar="INVITATION", help="dim1:…, or - to read it from stdin")
    _leaf(swarm, "members", "swarms:members", "who may take part")
    remove = _leaf(swarm, "remove", "swarms:remove", "remove a member, or withdraw an invite (admins)")
    remove.add_argument("target", metavar="PEER|INVITE", help="an id, its last letters, or a peer's name")
    remove.add_argument("--reason", metavar="TEXT", help="members can read it")
    _leaf(swarm, "show", "swarms:show", "the swarm, this node's place in it, invites and removals")
    _leaf(swarm, "leave", "swarms:leave", "back to the open swarm; what was done is set aside")


def _offers(nouns: Any) -> None:
    models = _noun(nouns, "models", "models that can be run")
    add = _leaf(models, "add", "models:add", "offer a model: a file, or a folder of files (docs/operator.md)")
    add.add_argument("file", type=Path, metavar="DIR_OR_FILE", help="a folder, a file, or the .toml card of one")
    add.add_argument("--name")
    add.add_argument("--version")
    update = _leaf(models, "update", "models:update", "a new version of a model of yours; what you do not say stays")
    update.add_argument("model", metavar="NAME")
    update.add_argument("file", type=Path, nargs="?", metavar="DIR_OR_FILE", help="new files (default: the same)")
    update.add_argument("--version", required=True)
    for parser in (add, update):
        _said_of_model(parser)
    ls = _leaf(models, "ls", "models:ls", "models here and on peers")
    ls.add_argument("--mine", action="store_true", help="only what this node publishes")
    ls.add_argument(
        "--publisher", metavar="PEER", help="what this peer publishes, from its index: its id, last letters, or name"
    )
    load = _leaf(models, "load", "labour:load", "load a model into a worker now, so that its next task finds it warm")
    load.add_argument("model", metavar="MODEL")
    _bench(models)
    _models_one(models)
    cabinets = _noun(nouns, "data", "data cabinets: compute comes to the data")
    add = _leaf(cabinets, "add", "cabinets:add", "offer a CSV file under a policy; it never leaves this machine")
    add.add_argument("name")
    add.add_argument("file", type=Path, metavar="FILE.csv")
    add.add_argument("--label", default="", metavar="COLUMN", help="the column with the truth")
    add.add_argument("--exclude", type=_comma_list, default=[], metavar="A,B", help="columns that models never see")
    add.add_argument("--policy", type=Path, metavar="policy.toml", help="what is allowed to whom")
    add.add_argument("--allow", type=_comma_list, metavar="OPS", help="instead: evaluate, statistics, for any peer")
    add.add_argument("--min-cohort", type=int, help="with --allow: fewer rows are refused (default 10)")
    add.add_argument("--where", type=_comma_list, metavar="A,B", help="with --allow: columns that conditions may use")
    which = add.add_mutually_exclusive_group()
    which.add_argument("--models", type=_comma_list, metavar="A,B", help="with --allow: names or ids of these models")
    which.add_argument("--any-model", action="store_true", help="with --allow: any model that this node holds")
    _leaf(cabinets, "ls", "cabinets:ls", "the cabinets of this node")
    remove = _leaf(cabinets, "rm", "cabinets:remove", "offer a cabinet no longer; its file stays")
    remove.add_argument("name")


def _kubo(nouns: Any) -> None:
    kubo = _noun(nouns, "kubo", "an IPFS daemon of yours beside the node (docs/kubo.md)")
    _leaf(kubo, "status", "kubo:status", "who answers there, and what of this node it has")
    push = _leaf(kubo, "push", "kubo:push", "add what is not there yet and renew the name; or one job's receipt")
    push.add_argument("job", nargs="?", metavar="JOB", help="a job id or its last letters")


def _blobs(nouns: Any) -> None:
    blobs = _noun(nouns, "blobs", "bytes by CID: models' files and whatever you add (docs/content.md)")
    add = _leaf(blobs, "add", "blobs:add", "copy a file into the store; its CID")
    add.add_argument("file", type=Path, metavar="FILE")
    add.add_argument("--no-pin", action="store_true", help="it may go when room is needed")
    get = _leaf(blobs, "get", "blobs:get", "fetch a blob from the peers that have it; resumes after Ctrl-C")
    get.add_argument("-o", "--output", type=Path, metavar="PATH", help="also copy it there")
    get.add_argument("--from", dest="source", action="append", metavar="PEER", help="ask this peer or address, too")
    get.add_argument("--pin", action="store_true", help="keep it")
    _leaf(blobs, "ls", "blobs:ls", "what is here, and why it is kept")
    pin = _leaf(blobs, "pin", "blobs:pin", "keep a blob")
    unpin = _leaf(blobs, "unpin", "blobs:unpin", "one reason less to keep it")
    for parser in (pin, unpin):
        parser.add_argument("--reason", metavar="WORD", help="what for (default: user)")
    for parser in (add, get, pin, unpin):
        parser.add_argument("--share", action="store_true", help="let everybody fetch it (unpin: no longer)")
    gc = _leaf(blobs, "gc", "blobs:gc", "let go of unpinned blobs beyond max_cache_gb, the least recently used first")
    which = gc.add_mutually_exclusive_group()
    which.add_argument("--all", action="store_true", help="of all unpinned ones")
    which.add_argument("--to-gb", type=float, metavar="GB", help="until the unpinned ones have at most this")
    rm, verify = (
        _leaf(blobs, "rm", "blobs:rm", "take one out now"),
        _leaf(blobs, "verify", "blobs:verify", "hash it again"),
    )
    for parser in (get, pin, unpin, rm, verify):
        parser.add_argument("blob", metavar="CID")
    _leaf(blobs, "stat", "blobs:stat", "sizes, bounds and what was served")


def _said_of_model(parser: Parser) -> None:
    """What `add` and `update` may say of a model."""
    formats = ("onnx", "torch", "mlx", "coreml")
    parser.add_argument("--format", choices=formats, help="default: what the files look like")
    parser.add_argument("--licence", "--license", help="what others may do with it")
    parser.add_argument("--summary")
    parser.add_argument("--card", type=Path, metavar="FILE.toml", help="what the model is and takes (examples/models)")
    parser.add_argument("--origin", choices=("trained", "rule", "imported", "converted", "quantised"))
    parser.add_argument("--labels", type=_comma_list, metavar="A,B", help="what the classes are called")
    policies = ("public", "private", "restricted", "pay-per-use")
    parser.add_argument("--access", choices=policies, help="who may use it (default public); then: dim models grant")
    parser.add_argument("--price", metavar='"0.002 EUR/row"', help="for pay-per-use: of each row, or /answer")


def _models_one(models: Any) -> None:
    """One model at a time."""
    words = {
        "show": "everything about a model: files, policy, lineage, who has it, whether you may use it and why",
        "pull": "fetch its files from peers and offer it; resumes after Ctrl-C",
        "warm": "have it ready before a job needs it, here or at a peer",
        "verify": "hash all its files again; exit code 1 when one does not hold",
        "withdraw": "take a model of yours back, for everybody; old receipts still verify",
        "rm": "hold it no longer",
        "grant": "let a peer use a restricted model of yours",
        "revoke": "take a peer's grants of a model back",
    }
    leaf = {verb: _leaf(models, verb, f"model_care:{verb}", summary) for verb, summary in words.items()}
    for parser in leaf.values():
        parser.add_argument("model", metavar="NAME", help="NAME, NAME:VERSION, PUBLISHER/NAME:VERSION or an id")
    leaf["pull"].add_argument("--from", dest="source", action="append", metavar="PEER", help="ask it first; repeatable")
    leaf["warm"].add_argument("--peer", help="ask this peer instead of fetching it here")
    leaf["withdraw"].add_argument("--reason", default="", help="everybody can read it")
    leaf["withdraw"].add_argument("--replacement", metavar="NAME", help="what to use instead")
    for verb in ("grant", "revoke"):
        leaf[verb].add_argument("peer", help="a whole peer id: a name or a few letters could be somebody else's")
    what = "of fetch, infer, evaluate (default: all)"
    leaf["grant"].add_argument("--for", dest="operations", type=_comma_list, metavar="A,B", help=what)
    leaf["grant"].add_argument("--expires", default="90d", metavar="TIME", help="30m, 12h, 7d … or never (default 90d)")
    leaf["grant"].add_argument("--terms", default="", help="what you agreed on, in words")
    leaf["revoke"].add_argument("--reason", default="", help="everybody can read it")


def _standing(nouns: Any) -> None:
    rep = _noun(nouns, "rep", "what this node thinks of its peers")
    _leaf(rep, "ls", "standing:ls", "every peer's standing, by context")
    explain = _leaf(rep, "explain", "standing:explain", "why: the events and the records behind them")
    explain.add_argument("peer", help="a peer id, its last letters, or a name")
    _trust(explain)


def _keys(nouns: Any) -> None:
    keys = _noun(nouns, "keys", "keys of the HTTP door (docs/http.md)")
    new = _leaf(keys, "new", "keys:new", "make a key; it is shown once")
    new.add_argument("--name", default="", help="what it is for")
    scopes = "submit, read, review, admin (default: submit and read); repeatable"
    new.add_argument("--scope", action="append", metavar="SCOPE", help=scopes)
    new.add_argument("--model", action="append", default=[], metavar="NAME", help="only these models; repeatable")
    new.add_argument("--expires", default="90d", metavar="TIME", help="30m, 12h, 7d … or never (default 90d)")
    new.add_argument("--per-minute", type=int, metavar="N", help="requests a minute")
    new.add_argument("--open-jobs", type=int, metavar="N", help="how many of its jobs may be open at once")
    _leaf(keys, "ls", "keys:ls", "all keys, without their secrets")
    revoke = _leaf(keys, "revoke", "keys:revoke", "refuse a key from now on")
    revoke.add_argument("key", help="its id or name")


def _run(nouns: Any) -> None:
    run = _leaf(nouns, "run", "jobs:run", "run a model on rows, texts or files, somewhere in the swarm")
    run.add_argument("model", nargs="?", help="NAME, NAME:VERSION or PUBLISHER/NAME:VERSION")
    words = (
        "what the model takes: a table (.csv .json .jsonl .parquet), pictures, sounds, files, a text, .npy; - is stdin"
    )
    run.add_argument("input", nargs="*", help=words)
    columns = run.add_mutually_exclusive_group()
    columns.add_argument("--columns", type=_comma_list, metavar="A,B", help="only these columns, in this order")
    columns.add_argument("--drop", type=_comma_list, metavar="A,B", help="all columns but these")
    run.add_argument("--row", type=int, action="append", metavar="N", help="only the Nth row (first: 1); repeatable")
    run.add_argument("--take", action="append", metavar="NAME=TENSOR[A:B]", help="fill model input NAME from a tensor")
    run.add_argument("--tier", help="how the answer is checked: signed (default) or quorum")
    run.add_argument("--n", type=int, help="with tier quorum: how many peers run it (default 3)")
    run.add_argument("--k", type=int, help="with tier quorum: how many must agree (default 2)")
    run.add_argument("--peer", help="run it there and nowhere else")
    run.add_argument(
        "--priority", choices=("low", "normal", "high"), help="before or after other work (default normal)"
    )
    _trust(run)
    run.add_argument("--receipt", type=Path, metavar="PATH", help="where the receipt goes (default: in the home)")
    run.add_argument("--timeout", type=float, metavar="SECONDS", help="give up after this long (default 120)")
    run.add_argument(
        "--batch", action="store_true", help="any number of rows or files, with progress; implied by --out"
    )
    run.add_argument("--out", type=Path, metavar="FILE", help="the batch's result: .jsonl, .csv or .npz")
    run.add_argument("--resume", type=Path, metavar="FILE", help="go on with the batch into this file")
    run.add_argument("--rows-per-job", type=int, metavar="N", help="how many items go into one job (default 256)")


def _job(nouns: Any) -> None:
    job = _noun(nouns, "job", "jobs of all three patterns (docs/job-files.md)")
    validate = _leaf(job, "validate", "jobs:validate", "a dry run: the plan, its cost and its risk")
    run = _leaf(job, "run", "jobs:run_file", "run a job file")
    for parser in (validate, run):
        parser.add_argument("file", type=Path, metavar="FILE", help="YAML or JSON")
        _trust(parser)
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
    verify.add_argument("file", type=Path, nargs="+", metavar="FILE", help="or a folder: all *.dimr in it")
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
