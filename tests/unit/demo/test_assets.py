"""What ships with the demo is what its cards, its checksums and docs/demo-models.md say it is."""

import csv
import math
import tomllib
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dimnode.demo import assets_index, split, train
from dimnode.demo.assets_index import CLASSIFIER_NAMES, MODEL_NAMES, TRAINED_NAMES
from dimnode.node import model_card

pytest.importorskip("onnxruntime")

ONNX_TYPES = {"tensor(float)": "float32", "tensor(int64)": "int64"}
DOCUMENT = Path(__file__).parents[3] / "docs" / "demo-models.md"


@cache
def patients() -> tuple[split.Patient, ...]:
    return split.read_patients()


@cache
def measurements() -> Any:
    return np.array([patient.features for patient in patients()], dtype=np.float32)


def findings(rows: tuple[int, ...]) -> Any:
    return np.array([int(patients()[row].malignant) for row in rows])


def answers(name: str, rows: tuple[int, ...]) -> dict[str, Any]:
    card = assets_index.read_model_card(name)
    x = measurements()[:, [split.FEATURES.index(column) for column in card.columns]]
    return train.predict(card.path.read_bytes(), {"x": x[list(rows)]})


def referral(triage: list[float], diagnosis: list[float]) -> list[int]:
    pairs = {"triage": triage, "diagnosis": diagnosis}
    inputs = {
        step: np.stack([1 - np.float32(p), np.array(p, dtype=np.float32)], axis=1, dtype=np.float32)
        for step, p in pairs.items()
    }
    path = assets_index.read_model_card("referral").path
    return [int(priority) for priority in train.predict(path.read_bytes(), inputs)["priority"]]


@cache
def rules() -> tuple[assets_index.ReferralRule, ...]:
    return assets_index.read_referral_rules()


def priority_by_table(triage: float, diagnosis: float) -> int:
    rule = assets_index.rule_for(rules(), triage, diagnosis)
    return rule.priority if rule else assets_index.NO_RULE_APPLIES


# The patients and who holds them


def test_the_table_holds_569_patients_of_whom_212_are_malignant() -> None:
    assert [patient.row for patient in patients()] == list(range(569))
    assert sum(patient.malignant for patient in patients()) == 212
    assert all(len(patient.features) == 30 and all(map(math.isfinite, patient.features)) for patient in patients())


def test_the_first_patient_is_the_published_one() -> None:
    first = patients()[0]
    assert first.features[:3] == (17.99, 10.38, 122.8)
    assert first.features[split.FEATURES.index("worst_fractal_dimension")] == 0.1189
    assert first.malignant


@pytest.mark.slow
def test_the_table_agrees_with_scikit_learn_where_that_is_installed() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    published = datasets.load_breast_cancer()
    assert [patient.features for patient in patients()] == [tuple(row) for row in published.data.tolist()]
    assert [patient.malignant for patient in patients()] == [target == 0 for target in published.target]
    assert tuple(name.replace(" ", "_") for name in published.feature_names) == split.FEATURES


def test_the_hospitals_hold_disjoint_thirds_of_all_patients() -> None:
    assert [len(rows) for rows in split.HOSPITAL_ROWS] == [190, 190, 189]
    assert sorted(row for rows in split.HOSPITAL_ROWS for row in rows) == list(range(569))


def test_trained_and_unseen_patients_are_disjoint_and_marked_in_the_table() -> None:
    assert len(split.TRAINING_ROWS) == 200
    assert sorted(split.TRAINING_ROWS + split.UNSEEN_ROWS) == list(range(569))
    assert tuple(patient.row for patient in patients() if patient.seen_in_training) == split.TRAINING_ROWS


def test_the_vote_and_the_chain_use_unseen_patients_of_the_first_hospital() -> None:
    chosen = {*split.VOTE_ROWS, split.CHAIN_ROW}
    assert len(chosen) == 21
    assert chosen <= set(split.UNSEEN_ROWS) & set(split.HOSPITAL_ROWS[0])


def test_the_published_rules_choose_the_published_rows() -> None:
    assert split.choose_vote_rows(patients()) == split.VOTE_ROWS
    assert split.choose_chain_row(patients()) == split.CHAIN_ROW


@pytest.mark.parametrize("hospital", [0, 1, 2])
def test_a_hospitals_file_holds_its_rows_cell_for_cell(hospital: int, tmp_path: Path) -> None:
    path = tmp_path / "hospital.csv"
    assert split.write_hospital_csv(hospital, path) == len(split.HOSPITAL_ROWS[hospital])
    whole = assets_index.WDBC_CSV.read_text(encoding="ascii").splitlines()
    assert path.read_text(encoding="ascii").splitlines() == [
        whole[0],
        *(whole[row + 1] for row in split.HOSPITAL_ROWS[hospital]),
    ]


def test_a_table_with_other_columns_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="columns"):
        split.read_patients(tmp_path / "other.csv")


# The models and their cards


def test_every_shipped_file_is_the_one_in_the_checksums() -> None:
    listed = assets_index.read_checksums()
    for name, digest in listed.items():
        assert assets_index.sha256_of(assets_index.MODELS / name) == digest, name
    shipped = {path.name for path in assets_index.MODELS.iterdir()} - {assets_index.CHECKSUMS.name}
    assert shipped | {"../wdbc.csv", "../referral_rules.csv"} == set(listed)
    assert shipped == {f"{name}.{end}" for name in MODEL_NAMES for end in ("onnx", "toml")}


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_a_card_names_its_file_and_the_file_is_small(name: str) -> None:
    card = assets_index.read_model_card(name)
    assert (card.name, card.version, card.format, card.licence) == (name, "1.0.0", "onnx", "Apache-2.0")
    assert card.path.name == f"{name}.onnx"
    assert card.sha256 == assets_index.sha256_of(card.path)
    assert card.path.stat().st_size < 200_000
    assert card.origin == ("rule" if name == "referral" else "trained")


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_a_model_takes_and_gives_what_its_card_declares(name: str) -> None:
    import onnxruntime

    card = assets_index.read_model_card(name)
    session = onnxruntime.InferenceSession(card.path.read_bytes(), providers=["CPUExecutionProvider"])
    for declared, found in ((card.inputs, session.get_inputs()), (card.outputs, session.get_outputs())):
        assert [(f.name, f.dtype) for f in declared] == [(f.name, ONNX_TYPES[f.type]) for f in found]
        # A free number of rows is None or a symbol in the graph and -1 on the card.
        shapes = [tuple(size if isinstance(size, int) else -1 for size in f.shape) for f in found]
        assert [f.shape for f in declared] == shapes
    for rows in (1, 7):
        inputs = {f.name: np.full((rows, *f.shape[1:]), 0.5, dtype=f.dtype) for f in card.inputs}
        given = session.run([f.name for f in card.outputs], inputs)
        assert [(a.dtype.name, a.shape) for a in given] == [(f.dtype, (rows, *f.shape[1:])) for f in card.outputs]


@pytest.mark.parametrize("name", TRAINED_NAMES)
def test_a_cards_metrics_are_those_of_the_unseen_patients(name: str) -> None:
    labels, truth = answers(name, split.UNSEEN_ROWS)["label"], findings(split.UNSEEN_ROWS)
    metrics = assets_index.read_model_card(name).metrics
    assert metrics == train.count_metrics(labels, truth)
    sensitivity = sum((labels == 1) & (truth == 1)) / sum(truth == 1)
    assert metrics["sensitivity_permille"] == pytest.approx(1000 * sensitivity, abs=0.5)
    assert metrics["rows"] == 369


@pytest.mark.parametrize("name", TRAINED_NAMES)
def test_an_answer_does_not_depend_on_the_batch_it_came_in(name: str) -> None:
    together = answers(name, split.VOTE_ROWS)["label"]
    assert list(together) == [answers(name, (row,))["label"][0] for row in split.VOTE_ROWS]


@pytest.mark.parametrize("name", [*CLASSIFIER_NAMES, "diagnosis"])
def test_the_label_is_the_more_probable_one(name: str) -> None:
    given = answers(name, tuple(range(569)))
    assert np.allclose(given["probabilities"].sum(axis=1), 1, atol=1e-6)
    assert (given["label"] == given["probabilities"].argmax(axis=1)).all()


def test_triage_misses_at_most_one_in_a_hundred_of_its_training_patients() -> None:
    given, truth = answers("triage", split.TRAINING_ROWS), findings(split.TRAINING_ROWS)
    assert given["label"][truth == 1].mean() >= 0.99
    threshold = train.choose_threshold(given["probabilities"][:, 1], truth)
    assert f"threshold = {threshold}" in (assets_index.MODELS / "triage.toml").read_text(encoding="utf-8")
    assert (given["label"] == (given["probabilities"][:, 1] >= threshold)).all()


def test_the_vote_is_split_on_some_patients_but_not_on_many() -> None:
    votes = np.array([answers(name, split.VOTE_ROWS)["label"] for name in CLASSIFIER_NAMES])
    split_votes = [row + 1 for row, vote in zip(split.VOTE_ROWS, votes.T, strict=True) if len(set(vote)) > 1]
    assert split_votes == [40, 100]
    unanimous_and_wrong = (votes == 1 - findings(split.VOTE_ROWS)).all(axis=0)
    assert [row + 1 for row, wrong in zip(split.VOTE_ROWS, unanimous_and_wrong, strict=True) if wrong] == [136, 256]


def test_the_chains_patient_is_suspicious_then_malignant_then_urgent() -> None:
    triage, diagnosis = answers("triage", (split.CHAIN_ROW,)), answers("diagnosis", (split.CHAIN_ROW,))
    assert triage["label"][0] == diagnosis["label"][0] == 1
    assert patients()[split.CHAIN_ROW].malignant
    assert referral([triage["probabilities"][0, 1]], [diagnosis["probabilities"][0, 1]]) == [1]


# The referral rules


def test_the_referral_model_equals_the_rule_table_on_a_grid_and_at_its_borders() -> None:
    borders = [np.float32(eighth / 8) for eighth in range(9)]
    beside = [np.nextafter(b, np.float32(side)) for b in borders for side in (-1, 2)]
    points = sorted({float(p) for p in [*np.linspace(0, 1, 101, dtype=np.float32), *borders, *beside]})
    pairs = [(t, d) for t in points for d in points]
    given = referral([t for t, _ in pairs], [d for _, d in pairs])
    assert given == [priority_by_table(t, d) for t, d in pairs]
    assert set(given) == {1, 2, 3, 4}


def test_exactly_one_rule_applies_to_any_two_probabilities() -> None:
    points = [step / 32 for step in range(-1, 34)]
    assert {sum(rule.applies(t, d) for rule in rules()) for t in points for d in points} == {1}


def test_more_suspicion_never_makes_a_referral_less_urgent() -> None:
    points = [step / 32 for step in range(33)]
    for earlier, later in pairwise(points):
        for other in points:
            assert priority_by_table(later, other) <= priority_by_table(earlier, other)
            assert priority_by_table(other, later) <= priority_by_table(other, earlier)


def test_no_rule_applies_to_what_is_not_a_number() -> None:
    assert referral([math.nan, 0.5], [0.5, math.nan]) == [0, 0]
    assert priority_by_table(math.nan, 0.5) == priority_by_table(0.5, math.nan) == 0


def test_the_cards_labels_say_what_the_rules_say() -> None:
    labels = assets_index.read_model_card("referral").labels
    assert all(rule.text.startswith(f"{labels[rule.priority]}:") for rule in rules())
    assert len(labels) == 5


def test_a_border_that_float32_cannot_hold_is_refused(tmp_path: Path) -> None:
    with assets_index.RULES_CSV.open(newline="") as lines:
        rows = list(csv.reader(lines))
    rows[1][1] = "0.9"
    with (tmp_path / "rules.csv").open("w", newline="") as out:
        csv.writer(out).writerows(rows)
    with pytest.raises(ValueError, match="float32"):
        assets_index.read_referral_rules(tmp_path / "rules.csv")


# The document and the script


def test_the_document_gives_the_cards_numbers() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    for name in TRAINED_NAMES:
        m = assets_index.read_model_card(name).metrics
        counts = f"{m['true_positives']} | {m['false_negatives']} | {m['true_negatives']} | {m['false_positives']}"
        rates = f"{m['sensitivity_permille'] / 10:.1f} % | {m['specificity_permille'] / 10:.1f} %"
        assert f"| `{name}` | {counts} | {rates} |" in text


@pytest.mark.slow
def test_making_everything_anew_gives_the_shipped_bytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("skl2onnx")
    train.build(tmp_path)
    assert train.compare_with_shipped(tmp_path) == []
    assert train.main(["--check"]) == 0
    assert "every byte as shipped" in capsys.readouterr().out


@pytest.mark.slow
def test_the_check_names_a_file_that_came_out_otherwise(tmp_path: Path) -> None:
    pytest.importorskip("skl2onnx")
    train.build(tmp_path)
    other = (tmp_path / "models" / "classifier-mlp.onnx").read_bytes()
    (tmp_path / "models" / "classifier-logistic.onnx").write_bytes(other)
    sums = tmp_path / "models" / "SHA256SUMS"
    shipped = assets_index.read_model_card("classifier-logistic").sha256
    sums.write_text(sums.read_text().replace(shipped, "0" * 64))
    (line,) = train.compare_with_shipped(tmp_path)
    assert line.startswith("classifier-logistic.onnx: made anew it has other bytes; ")
    assert "of 569 answers differ" in line


@pytest.mark.parametrize("card", sorted(assets_index.MODELS.glob("*.toml")), ids=lambda card: card.stem)
def test_a_node_takes_each_card_as_it_ships(card: Path) -> None:
    said = tomllib.loads(card.read_text(encoding="utf-8"))
    del said["notes"]  # they stay with whoever adds the model
    assert model_card.card_of(said).name == card.stem
