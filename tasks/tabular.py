"""Tables of texts as a task: which columns hold what, and splits that are not there are made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, TypeVar

from pydantic import Field

from harness import HarnessError, Metric, Options, Splits, Table, Task, text_column
from tasks.pairs import usable_pairs

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


class TableOptions(Options):
    """Options of a task on tables of texts, whatever they are called."""

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


OptionsT = TypeVar("OptionsT", bound=TableOptions)


class TableTask(Task[OptionsT]):
    """Rows with a column of sources and one of targets.

    Rows whose source or target is missing or blank are left out and counted.
    """

    def __init__(self, reference: str, options: OptionsT) -> None:
        super().__init__(reference, options)
        self.prefix = options.prefix
        self.max_source_length = options.max_source_length
        self.max_target_length = options.max_target_length

    def metrics(self) -> Sequence[Metric]:
        """Return the suite that the options name."""
        from tasks.metrics import dialogue_metrics, summary_metrics

        return summary_metrics() if self.options.suite == "summary" else dialogue_metrics()

    def _splits(self, tables: dict[str, Table], seed: int, place: str) -> Splits:
        """Return three splits; an eval or test split that is missing is taken from train.

        Args:
            tables: split -> its table; train is there.
            seed: the run's.
            place: where they are from, for messages.

        Raises:
            HarnessError: no usable row, unclear columns, or too few rows to split.
        """
        if self.options.split_seed is not None:
            seed = self.options.split_seed
        skipped: Counter[str] = Counter()
        alone = len(tables) == 1
        parts = {
            split: self._examples("row" if alone else split, table, skipped)
            for split, table in tables.items()
        }
        train = parts["train"]
        tenth = max(1, round(len(train) / 10))
        # A set, but in order: the files of all splits look alike.
        notes = dict.fromkeys(note for table in tables.values() for note in table.notes)
        for split in ("test", "eval"):
            if split not in parts:
                train, parts[split] = _carve(train, tenth, seed, place)
        return Splits(train, parts["eval"], parts["test"], dict(skipped), notes=tuple(notes))

    def _examples(self, label: str, table: Table, skipped: Counter[str]) -> Dataset:
        """Return the usable rows; ``label`` begins the ids of rows without one."""
        from datasets import Dataset

        source_column = self._column(table, "source", self.options.target_column)
        target_column = self._column(table, "target", source_column)
        sources = text_column(table, source_column)
        targets = text_column(table, target_column)
        ids = self._ids(table) or [f"{label}-{number}" for number in range(1, len(table) + 1)]
        kept, reasons = usable_pairs(ids, sources, targets)
        if not kept["id"]:
            counts = ", ".join(f"{reason} {count} times" for reason, count in reasons.items())
            raise HarnessError(f"{table.path}: no row is usable: {counts}.", _hint(table, "source"))
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


def _carve(rows: Dataset, count: int, seed: int, place: str) -> tuple[Dataset, Dataset]:
    """Split ``count`` random rows off; return (the rest, those rows)."""
    if len(rows) <= count:
        raise HarnessError(
            f"{place}: too few usable rows to split.",
            "Give one file of at least 3 usable rows, or a folder with train, eval and test files.",
        )
    parts = rows.train_test_split(test_size=count, seed=seed)
    return parts["train"], parts["test"]


def _require_column(table: Table, name: str, role: str) -> None:
    if name not in table.columns:
        raise HarnessError(f"{table.path}: there is no column {name!r}.", _hint(table, role))


def _hint(table: Table, role: str) -> str:
    return f"Columns: {', '.join(table.columns)}. Choose one with --{role}-column NAME"
