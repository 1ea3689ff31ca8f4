"""Who holds which of the 569 patients, and which of them the demo's models have never seen.

Rule: every choice below follows from a published rule that anybody can repeat with this file and the CSV; no rule
reads a model's answers. A row is a patient's number minus one. Pure apart from reading and writing CSV files;
standard library only, so the demo needs neither NumPy nor scikit-learn to deal the patients out.
The reasons are told in docs/demo-models.md.
"""

import csv
import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, pstdev

from dimnode.demo.assets_index import WDBC_CSV

PATIENTS = 569
TRAINING_PATIENTS = 200
VOTE_PATIENTS_HARD = 10
VOTE_PATIENTS_ORDINARY = 10

_MEASURES = (
    "radius",
    "texture",
    "perimeter",
    "area",
    "smoothness",
    "compactness",
    "concavity",
    "concave_points",
    "symmetry",
    "fractal_dimension",
)
FEATURES: tuple[str, ...] = (
    *(f"mean_{measure}" for measure in _MEASURES),
    *(f"{measure}_error" for measure in _MEASURES),
    *(f"worst_{measure}" for measure in _MEASURES),
)
TRIAGE_FEATURES = FEATURES[:10]
COLUMNS = ("patient", *FEATURES, "diagnosis", "seen_in_training")


def order_by_hash(rows: Iterable[int]) -> list[int]:
    """Rows in the order of SHA-256("dimnode/wdbc/1:" + patient number): a shuffle that every language can repeat."""
    return sorted(rows, key=lambda row: hashlib.sha256(f"dimnode/wdbc/1:{row + 1}".encode()).digest())


# The first 200 rows of the shuffle were used to train; the other 369 never were.
TRAINING_ROWS: tuple[int, ...] = tuple(sorted(order_by_hash(range(PATIENTS))[:TRAINING_PATIENTS]))
UNSEEN_ROWS: tuple[int, ...] = tuple(sorted(set(range(PATIENTS)) - set(TRAINING_ROWS)))

# Patients are dealt out like cards, in the order of the file: 190, 190 and 189.
HOSPITAL_ROWS: tuple[tuple[int, ...], ...] = tuple(tuple(range(first, PATIENTS, 3)) for first in range(3))

# What `choose_vote_rows` and `choose_chain_row` choose; a test holds the numbers to the rules.
# All belong to hospital 0: it submits those jobs and may decide to send its own patients' measurements.
VOTE_ROWS: tuple[int, ...] = (
    *(12, 39, 81, 99, 126, 135, 138, 156, 207, 231),
    *(255, 318, 408, 435, 444, 465, 516, 537, 552, 567),
)
CHAIN_ROW: int = 3


@dataclass(frozen=True, slots=True)
class Patient:
    """One row of wdbc.csv. `features` are the 30 of `FEATURES`, in that order; `malignant` is the biopsy's finding."""

    row: int
    features: tuple[float, ...]
    malignant: bool
    seen_in_training: bool


def read_patients(path: Path = WDBC_CSV) -> tuple[Patient, ...]:
    """All patients in a CSV with the columns of `COLUMNS`. Raises `ValueError` when it is another table."""
    with path.open(newline="", encoding="ascii") as lines:
        reader = csv.reader(lines)
        header = tuple(next(reader, ()))
        if header != COLUMNS:
            raise ValueError(f"{path} does not have the columns of the demo's table")
        patients = tuple(_patient(cells) for cells in reader)
    if len(patients) != PATIENTS:
        raise ValueError(f"{path} has {len(patients)} patients, the demo's table has {PATIENTS}")
    return patients


def write_hospital_csv(hospital: int, path: Path, source: Path = WDBC_CSV) -> int:
    """Write one hospital's rows to `path`, cell for cell as they stand in `source`; return how many.

    hospital: 0, 1 or 2. All columns stay, `seen_in_training` among them, so that a query can leave those rows out.
    """
    wanted = set(HOSPITAL_ROWS[hospital])
    with source.open(newline="", encoding="ascii") as lines:
        header, *rows = csv.reader(lines)
    kept = [cells for cells in rows if int(cells[0]) - 1 in wanted]
    with path.open("w", newline="", encoding="ascii") as out:
        csv.writer(out, lineterminator="\n").writerows([header, *kept])
    return len(kept)


def choose_vote_rows(patients: Sequence[Patient]) -> tuple[int, ...]:
    """The 20 unseen patients of hospital 0 whom the models vote on: 10 hard ones and 10 as they come.

    Hard: nearly as far from the typical benign as from the typical malignant training patient, so the measurements
    themselves are ambiguous, whatever a model makes of them. As they come: next in the shuffle of `order_by_hash`.
    """
    ambiguity = _ambiguity([patient for patient in patients if patient.seen_in_training])
    unseen = [row for row in HOSPITAL_ROWS[0] if not patients[row].seen_in_training]
    hard = sorted(unseen, key=lambda row: ambiguity(patients[row]))[:VOTE_PATIENTS_HARD]
    ordinary = [row for row in order_by_hash(unseen) if row not in hard][:VOTE_PATIENTS_ORDINARY]
    return tuple(sorted(hard + ordinary))


def choose_chain_row(patients: Sequence[Patient]) -> int:
    """The patient who walks through triage, diagnosis and referral: hospital 0's first unseen one, not among the
    vote's 20, whom the biopsy found malignant (a benign one would end the chain at its first step)."""
    voted = set(choose_vote_rows(patients))
    unseen = (patients[row] for row in HOSPITAL_ROWS[0] if row not in voted and not patients[row].seen_in_training)
    return next(patient.row for patient in unseen if patient.malignant)


def _ambiguity(training: Sequence[Patient]) -> Callable[[Patient], float]:
    """How far a patient's distances to the two typical training patients differ, in standard units; 0 is a tie."""
    columns = list(zip(*(patient.features for patient in training), strict=True))
    centres, spreads = [fmean(column) for column in columns], [pstdev(column) for column in columns]

    def standard(patient: Patient) -> list[float]:
        return [(x - c) / s for x, c, s in zip(patient.features, centres, spreads, strict=True)]

    def typical(malignant: bool) -> list[float]:
        group = [standard(patient) for patient in training if patient.malignant is malignant]
        return [fmean(column) for column in zip(*group, strict=True)]

    benign, malignant = typical(False), typical(True)
    return lambda patient: abs(math.dist(standard(patient), benign) - math.dist(standard(patient), malignant))


def _patient(cells: Sequence[str]) -> Patient:
    number, *features, diagnosis, seen = cells
    return Patient(int(number) - 1, tuple(map(float, features)), diagnosis == "1", seen == "1")
