"""What a model's answers could be billed for: from records that everybody signed, and counted again."""

import json
from pathlib import Path
from typing import Any

import pytest
from scene import KEYS, PEERS, START_MS, TRUST, Scene, integers, step

from dimnode.audit.case import Case
from dimnode.audit.metering import metered
from dimnode.audit.redact import redact
from dimnode.audit.verifier import verify
from dimnode.cli.main import main
from dimnode.records.envelope import Record, seal
from dimnode.records.ids import blob_cid
from dimnode.records.items import item_tensors
from dimnode.records.kinds import OPEN_SWARM_ID, compose, open_record
from dimnode.records.receipt import parse_receipt
from dimnode.records.tensors import Tensor

BATCH = Tensor("x", "float32", (3, 2), bytes(24))
OTHER = Tensor("y", "float32", (7, 2), bytes(56))


def for_sale(unit: str, *pre: dict[str, Any]) -> Record:
    """A manifest with a price."""
    body: dict[str, Any] = {"name": "oracle", "version": "1", "profile": "unixfs-v1-2025", "format": "onnx"}
    body |= {"files": [["m.onnx", "model", blob_cid(b"m"), 1]], "inputs": [["x", "float32", [-1, 2]]]}
    body |= {"outputs": [["label", "int64", [-1]]], "labels": [], "licence": "", "origin": "trained"}
    body |= {"pre": list(pre)} if pre else {}
    body |= {"access": "pay-per-use", "price": {"unit": unit, "micro": 250_000, "currency": "EUR"}}
    common = {"net": OPEN_SWARM_ID, "by": PEERS["sam"], "at_ms": START_MS}
    return open_record(seal(KEYS["sam"], "manifest", compose("manifest", common, body, version=2)[1], 2))


def bought(
    unit: str = "row",
    *inputs: Tensor,
    op: str = "infer",
    output: Tensor | None = None,
    pre: tuple[dict[str, Any], ...] = (),
    take: str = "x",
    **more: Any,
) -> bytes:
    """A receipt of one answer of that model."""
    scene, model = Scene(), for_sale(unit, *pre)
    scene.records.append(model)
    given = scene.tensors(*(inputs or (BATCH,)))
    task = {"op": op, "model": model.id, **({"take": [["x", 0, take, -1, -1]]} if take else {})}
    scene.ask("chained", [task], [given], "first")
    lease = scene.lease(0, "alba", [given])
    result = scene.tensors(output or integers("label", 1, 0, 1))
    answer = scene.answer(lease, [result], model=model.id, **more)
    return scene.conclude([answer], [step(0, [answer], accepted=answer.id)], [result])


def meter(raw: bytes) -> list[tuple[str, str]]:
    report = verify(raw)
    return [(check.outcome, check.why) for check in report.checks if check.code == "R-METER"]


@pytest.mark.parametrize(
    ("unit", "inputs", "weight", "outcomes"),
    [
        ("answer", (BATCH,), {}, ["pass"]),
        ("answer", (BATCH,), {"weight": 3}, ["pass"]),
        ("row", (BATCH,), {"weight": 3}, ["pass"]),
        ("row", (BATCH,), {"weight": 4}, ["fail"]),
        ("row", (BATCH,), {"weight": 2}, ["fail"]),
        ("row", (BATCH,), {}, ["fail"]),
        ("row", (BATCH, OTHER), {"weight": 7}, ["fail"]),  # the model was not given these seven
    ],
)
def test_a_bill_is_for_the_rows_that_were_given(unit: str, inputs: Any, weight: Any, outcomes: list[str]) -> None:
    raw = bought(unit, *inputs, **weight)
    assert [outcome for outcome, _ in meter(raw)] == outcomes
    assert verify(raw).status == (1 if "fail" in outcomes else 0)


@pytest.mark.parametrize("kind", ["image", "text", "audio", "bytes"])
def test_one_file_is_one_row_however_many_bytes_it_has(kind: str) -> None:
    pre = ({"op": "input", "name": "x", "kind": kind},)
    one, two = (Tensor("x", "uint8", (9,), bytes(9)),), tuple(item_tensors("x", [b"one", b"two"]))
    for given, weight, outcome in ((one, 1, "pass"), (one, 9, "fail"), (two, 2, "pass"), (two, 6, "fail")):
        assert meter(bought("row", *given, pre=pre, weight=weight))[0][0] == outcome


@pytest.mark.parametrize(("take", "rows"), [("x", 3), ("y", 7), ("", 3)])
def test_rows_are_those_of_the_tensor_that_the_step_takes(take: str, rows: int) -> None:
    for weight in (3, 7):
        [(outcome, _)] = meter(bought("row", BATCH, OTHER, take=take, weight=weight))
        assert outcome == ("pass" if weight == rows else "fail")


def test_a_tensor_of_any_name_is_taken_where_it_is_the_only_one() -> None:
    assert meter(bought("row", OTHER, take="", weight=7)) == [("pass", "")]
    [(outcome, _)] = meter(bought("row", OTHER, Tensor("z", "float32", (7, 2), bytes(56)), take="", weight=7))
    assert outcome == "not-checked"  # no model ran on that, and nobody can say of what it bills


def test_rows_of_a_cabinet_are_those_that_the_site_itself_counts() -> None:
    for weight, outcome in ((5, "pass"), (6, "fail")):
        assert meter(bought("row", op="evaluate", output=integers("rows", 5), weight=weight))[0][0] == outcome


def test_without_inputs_a_bill_is_authentic_and_not_counted_again() -> None:
    [(outcome, why)] = meter(redact(bought("row", weight=3)))
    assert outcome == "not-checked" and "3 rows" in why
    assert meter(redact(bought("answer"))) == [("pass", "")]


def test_the_price_is_that_of_the_manifest_that_spec_and_lease_mean(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = bought("row", weight=3)
    case = Case(parse_receipt(raw), {}, TRUST)
    [entry] = metered(case)
    assert case.spec is not None and case.leases[0].payload["job"] == case.spec.id
    assert case.spec.payload["tasks"][0]["model"] == entry.manifest.id == for_sale("row").id
    assert (entry.units, entry.micro, entry.currency) == (3, 250_000, "EUR")
    path = tmp_path / "job.dimr"
    path.write_bytes(raw)
    assert main(["receipt", "show", str(path)]) == 0
    assert "metered: 3 rows of oracle, 0.25 EUR each: 0.75 EUR; no money moves" in capsys.readouterr().out
    assert main(["receipt", "show", str(path), "--json"]) == 0
    [row] = json.loads(capsys.readouterr().out)["metered"]
    assert (row["units"], row["unit"], row["micro"], row["total_micro"]) == (3, "row", 250_000, 750_000)
    assert main(["verify", str(path)]) == 0
    assert "R-METER" in capsys.readouterr().out


def test_a_model_without_a_price_is_not_billed() -> None:
    scene = Scene()
    model, given = scene.model("free"), scene.tensors(BATCH)
    scene.ask("chained", [{"op": "infer", "model": model.id, "take": [["x", 0, "x", -1, -1]]}], [given], "first")
    answer = scene.answer(scene.lease(0, "alba", [given]), [result := scene.tensors(BATCH)], model=model.id, weight=9)
    raw = scene.conclude([answer], [step(0, [answer], accepted=answer.id)], [result])
    assert verify(raw).status == 0 and not meter(raw)
