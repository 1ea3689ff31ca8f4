"""What ships with the demo and how to read it: the models' cards, their checksums and the referral rule table.

Rule: only reads, and only files below `ASSETS`; whoever wants the models made anew runs `dimnode.demo.train`.
Standard library only.
"""

import csv
import hashlib
import struct
import tomllib
from dataclasses import dataclass
from math import inf
from pathlib import Path

ASSETS = Path(__file__).parent / "assets"
WDBC_CSV = ASSETS / "wdbc.csv"
RULES_CSV = ASSETS / "referral_rules.csv"
MODELS = ASSETS / "models"
CHECKSUMS = MODELS / "SHA256SUMS"

CLASSIFIER_NAMES = ("classifier-logistic", "classifier-boosting", "classifier-mlp")
TRAINED_NAMES = (*CLASSIFIER_NAMES, "triage", "diagnosis")
MODEL_NAMES = (*TRAINED_NAMES, "referral")

NO_RULE_APPLIES = 0


@dataclass(frozen=True, slots=True)
class TensorField:
    """One input or output of a model: dtype as tensors/1 spells it, -1 where the number of rows stands."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ModelCard:
    """A model's description, `<name>.toml`. `columns` says what the columns of input `x` are (empty for the rules);
    `metrics` counts the unseen patients (empty for the rules); `labels[i]` says in words what output i means."""

    name: str
    version: str
    format: str
    path: Path
    sha256: str
    licence: str
    origin: str
    summary: str
    inputs: tuple[TensorField, ...]
    outputs: tuple[TensorField, ...]
    labels: tuple[str, ...]
    columns: tuple[str, ...]
    trained_on: str
    metrics: dict[str, int]


@dataclass(frozen=True, slots=True)
class ReferralRule:
    """One line of table R-1: probabilities of malignancy from `_from` (included) to `_below` (excluded) -> priority.

    priority: 1 (most urgent) to 4. An empty cell of the table is no bound, here -inf or inf.
    """

    rule: str
    diagnosis_from: float
    diagnosis_below: float
    triage_from: float
    triage_below: float
    priority: int
    text: str

    def applies(self, triage: float, diagnosis: float) -> bool:
        """Whether both probabilities lie in this rule's intervals. False for what is not a number."""
        return (
            self.diagnosis_from <= diagnosis < self.diagnosis_below and self.triage_from <= triage < self.triage_below
        )


def read_model_card(name: str, models: Path = MODELS) -> ModelCard:
    """The card of one of `MODEL_NAMES`. Does not compare the file's hash; see `sha256_of`."""
    card = tomllib.loads((models / f"{name}.toml").read_text(encoding="utf-8"))
    return ModelCard(
        name=card["name"],
        version=card["version"],
        format=card["format"],
        path=models / card["file"],
        sha256=card["sha256"],
        licence=card["licence"],
        origin=card["origin"],
        summary=card["summary"],
        inputs=_fields(card["inputs"]),
        outputs=_fields(card["outputs"]),
        labels=tuple(card["labels"]),
        columns=tuple(card.get("columns", ())),
        trained_on=card["notes"]["trained_on"],
        metrics=card["notes"].get("metrics", {}),
    )


def read_checksums(path: Path = CHECKSUMS) -> dict[str, str]:
    """File name relative to the checksum file -> SHA-256 in hex, from the format of `sha256sum`."""
    lines = path.read_text(encoding="ascii").splitlines()
    return {name: digest for digest, name in (line.split("  ", 1) for line in lines)}


def sha256_of(path: Path) -> str:
    """SHA-256 of a file in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_referral_rules(path: Path = RULES_CSV) -> tuple[ReferralRule, ...]:
    """The lines of table R-1. Raises `ValueError` for a border that float32 cannot hold exactly.

    The ONNX form compares in float32; with exact borders it and the table cannot differ by rounding.
    """
    with path.open(newline="", encoding="ascii") as lines:
        return tuple(
            ReferralRule(
                rule=row["rule"],
                diagnosis_from=_border(row["diagnosis_from"], -inf),
                diagnosis_below=_border(row["diagnosis_below"], inf),
                triage_from=_border(row["triage_from"], -inf),
                triage_below=_border(row["triage_below"], inf),
                priority=int(row["priority"]),
                text=row["text"],
            )
            for row in csv.DictReader(lines)
        )


def rule_for(rules: tuple[ReferralRule, ...], triage: float, diagnosis: float) -> ReferralRule | None:
    """The first rule that applies to the two probabilities of malignancy; None when one is not a number."""
    return next((rule for rule in rules if rule.applies(triage, diagnosis)), None)


def _border(cell: str, unbounded: float) -> float:
    if not cell:
        return unbounded
    border = float(cell)
    if struct.unpack("<f", struct.pack("<f", border))[0] != border:
        raise ValueError(f"the border {cell} is not exact in float32")
    return border


def _fields(rows: list[tuple[str, str, list[int]]]) -> tuple[TensorField, ...]:
    return tuple(TensorField(name, dtype, tuple(shape)) for name, dtype, shape in rows)
