"""What the acts share: the swarm, its models and cabinets, and the central figures to compare with.

Rule: the central computation is made here, straight with onnxruntime over all rows, and never by the swarm.
"""

import csv
import os
import struct
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from dimnode.audit.verifier import verify
from dimnode.client import Client, Ended, tensor_rows
from dimnode.demo.assets_index import ModelCard, read_model_card
from dimnode.demo.narrator import Narrator
from dimnode.demo.split import FEATURES, HOSPITAL_ROWS, Patient, read_patients, write_hospital_csv
from dimnode.demo.swarm import Member, Swarm
from dimnode.records.ids import peer_bytes
from dimnode.records.receipt import parse_receipt

HOSPITALS: Final = ("alba", "brio", "cara")
CABINET: Final = "patients"
OFFERS: Final = {
    "alba": ("classifier-logistic", "referral"),
    "brio": ("classifier-logistic", "classifier-mlp", "diagnosis"),
    "cara": ("classifier-logistic", "classifier-mlp", "triage"),
    "dano": ("classifier-boosting", "diagnosis"),
    "ezra": ("classifier-mlp",),
}
POLICY: Final = {
    "operations": ["evaluate", "statistics"],
    "submitters": "any",
    "models": "any",
    "min_cohort": 10,
    "where": ["seen_in_training", "mean_radius"],
}
"""What every hospital signs. The patient's number is in the file, and nobody may pick patients by it."""
FEW: Final = 3
UNSEEN: Final = {"column": "seen_in_training", "op": "eq", "value": 0}


@dataclass(slots=True)
class Setting:
    """One performance."""

    narrator: Narrator
    swarm: Swarm
    folder: Path
    source: Path
    patients: tuple[Patient, ...] = ()
    rows_at: dict[str, int] = field(default_factory=dict)

    def furnish(self) -> None:
        """Give every node its models, every hospital its patients."""
        self.patients = read_patients(self.source)
        self._offer_models()
        for index, name in enumerate(HOSPITALS):
            path = self.swarm[name].home / "patients.csv"
            self.rows_at[name] = write_hospital_csv(index, path, self.source)
            self.swarm[name].client.add_data(
                CABINET,
                path,
                "diagnosis",
                ["patient", "seen_in_training"],
                POLICY,
            )
        wanted = {"classifier-logistic": 3, "classifier-mlp": 3, "diagnosis": 2, "referral": 1, "triage": 1}
        self.swarm.wait_offered("alba", {**wanted, "classifier-boosting": 1})
        self.swarm.wait_offered("dano", {"classifier-logistic": 3})
        self.wait_cabinets("dano")

    def _offer_models(self) -> None:
        """One node publishes a model; the others, having heard of it, pull it and offer the same one."""
        publishers = {model: name for name, models in reversed(OFFERS.items()) for model in models}
        for model, name in publishers.items():
            self.add_model(self.swarm[name], model)
        for name, models in OFFERS.items():
            self.swarm.wait_offered(name, dict.fromkeys(models, 1))
            for model in models:
                if publishers[model] != name:
                    self.swarm[name].client.ask("models.pull", model=model)

    def add_model(self, member: Member, name: str) -> None:
        """Add a shipped model, by its card."""
        card = read_model_card(name)
        member.client.add_model(card_map(card), card.path)

    def wait_cabinets(self, asker: str) -> None:
        """Until `asker` has heard of all three cabinets."""
        self.swarm.wait_for(lambda: self._cabinets(asker) >= len(HOSPITALS), f"{asker} heard of too few cabinets")

    def largest(self, hospital: str) -> dict[str, Any]:
        """A condition that only the `FEW` patients with the largest tumours of a hospital meet."""
        rows = HOSPITAL_ROWS[HOSPITALS.index(hospital)]
        radii = sorted((self.patients[row].features[0] for row in rows), reverse=True)
        return {"column": "mean_radius", "op": "gt", "value": (radii[FEW - 1] + radii[FEW]) / 2}

    def _cabinets(self, asker: str) -> int:
        return sum(1 for row in self.swarm[asker].client.peers() if CABINET in row["cabinets"])

    def make_liar(self, name: str, claimed: str, real: str) -> None:
        """What a dishonest operator does: change the program, so that it runs one model and signs for another."""
        member = self.swarm[name]
        self.add_model(member, real)
        member.stop()
        member.wait_stopped()
        member.launch(self.swarm[self.swarm.first].addresses[0], faults=f"run-instead:{claimed}:{real}")
        member.wait_ready()
        self.swarm.wait_joined()

    # ---- jobs and receipts

    def rows_blob(self, rows: list[int] | tuple[int, ...]) -> bytes:
        """The 30 features of these patients as a job's input."""
        return tensor_rows([list(self.patients[row].features) for row in rows])

    def keep(self, number: int, name: str, ended: Ended) -> None:
        """Write a job's receipt and verify it from the file."""
        assert ended.receipt is not None
        path = self.folder / "receipts" / f"{number}-{name}.dimr"
        path.write_bytes(ended.receipt)
        began = time.perf_counter()
        report = verify(path.read_bytes(), trust=self.trust())
        milliseconds = (time.perf_counter() - began) * 1000
        held = self.narrator.check(report.status == 0)
        row = {
            "job": name,
            "status": ended.status,
            "path": str(path),
            "bytes": path.stat().st_size,
            "records": len(parse_receipt(ended.receipt).records),
            "verified": report.status == 0,
        }
        self.narrator.facts["receipts"].append(row)
        self.narrator.say("receipt", f"{path}   {row['bytes']:,} bytes   verified in {milliseconds:.0f} ms {held}")

    def trust(self) -> dict[bytes, str]:
        """The names that this machine's operator puts beside keys."""
        return {peer_bytes(member.peer): name for name, member in self.swarm.members.items() if member.peer}

    # ---- the central computation

    def central_counts(self, model: str) -> list[list[int]]:
        """[[tn, fp], [fn, tp]] over all unseen patients, computed in one place."""
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # onnxruntime reports to its maker unless told not to
        import onnxruntime  # only the demo's control figure needs it here

        chosen = [patient for patient in self.patients if not patient.seen_in_training]
        session = onnxruntime.InferenceSession(str(read_model_card(model).path), providers=["CPUExecutionProvider"])
        matrix = np.array([patient.features for patient in chosen], dtype=np.float32)
        labels = session.run(["label"], {"x": matrix})[0]
        counts = [[0, 0], [0, 0]]
        for patient, label in zip(chosen, labels, strict=True):
            counts[int(patient.malignant)][int(label)] += 1
        return counts

    def central_means(self) -> list[float]:
        """The mean of each feature over all patients, computed in one place."""
        return [float(value) for value in np.array([p.features for p in self.patients], dtype=np.float64).mean(axis=0)]

    def rows_found_in(self, name: str, content: bytes) -> int:
        """How many of a hospital's rows appear in these bytes, as text, float32 or float64: what leaked, measured."""
        found = 0
        with (self.swarm[name].home / "patients.csv").open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                cells = [row[feature] for feature in FEATURES[:4]]
                values = list(map(float, cells))
                shapes = (struct.pack("<4f", *values), struct.pack("<4d", *values), ",".join(cells).encode())
                found += any(shape in content for shape in shapes)
        return found


def card_map(card: ModelCard) -> dict[str, Any]:
    """The card as the node takes it."""
    return {
        "name": card.name,
        "version": card.version,
        "format": card.format,
        "sha256": card.sha256,
        "licence": card.licence,
        "origin": card.origin,
        "summary": card.summary,
        "inputs": [[entry.name, entry.dtype, list(entry.shape)] for entry in card.inputs],
        "outputs": [[entry.name, entry.dtype, list(entry.shape)] for entry in card.outputs],
        "labels": list(card.labels),
    }


def bytes_out(client: Client, to: str) -> int:
    """What this node has written to its task stream to a peer so far, from the stream's counter."""
    rows = client.peers()
    return int(next((row["stream_bytes_out"] for row in rows if row["peer"] == to), 0))
