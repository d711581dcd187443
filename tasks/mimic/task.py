"""The tasks ``mimic_discharge`` and ``mimic_radiology``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from harness import (
    DATA_VARIABLE,
    HarnessError,
    LengthProfile,
    Metric,
    Options,
    Preparation,
    Prepared,
    Splits,
    Task,
    data_folder,
)

if TYPE_CHECKING:
    from pyarrow import Table


class MimicOptions(Options):
    """Options of a task on MIMIC-IV-Note."""

    path: Path | None = None
    """Folder that ``harness prepare`` wrote."""
    split: Literal["patient", "paper"] = "patient"
    """Unit of the split. patient: all notes of a patient are in one split; paper: notes are split
    at random and patients are ignored, as in Zhu et al. 2023."""
    split_seed: int = Field(0, ge=0)
    """Seed of the split. It differs from the run's seed, so all seeds share one test set."""
    max_source_length: int = Field(1024, ge=1)
    """Longest source in tokens; longer ones are truncated and counted. The paper uses 512 for
    T5-large on radiology."""
    max_target_length: int = Field(128, ge=1)
    """Longest target in tokens; longer ones are truncated in training and counted."""


class Mimic(Task[MimicOptions]):
    """Reads the notes of one kind that ``harness prepare`` has stored.

    Attributes:
        kind: kind of note, which is also the name of MIMIC-IV-Note's file.
    """

    Options = MimicOptions
    prefix = "summarize: "
    kind: ClassVar[str]

    def __init__(self, reference: str, options: MimicOptions) -> None:
        super().__init__(reference, options)
        self.max_source_length = options.max_source_length
        self.max_target_length = options.max_target_length

    def splits(self, seed: int) -> Splits:
        """Read the examples and split them; the run's seed has no effect."""
        import numpy as np
        from datasets import Dataset
        from datasets.table import InMemoryTable

        from harness import count_leakage, split_rows
        from tasks.mimic.prepare import HASHES

        folder = self._folder()
        table, left_out = self._read(folder)
        patients = None
        if self.options.split == "patient":
            patients = table["subject_id"].combine_chunks().dictionary_encode().indices.to_numpy()
        parts = split_rows(len(table), self.options.split_seed, patients)
        hashes = np.stack([table[name].to_numpy() for name in HASHES], axis=1)
        sides = (parts.train, parts.eval, parts.test)
        # Dataset.from_parquet would leave a copy of confidential text in its cache.
        rows = Dataset(InMemoryTable(table.select(["id", "source", "target"])))
        train, evaluation, test = (rows.select(side) for side in sides)
        return Splits(
            train,
            evaluation,
            test,
            left_out,
            count_leakage(*(hashes[side] for side in sides)),
        )

    def metrics(self) -> Sequence[Metric]:
        """Return the suite for summaries."""
        from tasks.metrics import summary_metrics

        return summary_metrics()

    @classmethod
    def prepare(cls, preparation: Preparation) -> Prepared:
        """Build the data set from MIMIC-IV-Note's file; see ``tasks.mimic.prepare``."""
        from tasks.mimic.prepare import prepare

        return prepare(cls.kind, preparation)

    def _read(self, folder: Path) -> tuple[Table, dict[str, int]]:
        """Return the examples, and reason -> number of notes that were left out."""
        import pyarrow as pa
        from pyarrow import parquet

        from tasks.mimic.prepare import COUNTS, EXAMPLES

        path = folder / EXAMPLES
        try:
            table = parquet.ParquetFile(path).read()
            path = folder / COUNTS
            return table, json.loads(path.read_text("utf-8"))["left_out"]
        # ValueError: not JSON, or not text; KeyError, TypeError: other JSON.
        except (OSError, pa.ArrowException, ValueError, KeyError, TypeError) as error:
            raise HarnessError(f"{path} cannot be read: {error}.", self._ways()) from error

    def _folder(self) -> Path:
        from tasks.mimic.prepare import EXAMPLES

        root = data_folder()
        if self.options.path is not None:
            folder = self.options.path.expanduser()
        elif root is not None:
            folder = root / self.reference
        else:
            raise HarnessError(
                f"The data of {self.reference} were not found: no path is given, and "
                f"${DATA_VARIABLE} is not set.",
                self._ways(),
            )
        if not (folder / EXAMPLES).is_file():
            raise HarnessError(
                f"The data of {self.reference} were not found: there is no {folder / EXAMPLES}.",
                self._ways(),
            )
        return folder

    def _ways(self) -> str:
        name = self.reference
        return (
            f"Prepare them once from MIMIC-IV-Note's {self.kind}.csv.gz "
            "(https://physionet.org/content/mimic-iv-note; access needs training and a data use "
            "agreement):\n"
            f"  harness prepare {name} --notes {self.kind}.csv.gz --out DIR\n"
            "Then name the folder in one of these ways:\n"
            "  --set task_options.path=DIR\n"
            f"  export {DATA_VARIABLE}=FOLDER     where DIR is FOLDER/{name}\n"
            "To try the task without the data, generate synthetic notes in the same format:\n"
            f"  harness prepare {name} --synthetic 1000 --out DIR"
        )


class Discharge(Mimic):
    """Writes the discharge diagnosis from the rest of the discharge note."""

    kind = "discharge"
    # Tokens: the words in table 1 of Zhu et al. 2023, times 1.4 tokens per word, at most the
    # limits.
    length_profile = LengthProfile(source_mean=1024, target_mean=19)
    eval_share = 0.3


class Radiology(Mimic):
    """Writes the impression of a radiology report."""

    kind = "radiology"
    length_profile = LengthProfile(source_mean=185, target_mean=54)
    eval_share = 0.1
