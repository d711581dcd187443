"""Finished cells of the study in the results folder, without texts and weights."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.data.hashing import file_hash, folder_hash
from harness.data.stored_examples import splits_hash
from harness.records.atomic import write_lines, write_text
from harness.records.run_folder import PREDICTIONS, REPORT, SCORES, SPEC
from harness.spec.run_spec import RunSpec
from harness.training.trained_weights import FILE

ROOT = Path(__file__).parents[2]
RECORD = "study.json"
TRIALS = "rates.json"
FAILURES = "failures.json"
_CODE = (
    "compressors",
    "harness/backbones",
    "harness/data/calibration.py",
    "harness/data/examples.py",
    "harness/evaluation",
    "harness/model",
    "harness/training",
    "tasks/metrics",
)
"""Code that decides the weights, the predictions and the scores of a cell. Settings and texts are
in its key by themselves, whatever code reads them."""
_OF_SEVERAL_PROCESSES = {"parallel"}


def training_code(root: Path = ROOT) -> str:
    """Return a hash of the code that can change a cell.

    Args:
        root: folder that holds ``harness``, ``compressors`` and ``tasks``.
    """
    digest = hashlib.sha256()
    for name in _CODE:
        place = root / name
        found = folder_hash(place, _OF_SEVERAL_PROCESSES) if place.is_dir() else file_hash(place)
        digest.update(f"{name}\0{found}\n".encode())
    return digest.hexdigest()[:16]


class Keys:
    """Identifies runs by settings, data and code, whatever the machine.

    Args:
        code: hash of the code.
    """

    def __init__(self, code: str) -> None:
        self.code = code
        self._data: dict[tuple[str, int], str] = {}

    def of(self, spec: RunSpec) -> str:
        """Return the key of a run whose recipe is in canonical form."""
        from harness.api.plugins import installed

        if (spec.task, spec.seed) not in self._data:
            splits = installed().task(spec.task, spec.task_options).splits(spec.seed)
            digest = splits_hash(splits.train, splits.eval, splits.test)
            self._data[spec.task, spec.seed] = digest
        return spec.digest(self._data[spec.task, spec.seed], self.code)


@dataclass
class Store:
    """The results folder of the study.

    Attributes:
        folder: holds a folder for each finished cell.
        code: hash of the code that the cells of now have.
    """

    folder: Path
    code: str

    @property
    def work(self) -> Path:
        """Folder of runs as the harness leaves them; hidden from reports, and not committed."""
        return self.folder / ".work"

    def done(self) -> set[str]:
        """Return the keys of all finished cells."""
        return {json.loads(path.read_text("utf-8"))["key"] for path in self._records()}

    def add(self, run: Path, key: str) -> Path:
        """Move a finished run into the results, without texts and weights.

        An earlier result of the same recipe and seed, by other code or settings, is replaced.

        Args:
            run: folder of the run.
            key: its key.
        """
        report = json.loads((run / REPORT).read_text("utf-8"))
        new = self.folder / f".{run.name}.new"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        for name in (REPORT, SPEC):
            shutil.copy(run / name, new / name)
        rows = [json.loads(line) for line in (run / PREDICTIONS).read_text("utf-8").splitlines()]
        kept = ("id", "cluster", "scores")
        write_lines(new / SCORES, ({k: row[k] for k in kept if k in row} for row in rows))
        record = {"key": key, "code": self.code, "trained_bytes": (run / FILE).stat().st_size}
        write_text(new / RECORD, json.dumps(record, indent=2) + "\n")
        for path in list(self._records()):
            other = json.loads((path.parent / REPORT).read_text("utf-8"))
            if (other["recipe"], other["seed"]) == (report["recipe"], report["seed"]):
                shutil.rmtree(path.parent)
        place = self.folder / run.name
        new.rename(place)
        shutil.rmtree(run)
        return place

    def records(self) -> dict[str, dict[str, Any]]:
        """Return the record of each cell, by the name of its folder."""
        return {path.parent.name: json.loads(path.read_text("utf-8")) for path in self._records()}

    def read(self, name: str) -> dict[str, Any]:
        """Return a file of records; empty if there is none."""
        path = self.folder / name
        found: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
        return found

    def write(self, name: str, records: dict[str, Any]) -> None:
        """Write a file of records."""
        write_text(self.folder / name, json.dumps(records, indent=1, sort_keys=True) + "\n")

    def _records(self) -> list[Path]:
        return sorted(self.folder.glob(f"[!.]*/{RECORD}"))
