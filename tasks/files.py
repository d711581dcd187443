"""The user's own data as a task: a folder of split files, or one file to be split."""

from __future__ import annotations

from pathlib import Path

from harness import (
    Dialect,
    HarnessError,
    Splits,
    stem,
)
from tasks.suite import SuiteOptions, SuiteTask


class FileOptions(SuiteOptions):
    """Options of a task on your own data."""

    encoding: str | None = None
    """Encoding of text files, such as latin-1 or utf-16; by default UTF-8, or what a byte order
    mark says."""
    delimiter: str | None = None
    """Delimiter between the cells of a CSV file: one character, or tab, comma, semicolon, pipe; by
    default the one that is found."""
    sheet: str | None = None
    """Sheet of a workbook; by default the first."""


class FileTask(SuiteTask[FileOptions]):
    """Data from files.

    Formats: JSONL, JSON, CSV, TSV, Parquet, Arrow, Feather, Excel workbooks, pairs of text
    files with one text a line, and folders that the library datasets saved. A folder holds a train
    and a test split; where it has no eval split (eval, validation, valid, val or dev), a tenth of
    the train rows is taken for it, and from what the library or the hub wrote also a test split. A
    single file is split 80/10/10. Rows whose source or target is missing or blank are left out and
    counted.
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
        """Read the files. A copy of the texts is written only where ``$HARNESS_CACHE`` says."""
        options = self.options
        dialect = Dialect(options.encoding, options.delimiter, options.sheet)
        if not self.path.exists():
            raise HarnessError(
                f"There is no file or folder {str(self.path)!r}.",
                "Give a folder with train, eval and test files, or one file, e.g. --task my.jsonl",
            )
        return self.split_files(self.path, dialect, seed)
