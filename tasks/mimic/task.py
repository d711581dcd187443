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
    """The folder that ``harness prepare`` made."""
    split: Literal["patient", "paper"] = "patient"
    """patient: all notes of a patient are on one side. paper: notes are shuffled whoever they are
    about, as in Zhu et al. 2023."""
    split_seed: int = Field(0, ge=0)
    """Seed of the split. It is not the run's, so that runs of all seeds share one test set."""
    max_source_length: int = Field(1024, ge=1)
    """Tokens; longer sources are cut, and counted. The paper's T5-large on radiology has 512."""
    max_target_length: int = Field(128, ge=1)
    """Tokens; longer targets are cut for training, and counted."""


class Mimic(Task[MimicOptions]):
    """Notes of one kind, as ``harness prepare`` has stored them.

    Attributes:
        kind: of the notes; MIMIC-IV-Note's file is named so.
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
        # Not Dataset.from_parquet: it would leave a copy of confidential text in its cache.
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
        """Return the examples, and why other notes were left out."""
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
            "To try the task without the data, make up notes in the same format:\n"
            f"  harness prepare {name} --synthetic 1000 --out DIR"
        )


class Discharge(Mimic):
    """Write the discharge diagnosis from the rest of the discharge note."""

    kind = "discharge"
    # Tokens: the words of Zhu et al. 2023, table 1, at 1.4 tokens a word, within the limits.
    length_profile = LengthProfile(source_mean=1024, target_mean=19)
    eval_share = 0.3


class Radiology(Mimic):
    """Write the impression of a radiology report."""

    kind = "radiology"
    length_profile = LengthProfile(source_mean=185, target_mean=54)
    eval_share = 0.1
