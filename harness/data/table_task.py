"""Tasks on tables of texts: finds the columns, and draws splits that are missing."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from harness.api.options import Options
from harness.api.task import Splits, Task
from harness.data.column_values import column_values
from harness.data.columns import (
    NamedColumns,
    choose_columns,
    column_hint,
    overview_of,
)
from harness.data.dialect import Dialect
from harness.data.example_texts import example_texts
from harness.data.folders import dataset_source, folder_sources
from harness.data.pairs import usable_pairs
from harness.data.stored_examples import (
    Piece,
    StoredExamples,
    is_large,
    memory_note,
    store_examples,
)
from harness.data.table import Table
from harness.data.table_source import TablePart, TableSource
from harness.data.turns import Joining
from harness.errors import HarnessError

if TYPE_CHECKING:
    from datasets import Dataset


class TableOptions(Options):
    """Options of a task on tables of texts."""

    source_column: str | None = None
    """Column of the sources; guessed if one name is obvious."""
    target_column: str | None = None
    """Column of the targets; guessed if one name is obvious."""
    id_column: str | None = None
    """Column of unique ids; by default a column named id, or else split and row number."""
    prefix: str = ""
    """Text before every source, such as "summarize: " for T5."""
    max_source_length: int = Field(512, ge=1)
    """Longest source in tokens; longer ones are truncated and counted."""
    max_target_length: int = Field(128, ge=1)
    """Longest target in tokens; longer ones are truncated in training and counted."""
    speakers: dict[str, str] = Field(default_factory=dict)
    """Labels of the speakers of a dialogue, for example speakers.user=Patient. An empty label
    leaves the speaker out. By default the names in the data."""
    speaker_separator: str = ": "
    """Text between the label of a turn and its text."""
    turn_separator: str = "\n"
    """Text between the turns of a dialogue."""
    answerer: str | None = None
    """Speaker whose turns are the answers, if no column holds the targets. By default assistant,
    gpt, chatgpt, bot or model, or else the last speaker."""
    every_answer: bool = False
    """Make one example per answer of a dialogue instead of one for the last answer. All examples of
    a dialogue are in one split, and bootstrap intervals draw whole dialogues."""
    split_seed: int | None = Field(None, ge=0)
    """Seed of splits that are drawn; by default the run's seed. Set it if runs with several seeds
    are to share one test set."""


OptionsT = TypeVar("OptionsT", bound=TableOptions)
_NOT_OF_TEXTS = ("prefix", "max_source_length", "max_target_length", "split_seed", "suite")
"""Options that do not change the texts of examples."""


class TableTask(Task[OptionsT]):
    """Base class of tasks on rows with a column of sources and a column of targets.

    Rows with a missing or blank source or target are left out and counted. A subclass reads the
    tables, calls ``split_tables`` and returns its metrics.
    """

    def __init__(self, reference: str, options: OptionsT) -> None:
        super().__init__(reference, options)
        self.prefix = options.prefix
        self.max_source_length = options.max_source_length
        self.max_target_length = options.max_target_length

    def split_files(self, path: Path, dialect: Dialect, seed: int) -> Splits:
        """Return three splits of a folder or of one file.

        Large files are read into memory only if no folder is named where their texts can be kept.

        Args:
            path: a folder with a file for each split, or one file.
            dialect: encoding, delimiter and sheet of the files.
            seed: the run's seed.

        Raises:
            HarnessError: a file is missing or malformed, or see ``split_tables``.
        """
        if path.is_dir():
            sources = folder_sources(path, dialect)
        else:
            sources = {"train": TableSource(path, (TablePart.of_file(path, dialect),))}
        return self._split_sources(sources, astuple(dialect), seed, str(path))

    def split_datasets(self, datasets: Mapping[str, Dataset], seed: int, place: str) -> Splits:
        """Return three splits of opened data sets; large ones are treated as large files.

        Args:
            datasets: split -> its data set; must have train.
            seed: the run's seed.
            place: origin of the data sets, for messages.

        Raises:
            HarnessError: see ``split_tables``.
        """
        sources = {name: dataset_source(Path(place), name, rows) for name, rows in datasets.items()}
        return self._split_sources(sources, (), seed, place)

    def _split_sources(
        self, sources: Mapping[str, TableSource], settings: Sequence[object], seed: int, place: str
    ) -> Splits:
        """Return three splits; other values of the settings give other texts."""
        if not is_large(sources):
            return self._splits(self._in_memory(sources), seed, place)
        options = self.options.model_dump(mode="json", exclude=set(_NOT_OF_TEXTS))
        text = json.dumps([options, settings], sort_keys=True)
        examples = store_examples(sources, text, partial(self._pieces, sources))
        if examples is None:
            examples = self._in_memory(sources)
            examples.notes.append(memory_note(sources))
        return self._splits(examples, seed, place)

    def split_tables(self, tables: dict[str, Table], seed: int, place: str) -> Splits:
        """Return three splits; a missing eval or test split is drawn from train.

        Args:
            tables: split -> its table; must have train.
            seed: the run's seed.
            place: origin of the tables, for messages.

        Raises:
            HarnessError: no usable row, unclear columns, or too few rows to split.
        """
        sources = {split: TableSource.of_table(table) for split, table in tables.items()}
        return self._splits(self._in_memory(sources), seed, place)

    def _splits(self, examples: StoredExamples, seed: int, place: str) -> Splits:
        if self.options.split_seed is not None:
            seed = self.options.split_seed
        parts = dict(examples.parts)
        train = parts["train"]
        tenth = max(1, round(len(train) / 10))
        for split in ("test", "eval"):
            if split not in parts:
                train, parts[split] = _carve(train, tenth, seed, place)
        # Distinct notes, in order: the files of all splits often have the same one.
        notes = tuple(dict.fromkeys(examples.notes))
        return Splits(train, parts["eval"], parts["test"], dict(examples.skipped), notes=notes)

    def _in_memory(self, sources: Mapping[str, TableSource]) -> StoredExamples:
        """Read whole tables, and return their usable rows."""
        from datasets import Dataset

        examples = StoredExamples({}, Counter(), [])
        for split, source in sources.items():
            # Read once: the pieces of a table in memory cost nothing.
            table = TableSource.of_table(source.read())
            kept: dict[str, list[Any]] = {}
            several = False
            for piece in self._pieces({**sources, split: table}, split):
                for name, values in piece.columns.items():
                    kept.setdefault(name, []).extend(values)
                examples.skipped.update(piece.reasons)
                examples.notes.extend(piece.notes)
                several |= piece.several_references
            if not several:
                kept.pop("references", None)
            examples.parts[split] = Dataset.from_dict(kept)
        return examples

    def _pieces(self, sources: Mapping[str, TableSource], split: str) -> Iterator[Piece]:
        """Yield the usable rows of a split, some thousand at a time.

        Raises:
            HarnessError: there is none, or a value is not text.
        """
        source, options = sources[split], self.options
        overview = overview_of(source, options.id_column)
        named = NamedColumns(options.source_column, options.target_column, options.id_column)
        chosen = choose_columns(overview, named)
        label = "row" if len(sources) == 1 else split
        reasons: Counter[str] = Counter()
        usable = 0
        for table in source.pieces(overview.names):
            columns = example_texts(table, chosen, label, self._joining(), options.every_answer)
            several = any(len(texts) > 1 for texts in columns.get("references", ()))
            ids, texts, targets = (columns.pop(name) for name in ("id", "source", "target"))
            kept, left_out = usable_pairs(ids, texts, targets, columns)
            usable += len(kept["id"])
            reasons += left_out
            yield Piece(kept, left_out, overview.notes, several)
        if not usable:
            counts = ", ".join(f"{reason} {count} times" for reason, count in reasons.items())
            raise HarnessError(
                f"{overview.path}: no row is usable: {counts}.", column_hint(overview, "source")
            )

    def _joining(self) -> Joining:
        options = self.options
        return Joining(
            options.speakers, options.speaker_separator, options.turn_separator, options.answerer
        )


def _carve(rows: Dataset, count: int, seed: int, place: str) -> tuple[Dataset, Dataset]:
    """Draw ``count`` random rows; return (the other rows, the drawn rows)."""
    too_few = HarnessError(
        f"{place}: too few usable rows to split.",
        "Give one file of at least 3 usable rows, or a folder with train, eval and test files.",
    )
    if len(rows) <= count:
        raise too_few
    if "cluster" in rows.column_names:
        taken = _draw_clusters(column_values(rows, "cluster"), count, seed)
        if taken.all():
            raise too_few
        sides = np.flatnonzero(~taken), np.flatnonzero(taken)
    else:
        # The rows that Dataset.train_test_split draws, which would write files beside the data.
        order = np.random.default_rng(seed).permutation(len(rows))
        sides = order[count:], order[:count]
    rest, drawn = (rows.select(side, keep_in_memory=True) for side in sides)
    return rest, drawn


def _draw_clusters(clusters: Iterable[str], count: int, seed: int) -> NDArray[np.bool_]:
    """Draw whole clusters until at least ``count`` rows are drawn; return a mask of the rows."""
    numbers: dict[str, int] = {}
    members = np.array([numbers.setdefault(name, len(numbers)) for name in clusters], np.int64)
    sizes = np.bincount(members)
    order = np.random.RandomState(seed).permutation(len(sizes))
    before = np.cumsum(sizes[order]) - sizes[order]
    drawn = np.zeros(len(sizes), np.bool_)
    drawn[order[before < count]] = True
    mask: NDArray[np.bool_] = drawn[members]
    return mask
