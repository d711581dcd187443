"""The user's own data as a task: a folder of split files, or one file to be split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from harness import HarnessError, Metric, Options, Splits, Task
from tasks.pairs import usable_pairs
from tasks.paths import find_split_files, stem
from tasks.tables import Table, read_table, text_column

if TYPE_CHECKING:
    from datasets import Dataset

_NAMES = {
    "source": {
        *("source", "article", "dialog", "dialogue", "conversation", "document"),
        *("findings", "input", "inputs", "note", "text"),
    },
    "target": {
        *("target", "abstract", "answer", "headline", "highlights", "impression"),
        *("output", "outputs", "response", "summary"),
    },
}
_ID_NAMES = {"id", "uid", "guid"}
Role = Literal["source", "target"]


class FileOptions(Options):
    """Options of a task on your own data."""

    source_column: str | None = None
    """Column of the texts to read; guessed where one name is obvious."""
    target_column: str | None = None
    """Column of the texts to write; guessed where one name is obvious."""
    id_column: str | None = None
    """Column of distinct ids; by default a column named id, or else split and row number."""
    prefix: str = ""
    """Put before every source, such as "summarize: " for T5."""
    max_source_length: int = Field(512, ge=1)
    """Tokens; longer sources are cut, and counted."""
    max_target_length: int = Field(128, ge=1)
    """Tokens; longer targets are cut for training, and counted."""
    suite: Literal["summary", "dialogue"] = "summary"
    """The metrics to score with."""
    split_seed: int | None = Field(None, ge=0)
    """Seed for what is split here; by default the run's. Fix it for runs of several seeds that
    shall share one test set."""


class FileTask(Task[FileOptions]):
    """Data from files in JSONL, JSON, CSV or Parquet.

    A folder holds a train and a test file; where it has no eval file (eval, validation, valid, val
    or dev), a tenth of the train rows is taken for it. A single file is split 80/10/10. Rows whose
    source or target is missing or blank are left out and counted.
    """

    Options = FileOptions

    def __init__(self, reference: str, options: FileOptions) -> None:
        super().__init__(reference, options)
        self.path = Path(reference).expanduser()
        self.prefix = options.prefix
        self.max_source_length = options.max_source_length
        self.max_target_length = options.max_target_length

    @property
    def name(self) -> str:
        """The name of the folder or file."""
        return stem(self.path.resolve())

    def splits(self, seed: int) -> Splits:
        """Read the files, into memory only: no copy of the data is written anywhere."""
        if self.options.split_seed is not None:
            seed = self.options.split_seed
        skipped: Counter[str] = Counter()
        if not self.path.exists():
            raise HarnessError(
                f"There is no file or folder {str(self.path)!r}.",
                "Give a folder with train, eval and test files, or one file, e.g. --task my.jsonl",
            )
        if self.path.is_file():
            rows = self._load("row", self.path, skipped)
            tenth = max(1, round(len(rows) / 10))
            rest, test = _carve(rows, tenth, seed, self.path)
        else:
            files = find_split_files(self.path)
            if missing := [split for split in ("train", "test") if split not in files]:
                raise HarnessError(
                    f"{self.path}: there is no {' and no '.join(missing)} file in this folder.",
                    f"Add {missing[0]}.jsonl (or .json, .csv, .parquet), "
                    "or give one file, which is split 80/10/10.",
                )
            test = self._load("test", files["test"], skipped)
            rest = self._load("train", files["train"], skipped)
            if "eval" in files:
                evaluation = self._load("eval", files["eval"], skipped)
                return Splits(rest, evaluation, test, dict(skipped))
            tenth = max(1, round(len(rest) / 10))
        train, evaluation = _carve(rest, tenth, seed, self.path)
        return Splits(train, evaluation, test, dict(skipped))

    def metrics(self) -> Sequence[Metric]:
        """Return the suite that the options name."""
        from tasks.metrics import dialogue_metrics, summary_metrics

        return summary_metrics() if self.options.suite == "summary" else dialogue_metrics()

    def _load(self, label: str, path: Path, skipped: Counter[str]) -> Dataset:
        """Load a file; ``label`` begins the ids of rows without one."""
        from datasets import Dataset

        table = read_table(path)
        source_column = self._column(table, "source", self.options.target_column)
        target_column = self._column(table, "target", source_column)
        sources = text_column(table, source_column)
        targets = text_column(table, target_column)
        ids = self._ids(table) or [f"{label}-{number}" for number in range(1, len(table) + 1)]
        kept, reasons = usable_pairs(ids, sources, targets)
        if not kept["id"]:
            counts = ", ".join(f"{reason} {count} times" for reason, count in reasons.items())
            raise HarnessError(f"{path}: no row is usable: {counts}.", _hint(table, "source"))
        skipped.update(reasons)
        return Dataset.from_dict(kept)

    def _column(self, table: Table, role: Role, other: str | None) -> str:
        """Return the column that holds a role, which is not the column of the other role."""
        named: str | None = getattr(self.options, f"{role}_column")
        if named is not None:
            _require_column(table, named, role)
            if named == other:
                raise HarnessError(
                    f"{table.path}: column {named!r} cannot be both source and target.",
                    _hint(table, role),
                )
            return named
        guesses = [c for c in table.columns if c.lower() in _NAMES[role] and c != other]
        if len(guesses) == 1:
            return guesses[0]
        problem = (
            f"more than one column could be the {role}: {', '.join(guesses)}"
            if guesses
            else f"no column is obviously the {role}"
        )
        raise HarnessError(f"{table.path}: {problem}.", _hint(table, role))

    def _ids(self, table: Table) -> list[str] | None:
        """Return the ids of the rows, or None where no column holds distinct ones."""
        named = self.options.id_column
        if named is not None:
            _require_column(table, named, "id")
        candidates = [c for c in table.columns if c.lower() in _ID_NAMES] if not named else [named]
        for column in candidates:
            values = table.columns[column]
            if all(type(value) in (int, str) for value in values):
                ids = [str(value) for value in values]
                if len(set(ids)) == len(ids):
                    return ids
            if named:
                # Scores of two systems are paired by id: a repeated one would pair wrong rows.
                raise HarnessError(
                    f"{table.path}: the values of column {named!r} are not distinct ids.",
                    "Leave --id-column out to number the rows, or name a column of distinct texts "
                    "or whole numbers.",
                )
        return None


def _carve(rows: Dataset, count: int, seed: int, path: Path) -> tuple[Dataset, Dataset]:
    """Split ``count`` random rows off; return (the rest, those rows)."""
    if len(rows) <= count:
        raise HarnessError(
            f"{path}: too few usable rows to split.",
            "Give one file of at least 3 usable rows, or a folder with train, eval and test files.",
        )
    parts = rows.train_test_split(test_size=count, seed=seed)
    return parts["train"], parts["test"]


def _require_column(table: Table, name: str, role: str) -> None:
    if name not in table.columns:
        raise HarnessError(f"{table.path}: there is no column {name!r}.", _hint(table, role))


def _hint(table: Table, role: str) -> str:
    return f"Columns: {', '.join(table.columns)}. Choose one with --{role}-column NAME"
