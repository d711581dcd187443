"""The user's own data as a task: a folder of split files, or one file to be split."""

from __future__ import annotations

from pathlib import Path

from harness import HarnessError, Splits
from tasks.paths import find_split_files, stem
from tasks.tables import read_table
from tasks.tabular import TableOptions, TableTask


class FileOptions(TableOptions):
    """Options of a task on your own data."""


class FileTask(TableTask[FileOptions]):
    """Data from files in JSONL, JSON, CSV or Parquet.

    A folder holds a train and a test file; where it has no eval file (eval, validation, valid, val
    or dev), a tenth of the train rows is taken for it. A single file is split 80/10/10. Rows whose
    source or target is missing or blank are left out and counted.
    """

    Options = FileOptions

    def __init__(self, reference: str, options: FileOptions) -> None:
        super().__init__(reference, options)
        self.path = Path(reference).expanduser()

    @property
    def name(self) -> str:
        """The name of the folder or file."""
        return stem(self.path.resolve())

    def splits(self, seed: int) -> Splits:
        """Read the files, into memory only: no copy of the data is written anywhere."""
        if not self.path.exists():
            raise HarnessError(
                f"There is no file or folder {str(self.path)!r}.",
                "Give a folder with train, eval and test files, or one file, e.g. --task my.jsonl",
            )
        files = {"train": self.path}
        if self.path.is_dir():
            files = find_split_files(self.path)
            if missing := [split for split in ("train", "test") if split not in files]:
                raise HarnessError(
                    f"{self.path}: there is no {' and no '.join(missing)} file in this folder.",
                    f"Add {missing[0]}.jsonl (or .json, .csv, .parquet), "
                    "or give one file, which is split 80/10/10.",
                )
        tables = {split: read_table(path) for split, path in files.items()}
        return self._splits(tables, seed, str(self.path))
