"""What is said of a job that nobody watched: its records in the words of live events."""

from pathlib import Path

from dimnode.cli.carrying import event_line
from dimnode.node.job_answers import event_of
from dimnode.records.ids import short
from dimnode.records.receipt import parse_receipt

GOLDEN = Path(__file__).resolve().parents[2] / "golden"


def test_after_a_restart_events_have_the_words_and_directions_that_live_ones_had():
    receipt = parse_receipt((GOLDEN / "plain.dimr").read_bytes())
    records = {record.kind: record for record in receipt.records.values()}
    executor = short(records["answer"].by)
    told = {kind: event_line(event_of(records[kind], short), {}).partition("  ")[2] for kind in records}
    assert told["spec"] == "submitted"
    assert told["lease"] == f"leased task 0 epoch 1 to {executor}"
    assert told["answer"] == f"answered task 0 epoch 1 by {executor}: ok"
    assert told["verdict"] == "ended: ok"
