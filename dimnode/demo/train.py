"""Make the demo's six ONNX models, their cards and checksums: `python -m dimnode.demo.train [--out DIR] [--check]`.

Rule: the same versions give the same bytes, and every number in a card is computed here from the exported file
itself, on patients it was not trained on. One thread, fixed seeds, no time stamps; float64 and optimisers that do not
amplify the last bit, so that another CPU's linear algebra ends at the same float32 numbers (docs/demo-models.md).
Needs the extras `models` and `onnx`; they are imported inside the functions, so the demo runs without scikit-learn.
"""

import argparse
import csv
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dimnode.demo import assets_index, split
from dimnode.errors import ConfigError, DimError

OPSET, ML_OPSET, IR_VERSION = 17, 1, 8
SEED = 0
PARITY_MAX = 1e-5
TRIAGE_SENSITIVITY_MIN = 0.99
THRESHOLD_STEPS = 64
TRAINED_ON = (
    "200 of the 569 patients of Breast Cancer Wisconsin (Diagnostic), CC BY 4.0: seen_in_training = 1 in wdbc.csv"
)


@dataclass(frozen=True, slots=True)
class Recipe:
    """One trained model: what it is for, which columns it reads, what its two labels mean, how to make it untrained.

    `threshold` from training: label 1 from that probability on, instead of the more probable label.
    """

    name: str
    summary: str
    columns: tuple[str, ...]
    labels: tuple[str, str]
    untrained: Callable[[], Any]
    chooses_threshold: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """wdbc.csv as arrays: x float32 [569, 30], y int64 [569] with 1 = malignant."""

    x: Any
    y: Any

    def inputs(self, columns: Sequence[str]) -> Any:
        """The float32 matrix [569, len(columns)] that a model with these columns reads."""
        return self.x[:, [split.FEATURES.index(column) for column in columns]]


def build(out: Path) -> None:
    """Write wdbc.csv, referral_rules.csv and models/ below `out`. Raises `ConfigError` where an extra is missing."""
    _require_extras()
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    models = out / "models"
    models.mkdir(parents=True, exist_ok=True)
    write_patients(out / "wdbc.csv")
    if out.resolve() != assets_index.ASSETS.resolve():
        shutil.copyfile(assets_index.RULES_CSV, out / "referral_rules.csv")
    table = _read_table(out / "wdbc.csv")
    with threadpool_limits(1):
        for recipe in recipes():
            _make_trained(recipe, table, models)
    _make_referral(models)
    _write_checksums(models)


def recipes() -> tuple[Recipe, ...]:
    """The five trained models. Hyperparameters are plain round numbers, none chosen by its score on unseen patients."""
    whole, benign_or_malignant = split.FEATURES, ("benign", "malignant")
    return (
        Recipe("classifier-logistic", "logistic regression on 30 measures", whole, benign_or_malignant, _logistic),
        Recipe("classifier-boosting", "60 small boosted trees on 30 measures", whole, benign_or_malignant, _boosting),
        Recipe("classifier-mlp", "small neural net (16 hidden units) on 30 measures", whole, benign_or_malignant, _mlp),
        Recipe(
            "triage",
            "sensitive first look at the 10 mean measures: rather one too many than one missed",
            split.TRIAGE_FEATURES,
            ("clear", "suspicious"),
            _logistic,
            chooses_threshold=True,
        ),
        Recipe("diagnosis", "calibrated logistic regression on 30 measures", whole, benign_or_malignant, _calibrated),
    )


def _logistic() -> Any:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), _regression())


def _regression() -> Any:
    from sklearn.linear_model import LogisticRegression

    # Newton's steps end at the optimum to the last bits; the default solver stops somewhere near it.
    return LogisticRegression(C=1.0, solver="newton-cholesky", tol=1e-10)


def _boosting() -> Any:
    from sklearn.ensemble import GradientBoostingClassifier

    return GradientBoostingClassifier(n_estimators=60, max_depth=2, learning_rate=0.2, random_state=SEED)


def _mlp() -> Any:
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    # 200 whole-batch steps and a stop: L-BFGS run to its end, in float32, made other nets of it on other CPUs.
    steps = {"solver": "adam", "batch_size": split.TRAINING_PATIENTS, "max_iter": 200, "n_iter_no_change": 1000}
    net = MLPClassifier((16,), alpha=1.0, learning_rate_init=0.01, random_state=SEED, **steps)
    return make_pipeline(StandardScaler(), net)


def _calibrated() -> Any:
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.model_selection import StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    # The scaler stands outside: skl2onnx 1.20.0 exports a calibrated *pipeline* wrongly (off by up to 0.5), because
    # it calibrates the pipeline's probabilities where scikit-learn calibrates its decision function.
    calibrated = CalibratedClassifierCV(_regression(), method="sigmoid", cv=StratifiedKFold(5), ensemble=False)
    return make_pipeline(StandardScaler(), calibrated)


def write_patients(path: Path) -> None:
    """Write wdbc.csv from scikit-learn's copy: its numbers as they are spelled there, our column names, 1 = malignant.

    scikit-learn codes malignant as 0 and benign as 1; here it is the other way round, so that 1 is the finding.
    """
    from sklearn.datasets import load_breast_cancer

    published = tuple(str(name).replace(" ", "_") for name in load_breast_cancer().feature_names)
    if published != split.FEATURES:
        raise ConfigError("E-demo-02", "scikit-learn's table has other columns than the demo expects")
    text = resources.files("sklearn.datasets.data").joinpath("breast_cancer.csv").read_text(encoding="ascii")
    _, *rows = csv.reader(text.splitlines())
    seen = set(split.TRAINING_ROWS)
    with path.open("w", newline="", encoding="ascii") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(split.COLUMNS)
        for row, (*features, target) in enumerate(rows):
            writer.writerow([row + 1, *features, 1 - int(target), int(row in seen)])


def _read_table(path: Path) -> Table:
    import numpy as np

    patients = split.read_patients(path)
    x = np.array([patient.features for patient in patients], dtype=np.float32)
    return Table(x, np.array([int(patient.malignant) for patient in patients], dtype=np.int64))


def _make_trained(recipe: Recipe, table: Table, models: Path) -> None:
    x, training = table.inputs(recipe.columns), list(split.TRAINING_ROWS)
    fitted = _fit(recipe.untrained(), x[training], table.y[training])
    graph = _export(fitted, recipe)
    _check_parity(graph, fitted, x, recipe.name)
    extra: dict[str, Any] = {}
    if recipe.chooses_threshold:
        probabilities = predict(graph.SerializeToString(), {"x": x[training]})["probabilities"][:, 1]
        extra["threshold"] = choose_threshold(probabilities, table.y[training])
        _label_from_threshold(graph, extra["threshold"])
    raw = _canonical(graph)
    unseen = list(split.UNSEEN_ROWS)
    labels = predict(raw, {"x": x[unseen]})["label"]
    card = {
        "summary": recipe.summary,
        "origin": "trained",
        "inputs": [["x", "float32", [-1, len(recipe.columns)]]],
        "outputs": [["label", "int64", [-1]], ["probabilities", "float32", [-1, 2]]],
        "labels": list(recipe.labels),
        "columns": list(recipe.columns),
    }
    notes = {"data_licence": "CC-BY-4.0", "trained_on": TRAINED_ON, **extra}
    _write_model(models, recipe.name, raw, card, notes, count_metrics(labels, table.y[unseen]))


def _fit(untrained: Any, x: Any, y: Any) -> Any:
    import warnings

    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        # The net is stopped after a fixed number of steps on purpose.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return untrained.fit(x.astype("float64"), y)


def choose_threshold(probabilities: Any, malignant: Any) -> float:
    """The largest multiple of 1/64 at which at least 99 % of the malignant training patients are called suspicious.

    Multiples of 1/64 because float32 holds them exactly: the card and the model mean the same number.
    """
    found = probabilities[malignant == 1]
    candidates = [step / THRESHOLD_STEPS for step in range(THRESHOLD_STEPS + 1)]
    return max(c for c in candidates if float((found >= c).mean()) >= TRIAGE_SENSITIVITY_MIN)


def count_metrics(labels: Any, malignant: Any) -> dict[str, int]:
    """Counts and permille (rounded half up) of label 1 as the finding, against the biopsy."""
    positives, negatives = int((malignant == 1).sum()), int((malignant == 0).sum())
    found, cleared = int(((labels == 1) & (malignant == 1)).sum()), int(((labels == 0) & (malignant == 0)).sum())
    return {
        "rows": positives + negatives,
        "true_positives": found,
        "false_negatives": positives - found,
        "true_negatives": cleared,
        "false_positives": negatives - cleared,
        "sensitivity_permille": (2000 * found + positives) // (2 * positives),
        "specificity_permille": (2000 * cleared + negatives) // (2 * negatives),
    }


def _export(fitted: Any, recipe: Recipe) -> Any:
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType

    return to_onnx(
        fitted,
        name=recipe.name,
        initial_types=[("x", FloatTensorType([None, len(recipe.columns)]))],
        options={"zipmap": False},
        target_opset={"": OPSET, "ai.onnx.ml": ML_OPSET},
    )


def _check_parity(graph: Any, fitted: Any, x: Any, name: str) -> None:
    """Refuse to ship an export that answers otherwise than what was trained, on any of the 569 patients."""
    import numpy as np

    answers = predict(graph.SerializeToString(), {"x": x})
    apart = float(np.abs(answers["probabilities"] - fitted.predict_proba(x.astype(np.float64))).max())
    if apart > PARITY_MAX or (answers["label"] != fitted.predict(x.astype(np.float64))).any():
        raise ConfigError("E-demo-03", f"the export of {name} is {apart:.2g} away from the trained model")


def _label_from_threshold(graph: Any, threshold: float) -> None:
    """Replace the label output: 1 where the probability of label 1 reaches `threshold`, else 0."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    for node in graph.graph.node:
        node.output[:] = ["unused_label" if name == "label" else name for name in node.output]
    graph.graph.initializer.extend(
        [
            numpy_helper.from_array(np.array(1, dtype=np.int64), "malignant_column"),
            numpy_helper.from_array(np.array(threshold, dtype=np.float32), "threshold"),
        ]
    )
    graph.graph.node.extend(
        [
            helper.make_node("Gather", ["probabilities", "malignant_column"], ["malignant"], "pick", axis=1),
            helper.make_node("GreaterOrEqual", ["malignant", "threshold"], ["reached"], "compare"),
            helper.make_node("Cast", ["reached"], ["label"], "to_label", to=TensorProto.INT64),
        ]
    )


def _make_referral(models: Path) -> None:
    rules = assets_index.read_referral_rules()
    words = {rule.priority: rule.text.split(":")[0] for rule in rules}
    card = {
        "summary": "published rule table R-1: probabilities of triage and diagnosis to referral priority",
        "origin": "rule",
        "inputs": [["triage", "float32", [-1, 2]], ["diagnosis", "float32", [-1, 2]]],
        "outputs": [["priority", "int64", [-1]]],
        "labels": ["no rule applies", *(words[priority] for priority in sorted(words))],
    }
    notes = {"trained_on": "nothing: compiled from referral_rules.csv"}
    _write_model(models, "referral", _canonical(compile_rules(rules)), card, notes, {})


def compile_rules(rules: Sequence[assets_index.ReferralRule]) -> Any:
    """The rule table as an ONNX graph: compare with every rule's borders at once, sum the priorities that apply.

    The rules divide the plane, so at most one applies; none does when a probability is not a number: priority 0.
    """
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    constants = [numpy_helper.from_array(np.array([1], dtype=np.int64), "one")]
    nodes = []
    for step in ("triage", "diagnosis"):
        for side, comparison in (("from", "GreaterOrEqual"), ("below", "Less")):
            borders = np.array([getattr(rule, f"{step}_{side}") for rule in rules], dtype=np.float32)
            constants.append(numpy_helper.from_array(borders, f"{step}_{side}"))
            columns = [f"{step}_malignant", f"{step}_{side}"]
            nodes.append(helper.make_node(comparison, columns, [f"{step}_{side}_holds"]))
        nodes.insert(-2, helper.make_node("Gather", [step, "one"], [f"{step}_malignant"], axis=1))
        holds = [f"{step}_from_holds", f"{step}_below_holds"]
        nodes.append(helper.make_node("And", holds, [f"{step}_holds"]))
    priorities = np.array([rule.priority for rule in rules], dtype=np.int64)
    constants.append(numpy_helper.from_array(priorities, "priorities"))
    nodes += [
        helper.make_node("And", ["triage_holds", "diagnosis_holds"], ["applies"]),
        helper.make_node("Cast", ["applies"], ["counts"], to=TensorProto.INT64),
        helper.make_node("Mul", ["counts", "priorities"], ["weighed"]),
        helper.make_node("ReduceSum", ["weighed", "one"], ["priority"], keepdims=0),
    ]
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [None, 2]) for n in ("triage", "diagnosis")]
    outputs = [helper.make_tensor_value_info("priority", TensorProto.INT64, [None])]
    return helper.make_model(helper.make_graph(nodes, "referral", inputs, outputs, constants))


def _canonical(graph: Any) -> bytes:
    """Bytes that depend on the model alone: no tool versions, no remarks, one entry per operator set."""
    import onnx

    del graph.opset_import[:]
    graph.opset_import.extend([onnx.helper.make_opsetid("", OPSET), onnx.helper.make_opsetid("ai.onnx.ml", ML_OPSET)])
    graph.ir_version = IR_VERSION
    graph.producer_name, graph.producer_version = "dimnode.demo", "1"
    graph.domain, graph.model_version, graph.doc_string, graph.graph.doc_string = "", 1, "", ""
    for node in graph.graph.node:
        node.doc_string = ""
    onnx.checker.check_model(graph, full_check=True)
    raw: bytes = graph.SerializeToString(deterministic=True)
    return raw


def predict(raw: bytes, inputs: dict[str, Any]) -> dict[str, Any]:
    """Run an ONNX file's bytes in onnxruntime on one thread: output name -> array."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(raw, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def _write_model(
    models: Path, name: str, raw: bytes, card: dict[str, Any], notes: dict[str, Any], metrics: dict[str, int]
) -> None:
    path = models / f"{name}.onnx"
    path.write_bytes(raw)
    head = {
        "name": name,
        "version": "1.0.0",
        "format": "onnx",
        "file": path.name,
        "sha256": assets_index.sha256_of(path),
        "licence": "Apache-2.0",
    }
    lines = ["# Written by dimnode.demo.train; do not edit by hand."]
    # JSON's strings, numbers and lists of them are spelled the same in TOML.
    lines += [f"{key} = {json.dumps(value)}" for key, value in {**head, **card}.items()]
    lines += ["", "[notes]", *(f"{key} = {json.dumps(value)}" for key, value in notes.items())]
    if metrics:
        lines += ["", "# Patients with seen_in_training = 0.", "[notes.metrics]"]
        lines += [f"{key} = {value}" for key, value in metrics.items()]
    (models / f"{name}.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write_checksums(models: Path) -> None:
    names = [f"{name}.{end}" for name in assets_index.MODEL_NAMES for end in ("onnx", "toml")]
    names += ["../referral_rules.csv", "../wdbc.csv"]
    lines = [f"{assets_index.sha256_of(models / name)}  {name}\n" for name in sorted(names)]
    (models / assets_index.CHECKSUMS.name).write_text("".join(lines), encoding="ascii")


def compare_with_shipped(out: Path) -> list[str]:
    """One line per file below `out` that is not the shipped one, with how far its predictions are off; [] if none."""
    shipped = assets_index.read_checksums()
    made = assets_index.read_checksums(out / "models" / assets_index.CHECKSUMS.name)
    lines = []
    for name in sorted(shipped.keys() | made.keys()):
        if name not in made or name not in shipped or not (assets_index.MODELS / name).is_file():
            lines.append(f"{name}: only in one of the two sets, or missing")
            continue
        if assets_index.sha256_of(assets_index.MODELS / name) != shipped[name]:
            lines.append(f"{name}: the shipped file is not the one in SHA256SUMS")
        if made[name] != shipped[name]:
            apart = _predictions_apart(out, Path(name).stem) if name.endswith(".onnx") else ""
            lines.append(f"{name}: made anew it has other bytes{apart}")
    return lines


def _predictions_apart(out: Path, name: str) -> str:
    import numpy as np

    inputs = _probe(name)
    ours = predict((assets_index.MODELS / f"{name}.onnx").read_bytes(), inputs)
    theirs = predict((out / "models" / f"{name}.onnx").read_bytes(), inputs)
    decided = "priority" if name == "referral" else "label"
    differ = int((ours[decided] != theirs[decided]).sum())
    text = f"; {differ} of {len(ours[decided])} answers differ"
    if "probabilities" in ours:
        text += f", probabilities by at most {np.abs(ours['probabilities'] - theirs['probabilities']).max():.2g}"
    return text


def _probe(name: str) -> dict[str, Any]:
    """Inputs on which two versions of a model are compared: all patients, or a grid of probabilities for the rules."""
    import numpy as np

    if name != "referral":
        return {"x": _read_table(assets_index.WDBC_CSV).inputs(assets_index.read_model_card(name).columns)}
    steps = np.linspace(0, 1, 65, dtype=np.float32)
    triage, diagnosis = (axis.reshape(-1) for axis in np.meshgrid(steps, steps))
    pair = {"triage": triage, "diagnosis": diagnosis}
    return {step: np.stack([1 - malignant, malignant], axis=1) for step, malignant in pair.items()}


def _require_extras() -> None:
    missing = [name for name in ("sklearn", "skl2onnx", "onnx", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise ConfigError(
            "E-demo-01",
            f"making the demo's models needs {', '.join(missing)}",
            "the extras are not installed; the demo itself does not need them",
            'pip install -c constraints.txt "dimnode[models,onnx]"',
        )


def _check() -> int:
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder))
        lines = compare_with_shipped(Path(folder))
    if not lines:
        sys.stdout.write(f"{len(assets_index.read_checksums())} files made anew, every byte as shipped\n")
        return 0
    sys.stderr.write("".join(f"{line}\n" for line in lines))
    sys.stderr.write(
        "cause: other versions than constraints.txt names, or another kind of CPU, may change the last bits\n"
        "hint: when no answer differs and probabilities agree to 1e-5, the shipped models are sound\n"
    )
    return 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code: 0 done, 1 `--check` found a difference, 2 an extra is missing."""
    parser = argparse.ArgumentParser(prog="python -m dimnode.demo.train", description="make the demo's models")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--out", type=Path, default=assets_index.ASSETS, metavar="DIR", help="where the assets go")
    where.add_argument("--check", action="store_true", help="make them elsewhere and compare with what ships")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.check:
            return _check()
        build(chosen.out)
    except DimError as error:
        sys.stderr.write("\n".join(error.complaint.lines()) + "\n")
        return 2
    sys.stdout.write(f"wrote {chosen.out}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
