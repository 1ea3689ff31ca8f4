"""A job under way: submit it, tell what happens, verify its receipt, show its answer.

Rule: before an answer is shown, its receipt is verified by this process and not by the node. Ctrl-C never ends a job.
"""

import argparse
import math
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dimnode.cli.fetch_news import FetchNews
from dimnode.cli.node import home_of, open_client
from dimnode.cli.output import clock, say_json, shown, talk
from dimnode.cli.results import (
    columns_of,
    fitting,
    forms,
    in_votes,
    labels_of,
    listed,
    named_labels,
    show_output,
    texts_of,
    weighs_votes,
)
from dimnode.client import Client, Ended, Pending, no_verdict
from dimnode.errors import ConfigError, DimError, Refused, RunFailed
from dimnode.records.ids import PEER_LETTERS_MIN, PeerId, RecordId, Ref, blob_cid, peer_letters, short
from dimnode.records.receipt import Receipt, parse_receipt
from dimnode.records.tensors import decode_tensors

GRACE_SECONDS = 5.0
_QUIET_SECONDS = 1.0
_POLL_SECONDS = 0.2
_INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be run, and how the answer is to be shown. `rows` are row numbers of the input file, `names` files."""

    job: Mapping[str, Any]
    blobs: Sequence[bytes]
    rows: Sequence[int] = ()
    wait_seconds: float | None = None
    receipt: Path | None = None
    names: Sequence[str] = ()


def plan_lines(plan: Mapping[str, Any], replicas: int = 1) -> list[str]:
    """Where it will run and why, what that costs, and what may still be wrong. Each step needs `replicas` peers."""
    lines = []
    for number, step in enumerate(plan["steps"], 1):
        what = f"{step['op']} {shown(step['model'])}" if step["model"] != "-" else step["op"]
        if step.get("publishers", 1) > 1:  # a name is anybody's: say whose model it became
            what += f" published by {shown(step['publisher'])} ({step['publishers']} peers publish this name)"
        at = f" on cabinet {shown(step['cabinet'])}" if step["cabinet"] else ""
        lines.append(f"step {number}  {what}{at}  {_where(step, replicas)}")
    cost = "the cost of one run" if plan["cost_factor"] == 1 else f"the cost of {plan['cost_factor']:g} runs"
    lines.append(f"tier    {plan['tier']}, {cost}; {plan['residual_risk']}")
    return lines


def _where(step: Mapping[str, Any], replicas: int) -> str:
    peers = [shown(peer) for peer in step["peers"]]
    if not peers:
        return "NOBODY offers it now" + ("" if step["cabinet"] else "; a peer that may fetch it is looked for")
    where = f"at {', '.join(peers[:5])}{' …' if len(peers) > 5 else ''}"
    if len(peers) < replicas:
        return f"{where} (TOO FEW: {replicas} are needed)"
    if step.get("pinned"):
        return f"{where} (named by the job)"
    return f"{where} ({'the only one that offers it' if len(peers) == 1 else 'chosen by standing, speed and load'})"


def replicas_of(job: Mapping[str, Any]) -> int:
    """How many peers run each step."""
    quorum = job.get("quorum")
    wanted = quorum.get("n") if isinstance(quorum, Mapping) else None
    return wanted if isinstance(wanted, int) else 1


def carry_out(client: Client, chosen: argparse.Namespace, order: Order) -> int:
    """Submit, wait, conclude; the exit code."""
    plan = client.validate(order.job, order.blobs)
    for line in plan_lines(plan, replicas_of(order.job)):
        talk(line)
    news = _News(client, plan)
    pending = client.submit(order.job, order.blobs, watch=news.hear)
    try:
        ended = _wait(pending, news, order.wait_seconds)
    except KeyboardInterrupt:
        named = f"job …{short(pending.job)}" if pending.job else "the job"
        hint = f"dim job show {short(pending.job)}" if pending.job else "dim job ls"
        talk(f"\n{named} goes on without you; hint: {hint}")
        return _INTERRUPTED
    return conclude(chosen, ended, order, plan)


def _wait(pending: Pending, news: "_News", wait_seconds: float | None) -> Ended:
    """Quiet for a second, then with live events. Raises `RunFailed` E-cli-03 after `wait_seconds`."""
    began = time.monotonic()
    while True:
        passed = time.monotonic() - began
        left = math.inf if wait_seconds is None else max(0.0, wait_seconds - passed)
        ended = pending.poll(min(left, _QUIET_SECONDS if passed < _QUIET_SECONDS else _POLL_SECONDS))
        if ended is not None:
            return ended
        if wait_seconds is not None and not left:
            raise no_verdict(wait_seconds)
        news.tell()


class _News:
    """Live events, kept until somebody has waited long enough to want them."""

    def __init__(self, client: Client, plan: Mapping[str, Any]) -> None:
        self._client = client
        self._names: dict[str, str] | None = None
        self._untold: list[dict[str, Any]] = []
        self._fetches = FetchNews(client, {step["model"] for step in plan["steps"] if not step["peers"]})

    def hear(self, event: dict[str, Any]) -> None:
        """A live event."""
        self._untold.append(event)

    def tell(self) -> None:
        """Print what was not told yet."""
        if self._untold and self._names is None:
            self._names = names_of_peers(self._client)
        for event in self._untold:
            talk(event_line(event, self._names or {}))
        self._untold.clear()
        self._fetches.tell(time.monotonic())


def names_of_peers(client: Client) -> dict[str, str]:
    """What peers call themselves, by the last letters of their ids; this node is `self`, and nobody else is."""
    rows = [row for row in client.peers() if row["name"]]
    often = Counter(["self", *(row["name"] for row in rows)])
    tails = {row["peer"][-PEER_LETTERS_MIN:]: row["name"] for row in rows}
    names = {tail: name if often[name] == 1 else f"{name} …{tail}" for tail, name in tails.items()}
    return names | {client.status()["peer"][-PEER_LETTERS_MIN:]: "self"}


def event_line(event: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """One event in one line."""
    peer = event["peer"]
    tail = peer_letters(PeerId(peer)) if isinstance(peer, bytes) else peer or ""
    where = f" by {shown(names.get(tail, tail))}" if tail and event["what"] == "answered" else ""
    where = where or (f" to {shown(names.get(tail, tail))}" if tail else "")
    task = f" task {event['task']} epoch {event['epoch']}" if event["epoch"] else ""
    text = f": {shown(event['text'])}" if event["text"] else ""
    return f"{clock(event['at_ms'])}  {event['what']}{task}{where}{text}"


def conclude(chosen: argparse.Namespace, ended: Ended, order: Order, plan: Mapping[str, Any] | None) -> int:
    """Verify, keep the receipt, then show the answer; the exit code of the job."""
    from dimnode.audit.report import report_lines
    from dimnode.audit.verifier import verify

    raw = ended.receipt or b""
    report = verify(raw)
    path = order.receipt or home_of(chosen) / "receipts" / f"{short(ended.job)}.dimr"
    kept = _keep(raw, path, ended.job)
    if report.status == 1:
        for line in report_lines(report):
            talk(line)
        raise RunFailed("E-cli-50", "the receipt does not verify, so the answer is not shown", "", f"dim verify {path}")
    receipt = parse_receipt(raw)
    if not is_about(receipt, ended, order.blobs):
        what = "the receipt is about another job or another answer, so the answer is not shown"
        raise RunFailed("E-cli-50", what, "", f"dim receipt show {path}")
    labels, texts, columns = labels_of(receipt), texts_of(receipt), _columns_heard(chosen, receipt, ended.outputs)
    if chosen.json:
        answer = listed(ended.outputs[0], texts) if ended.outputs else None
        if answer is not None and weighs_votes(receipt):
            answer = in_votes(answer)
        _say_document(ended, plan, path if kept else None, report.status, labels, answer, columns)
    elif ended.outputs:
        for blob in ended.outputs:
            show_output(blob, labels, order.rows, texts, order.names, columns=columns, weighted=weighs_votes(receipt))
    outcome = "verified" if report.status == 0 else "authentic but incomplete"
    talk(f"receipt {path}  {outcome}" if kept else f"receipt {outcome}, not written")
    return tell_status(ended) or (0 if kept else 1)


def _columns_heard(chosen: argparse.Namespace, receipt: Receipt, outputs: Sequence[bytes]) -> list[str]:
    """By what this node heard of the sites; nothing is asked for other jobs."""
    if not outputs or not any(tensor.name == "mean" for tensor in decode_tensors(outputs[0])):
        return []
    with open_client(chosen) as client:
        heard = {row["peer"]: row["cabinets"] for row in client.peers()}
        heard[client.status()["peer"]] = {row["name"]: row["columns"] for row in client.cabinets()}
    return fitting(outputs[0], columns_of(receipt, heard))


def conclude_without_answer(chosen: argparse.Namespace, no: Refused, raw: bytes) -> int:
    """The node let go of the answer's bytes and kept the records: the receipt is written, the answer is not shown.

    Exit code 3, or 1 when the receipt could not be written either.
    """
    from dimnode.audit.verifier import verify

    report, receipt = verify(raw), parse_receipt(raw)
    if report.status == 1:
        raise RunFailed("E-cli-50", "the receipt does not verify", "", "dim job show JOB")
    job = bytes(receipt.records[receipt.root].payload["job"])
    path = chosen.receipt or home_of(chosen) / "receipts" / f"{short(job)}.dimr"
    there = path.exists()  # one that was written in time may still hold the answer
    kept = there or _keep(raw, path, job)
    if chosen.json:
        said = str(path) if kept else None
        say_json({"job": job, "answer": None, "receipt": said, "verified": report.status == 0})
    for line in no.complaint.lines():
        talk(line)
    outcome = "was there already" if there else "authentic, without inputs and answer"
    talk(f"receipt {path}  {outcome}" if kept else f"receipt {outcome}, not written")
    return 3 if kept else 1


def is_about(receipt: Receipt, ended: Ended, blobs: Sequence[bytes]) -> bool:
    """True when it is the receipt of this answer and, as far as they are known, of these inputs."""
    verdict = receipt.records[receipt.root]
    spec = receipt.records.get(RecordId(ended.job))
    if receipt.root != ended.verdict or spec is None or verdict.payload.get("job") != ended.job:
        return False

    def opened(refs: Sequence[bytes]) -> list[bytes | None]:
        found = [receipt.openings.get(Ref(ref)) for ref in refs]
        return [None if opening is None else opening.cid for opening in found]

    outputs = [blob_cid(blob) for blob in ended.outputs]
    inputs = [blob_cid(blob) for blob in blobs]
    return opened(verdict.payload["outputs"]) == outputs and (not inputs or opened(spec.payload["inputs"]) == inputs)


def tell_status(ended: Ended) -> int:
    """Exit code of an ended job; anything but ok is explained on stderr."""
    if ended.status == "ok":
        return 0
    what = {"expired": "the job's time ran out", "split": "the executors did not agree"}.get(ended.status)
    reason = f": {shown(ended.reason)}" if ended.reason else ""
    error = DimError(ended.code or "E-jobs-07", (what or f"the job {_was(ended.status)}") + reason, "", _show(ended))
    for line in error.complaint.lines():
        talk(line)
    return 4 if ended.status == "refused" else 1


def _was(status: str) -> str:
    return {"failed": "failed", "refused": "was refused", "cancelled": "was cancelled"}.get(status, status)


def _show(ended: Ended) -> str:
    return f"dim job show {short(ended.job)}"


def _say_document(
    ended: Ended,
    plan: Mapping[str, Any] | None,
    path: Path | None,
    status: int,
    labels: Sequence[str],
    answer: Mapping[str, Any] | None,
    columns: Sequence[str],
) -> None:
    document: dict[str, Any] = {"job": ended.job, "status": ended.status, "verdict": ended.verdict}
    if ended.code:
        document |= {"code": ended.code, "reason": ended.reason}
    document |= {"answer": answer, "labels": list(labels)}
    if ended.outputs and (named := named_labels(ended.outputs[0], labels)) is not None:
        document["predicted"] = named
    if columns:
        document["columns"] = list(columns)
    if ended.outputs and answer is None:
        document["answer_forms"] = forms(ended.outputs[0])
    document |= {"receipt": None if path is None else str(path), "verified": status == 0}
    if plan is not None:
        document |= {key: plan[key] for key in ("tier", "cost_factor", "residual_risk")}
    say_json(document)


def _keep(raw: bytes, path: Path, job: bytes) -> bool:
    """Write the receipt; a job that ran is not lost because a path was wrong. False when that failed."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)  # not readable for a moment either
        with os.fdopen(descriptor, "wb") as file:
            file.write(raw)
        path.chmod(0o600)
    except OSError as error:
        hint = f"dim job result {short(job)} --receipt PATH"
        lost = ConfigError("E-cli-45", f"cannot write the receipt {path}", error.strerror or "", hint)
        for line in lost.complaint.lines():
            talk(line)
        return False
    return True
