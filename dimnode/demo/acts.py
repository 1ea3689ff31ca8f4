"""The five acts of the demo, in the order in which a sceptic asks.

Rule: an act asks the swarm, says what came back, and keeps the receipt; it decides nothing.
"""

import threading
from collections import Counter
from pathlib import Path
from typing import Any, Final

from dimnode.audit.verifier import verify
from dimnode.client import read_output
from dimnode.demo.setting import CABINET, FEW, HOSPITALS, UNSEEN, Setting, bytes_out
from dimnode.demo.split import CHAIN_ROW, TRIAGE_FEATURES, VOTE_ROWS
from dimnode.posix.processes import GO_ON, HOLD
from dimnode.records.ids import peer_bytes
from dimnode.records.receipt import parse_receipt

MODEL: Final = "classifier-logistic"
SAMPLE_ROW: Final = VOTE_ROWS[1]  # patient 40, on whom the boosting model errs alone
JOBS_AFTER: Final = 20


def collaborative(setting: Setting) -> None:
    """One model, three hospitals, no patient leaves home."""
    narrator, swarm = setting.narrator, setting.swarm
    facts = narrator.act(1, "collaborative", "one model, three hospitals, no patient leaves home; dano, a lab, asks")
    lab = swarm["dano"]
    before = {name: bytes_out(swarm[name].client, lab.peer) for name in HOSPITALS}
    tasks = [{"op": "evaluate", "model": MODEL, "cabinet": CABINET, "peer": n, "where": [UNSEEN]} for n in HOSPITALS]
    ended = lab.client.run({"pattern": "collaborative", "label": "evaluate", "tasks": tasks})
    receipt = parse_receipt(ended.receipt or b"")
    facts["sites"] = {}
    for name in HOSPITALS:
        answer = next(
            record
            for record in receipt.records.values()
            if record.kind == "answer" and setting.trust()[record.by] == name
        )
        output = read_output(receipt.blob_of(answer.payload["outputs"][0]) or b"")
        sent = bytes_out(swarm[name].client, lab.peer) - before[name]
        leaked = setting.rows_found_in(name, ended.receipt or b"")
        counts = sum(len(row) for row in output["counts"])
        facts["sites"][name] = {
            "patients": output["rows"][0],
            "bytes_sent": sent,
            "counts": counts,
            "rows_in_receipt": leaked,
        }
        what = f"ran the classifier on {output['rows'][0]} patients it was not trained on"
        tick = narrator.check(leaked == 0)
        sent_text = f"sent {sent:,} bytes: {counts} counts"
        narrator.say(name, f"{what}   {sent_text}   rows found in the receipt: {leaked} {tick}")
    total = read_output(ended.outputs[0])["counts"]
    (tn, fp), (fn, tp) = total
    central = setting.central_counts(MODEL)
    facts |= {"total": total, "central": central, "equal": total == central}
    rates = f"sensitivity {100 * tp / (tp + fn):.1f} %   specificity {100 * tn / (tn + fp):.1f} %"
    narrator.say("total", f"{rates}   equal to the central computation {narrator.check(total == central)}")
    setting.keep(1, "collaborative", ended)
    _means(setting, facts)
    _refusal(setting, facts)


def _means(setting: Setting, facts: dict[str, Any]) -> None:
    """Federated averaging of the sites' feature means, weighted by their rows."""
    tasks = [{"op": "statistics", "cabinet": CABINET, "peer": name} for name in HOSPITALS]
    job = {"pattern": "collaborative", "tasks": tasks, "rule": {"method": "federated_average"}}
    ended = setting.swarm["dano"].client.run(job)
    means = read_output(ended.outputs[0])["mean"]
    gap = max(abs(a - b) / abs(b) for a, b in zip(means, setting.central_means(), strict=True))
    facts["means"] = {"mean_radius": means[0], "largest_relative_gap": gap}
    text = f"mean radius {means[0]:.3f} over all sites, averaged from three means"
    setting.narrator.say("average", f"{text}; central value within {gap:.0e} {setting.narrator.check(gap < 1e-12)}")
    setting.keep(1, "average", ended)


def _refusal(setting: Setting, facts: dict[str, Any]) -> None:
    """A question about three patients, which the hospital refuses with a signed ruling."""
    few = [setting.largest("brio")]
    task = {"op": "evaluate", "model": MODEL, "cabinet": CABINET, "peer": "brio", "where": few}
    ended = setting.swarm["dano"].client.run({"pattern": "collaborative", "label": "three patients", "tasks": [task]})
    receipt = parse_receipt(ended.receipt or b"")
    rulings = [r for r in receipt.records.values() if r.kind == "ruling" and not r.payload["allowed"]]
    asked = FEW
    held = ended.status == "refused" and len(rulings) == 1
    reason = rulings[0].payload["reason"] if rulings else ended.status
    facts["refusal"] = {"patients_asked": asked, "code": ended.code, "reason": reason, "signed": held}
    signed = f"signed by {setting.trust().get(rulings[0].by, '?')}" if rulings else "not signed"
    text = f"asked about the {asked} patients with the largest tumours → brio refused: {reason}"
    setting.narrator.say("", f"{text}   ({signed}) {setting.narrator.check(held)}")
    setting.keep(1, "refusal", ended)


def comparative(setting: Setting) -> None:
    """Three models vote on patients that none of them has seen."""
    narrator = setting.narrator
    facts = narrator.act(2, "comparative", f"three models vote on {len(VOTE_ROWS)} patients they have never seen")
    tasks = [
        {"model": MODEL, "peer": "alba"},
        {"model": "classifier-boosting", "peer": "dano"},
        {"model": "classifier-mlp", "peer": "cara"},
    ]
    job = {"pattern": "comparative", "label": "vote", "tasks": tasks, "rule": {"method": "majority_vote"}}
    ended = setting.swarm["alba"].client.run(job, [setting.rows_blob(VOTE_ROWS)])
    tally = read_output(ended.outputs[0])
    truth = [int(setting.patients[row].malignant) for row in VOTE_ROWS]
    split = [index for index, votes in enumerate(tally["votes"]) if max(votes) < len(tasks)]
    narrator.say("tally", f"{len(VOTE_ROWS) - len(split)} of {len(VOTE_ROWS)} unanimous")
    facts |= {"votes": tally["votes"], "margin": tally["margin"], "split": {}}
    for index in split:
        benign, malignant = (*tally["votes"][index], 0)[:2]
        patient = setting.patients[VOTE_ROWS[index]].row + 1
        facts["split"][str(patient)] = tally["votes"][index]
        margin = tally["margin"][index]
        text = f"benign {benign}, malignant {malignant}, margin {margin}   (dissent is kept in the receipt)"
        narrator.say(f"patient {patient}", text)
    right = sum(1 for label, real in zip(tally["label"], truth, strict=True) if label == real)
    wrong = [
        VOTE_ROWS[i] + 1 for i, (label, real) in enumerate(zip(tally["label"], truth, strict=True)) if label != real
    ]
    facts |= {"right": right, "wrong_patients": wrong}
    text = f"the majority is right on {right} of {len(truth)}"
    if wrong:
        text += f", wrong on patients {', '.join(map(str, wrong))}: agreement is not correctness"
    narrator.say("biopsy", text)
    setting.keep(2, "comparative", ended)


def chained(setting: Setting) -> None:
    """Triage, diagnosis, referral: each on another node, one of which dies in the middle."""
    narrator, swarm = setting.narrator, setting.swarm
    facts = narrator.act(3, "chained", "triage → diagnosis → referral priority, each on another node; one dies")
    width = len(TRIAGE_FEATURES)
    job = {
        "pattern": "chained",
        "label": f"patient {CHAIN_ROW + 1}",
        "tasks": [
            {"model": "triage", "peer": "cara", "take": [{"name": "x", "from": "input", "columns": [0, width]}]},
            {"model": "diagnosis", "take": [{"name": "x", "from": "input"}]},
            {
                "model": "referral",
                "peer": "alba",
                "take": [
                    {"name": "triage", "from": "step.0", "tensor": "probabilities"},
                    {"name": "diagnosis", "from": "step.1", "tensor": "probabilities"},
                ],
            },
        ],
    }
    killer = _Killer(setting)
    candidates = ("dano", "brio")
    for name in candidates:  # hold both who could diagnose, so that the one chosen is surely in the middle
        swarm[name].send_signal(HOLD)
    ended = swarm["alba"].client.run(job, [setting.rows_blob([CHAIN_ROW])], watch=killer.watch)
    killer.join()
    _tell_chain(setting, facts, killer, ended)
    setting.keep(3, "chained", ended)


class _Killer:
    """Kills the node that holds the diagnosis, and lets the others go on."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._thread: threading.Thread | None = None
        self.victim = ""
        self.killed_at_ms = 0
        self.events: list[dict[str, Any]] = []

    def watch(self, event: dict[str, Any]) -> None:
        """An event of the job, on the client's thread."""
        self.events.append(event)
        if event["what"] == "leased" and event["task"] == 1 and not self.victim:
            trust = self._setting.trust()
            self.victim = trust[event["peer"]]
            self.killed_at_ms = event["at_ms"]
            self._thread = threading.Thread(target=self._strike)
            self._thread.start()

    def _strike(self) -> None:
        swarm = self._setting.swarm
        swarm[self.victim].kill()
        for name in ("dano", "brio"):
            if name != self.victim:
                swarm[name].send_signal(GO_ON)

    def join(self) -> None:
        """Wait until the deed is done."""
        if self._thread is not None:
            self._thread.join()


def _tell_chain(setting: Setting, facts: dict[str, Any], killer: _Killer, ended: Any) -> None:
    narrator, trust = setting.narrator, setting.trust()
    receipt = parse_receipt(ended.receipt or b"")
    answers = {r.payload["task"]: r for r in receipt.records.values() if r.kind == "answer"}
    outputs = {task: read_output(receipt.blob_of(r.payload["outputs"][0]) or b"") for task, r in answers.items()}
    who = {task: trust[record.by] for task, record in answers.items()}
    resumed = next(e["at_ms"] for e in killer.events if e["what"] == "answered" and e["task"] == 1)
    triage = outputs[0]["probabilities"][0][1]
    diagnosis = outputs[1]["probabilities"][0][1]
    word = ("clear", "suspicious")[outputs[0]["label"][0]]
    finding = ("benign", "malignant")[outputs[1]["label"][0]]
    wait = (resumed - killer.killed_at_ms) / 1000
    epoch = answers[1].payload["epoch"]
    held = ended.status == "ok" and who[1] != killer.victim and epoch > 1
    narrator.say(who[0], f"triage      {word} ({triage:.2f})")
    narrator.say(killer.victim, "diagnosis   killed in the middle (kill -9)")
    resumption = f"resumed from {who[0]}'s signed step after {wait:.1f} s {narrator.check(held)}"
    narrator.say(who[1], f"diagnosis   {resumption}   {finding} ({diagnosis:.2f})")
    narrator.say(who[2], f"referral    priority {outputs[2]['priority'][0]} (rule table R-1, a rule and not a model)")
    facts |= {
        "triage": {"by": who[0], "label": word, "probability": triage},
        "killed": killer.victim,
        "diagnosis": {"by": who[1], "label": finding, "probability": diagnosis, "epoch": epoch, "after_seconds": wait},
        "referral": {"by": who[2], "priority": outputs[2]["priority"][0]},
        "resumed": held,
    }


def liar(setting: Setting) -> None:
    """One question, three executors, two must agree; one of them runs another model under the name."""
    narrator, swarm = setting.narrator, setting.swarm
    facts = narrator.act(4, "the liar", "one question, three executors, two must agree")
    setting.make_liar("ezra", "classifier-mlp", "classifier-boosting")
    swarm.wait_offered("alba", {"classifier-mlp": 3})
    job = {
        "tasks": [{"model": "classifier-mlp"}],
        "tier": "quorum",
        "quorum": {"n": 3, "k": 2},
        "label": f"patient {SAMPLE_ROW + 1}, quorum",
    }
    alba = swarm["alba"].client
    ended = alba.run(job, [setting.rows_blob([SAMPLE_ROW])])
    receipt, trust = parse_receipt(ended.receipt or b""), setting.trust()
    step = receipt.records[receipt.root].payload["steps"][0]
    said = {}
    for record in receipt.records.values():
        if record.kind == "answer":
            output = read_output(receipt.blob_of(record.payload["outputs"][0]) or b"")
            said[trust[record.by]] = ("benign", "malignant")[output["label"][0]]
    dissent = [trust[receipt.records[answer].by] for answer in step["dissent"]]
    agreed = [trust[receipt.records[answer].by] for answer in step["supporters"]]
    for name in (*dissent, *agreed):
        narrator.say(name, f"answered {said[name]!r}")
    barred = {trust.get(peer_bytes(row["peer"]), ""): row for row in alba.standing() if row["barred_until_ms"]}
    caught = dissent == ["ezra"] and "ezra" in barred
    verdict = said[agreed[0]] if agreed else "none"
    text = f"{verdict}, {len(agreed)} of {len(said)} agree · ezra is barred for 7 days on alba's books"
    narrator.say("verdict", f"{text}: `dim rep explain ezra` {narrator.check(caught)}")
    work = Counter[str]()
    for index in range(JOBS_AFTER):
        after = alba.run({"tasks": [{"model": "classifier-mlp"}]}, [setting.rows_blob([VOTE_ROWS[index]])])
        answer = next(r for r in parse_receipt(after.receipt or b"").records.values() if r.kind == "answer")
        work[trust[answer.by]] += 1
    shares = ", ".join(f"{name} {work[name]}" for name in ("brio", "cara", "ezra"))
    narrator.say("", f"the next {JOBS_AFTER} jobs: {shares} {narrator.check(work['ezra'] == 0)}")
    facts |= {
        "answers": said,
        "dissent": dissent,
        "verdict": verdict,
        "barred": sorted(barred),
        "work_after": dict(work),
    }
    setting.keep(4, "quorum", ended)


def auditor(setting: Setting) -> None:
    """Somebody who knows nothing but the files."""
    narrator = setting.narrator
    facts = narrator.act(5, "the auditor", "knows nothing but the files")
    rows = narrator.facts["receipts"]
    reports = [verify(Path(row["path"]).read_bytes()) for row in rows]
    passed = sum(1 for report in reports if report.status == 0)
    narrator.say("", f"{passed} of {len(rows)} receipts verified {narrator.check(passed == len(rows))}")
    chain = next(row["path"] for row in rows if row["job"] == "chained")
    original = Path(chain).read_bytes()
    place = len(original) // 2
    flipped = original[:place] + bytes([original[place] ^ 1]) + original[place + 1 :]
    bad = verify(flipped)
    failures = [f"{check.code} {check.subject}" for check in bad.checks if check.outcome == "fail"]
    narrator.say(
        "",
        f"one bit flipped in a copy of {chain} → refused: {', '.join(failures)} {narrator.check(bad.status == 1)}",
    )
    narrator.say("shown", "who signed what; sums, votes and agreement recomputed")
    for index, line in enumerate(reports[0].not_shown):
        narrator.say("" if index else "not shown", line)
    facts |= {"verified": passed, "of": len(rows), "flipped_byte": failures, "not_shown": list(reports[0].not_shown)}
