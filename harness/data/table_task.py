"""Tasks on tables of texts: finds the columns, and draws splits that are missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import Field

from harness.api.options import Options
from harness.api.task import Splits, Task
from harness.data.pairs import usable_pairs
from harness.data.table import Table, holds_lists, references_column, text_column
from harness.data.turns import Joining, exchanges, turn_column
from harness.errors import HarnessError

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
_TURNS = {"messages", "conversations", "turns"}
"""Names of columns of dialogues, used if no other column could be the source."""
_ID_NAMES = {"id", "uid", "guid"}
Role = Literal["source", "target"]


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

    def split_tables(self, tables: dict[str, Table], seed: int, place: str) -> Splits:
        """Return three splits; a missing eval or test split is drawn from train.

        Args:
            tables: split -> its table; must have train.
            seed: the run's seed.
            place: origin of the tables, for messages.

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
        # Distinct notes, in order: the files of all splits often have the same one.
        notes = dict.fromkeys(note for table in tables.values() for note in table.notes)
        for split in ("test", "eval"):
            if split not in parts:
                train, parts[split] = _carve(train, tenth, seed, place)
        return Splits(train, parts["eval"], parts["test"], dict(skipped), notes=tuple(notes))

    def _examples(self, label: str, table: Table, skipped: Counter[str]) -> Dataset:
        """Return the usable rows; ids of rows without one begin with ``label``."""
        from datasets import Dataset

        columns = self._texts(table, label)
        ids, sources, targets = (columns.pop(name) for name in ("id", "source", "target"))
        kept, reasons = usable_pairs(ids, sources, targets, columns)
        if not kept["id"]:
            counts = ", ".join(f"{reason} {count} times" for reason, count in reasons.items())
            raise HarnessError(f"{table.path}: no row is usable: {counts}.", _hint(table, "source"))
        skipped.update(reasons)
        return Dataset.from_dict(kept)

    def _texts(self, table: Table, label: str) -> dict[str, list[Any]]:
        """Return the columns id, source and target, and references and cluster if they are
        needed."""
        source_column = self._column(table, "source", self.options.target_column)
        dialogues = holds_lists(table, source_column)
        ids = self._ids(table) or [f"{label}-{number}" for number in range(1, len(table) + 1)]
        if dialogues and not self._has_target(table, source_column):
            return self._answers(table, source_column, ids)
        target_column = self._column(table, "target", source_column)
        columns: dict[str, list[Any]] = {"id": ids}
        if dialogues:
            join = self._joining().text
            turns = turn_column(table, source_column)
            columns["source"] = [None if dialogue is None else join(dialogue) for dialogue in turns]
        else:
            columns["source"] = [*text_column(table, source_column)]
        if not holds_lists(table, target_column):
            return {**columns, "target": [*text_column(table, target_column)]}
        references = references_column(table, target_column)
        columns["target"] = [texts[0] if texts else None for texts in references]
        if any(len(texts) > 1 for texts in references):
            columns["references"] = references
        return columns

    def _has_target(self, table: Table, source_column: str) -> bool:
        """Return whether a column of targets is named or can be guessed."""
        named = self.options.target_column is not None
        return named or bool(likely_columns(table.columns, "target", source_column))

    def _answers(self, table: Table, column: str, ids: list[str]) -> dict[str, list[Any]]:
        """Return the answers of dialogues as targets, and the turns before them as sources."""
        every_answer, joining = self.options.every_answer, self._joining()
        columns: dict[str, list[Any]] = {"id": [], "source": [], "target": [], "cluster": []}
        for identity, turns in zip(ids, turn_column(table, column), strict=True):
            pairs = exchanges(turns or [], joining, every_answer)
            for number, exchange in enumerate(pairs, start=1):
                columns["id"].append(f"{identity}/{number}" if every_answer else identity)
                columns["source"].append(exchange.source)
                columns["target"].append(exchange.answer)
                columns["cluster"].append(identity)
        if not every_answer:
            del columns["cluster"]
        return columns

    def _joining(self) -> Joining:
        options = self.options
        return Joining(
            options.speakers, options.speaker_separator, options.turn_separator, options.answerer
        )

    def _column(self, table: Table, role: Role, other: str | None) -> str:
        """Return the column of a role; it must differ from the column of the other role."""
        named: str | None = getattr(self.options, f"{role}_column")
        if named is not None:
            _require_column(table, named, role)
            if named == other:
                raise HarnessError(
                    f"{table.path}: column {named!r} cannot be both source and target.",
                    _hint(table, role),
                )
            return named
        guesses = likely_columns(table.columns, role, other)
        if len(guesses) == 1:
            return guesses[0]
        problem = (
            f"more than one column could be the {role}: {', '.join(guesses)}"
            if guesses
            else f"no column is obviously the {role}"
        )
        raise HarnessError(f"{table.path}: {problem}.", _hint(table, role))

    def _ids(self, table: Table) -> list[str] | None:
        """Return the ids of the rows, or None if no column holds unique ids."""
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
                    f"{table.path}: the values of column {named!r} are not unique ids.",
                    "Leave --id-column out to number the rows, or name a column of unique texts "
                    "or whole numbers.",
                )
        return None


def likely_columns(names: Iterable[str], role: Role, other: str | None = None) -> list[str]:
    """Return the columns whose names fit a role.

    Args:
        names: names of the columns of a table.
        role: source or target.
        other: the column of the other role.
    """
    known = [name for name in names if name != other]
    columns = [name for name in known if name.lower() in _NAMES[role]]
    if not columns and role == "source":
        columns = [name for name in known if name.lower() in _TURNS]
    return columns


def _carve(rows: Dataset, count: int, seed: int, place: str) -> tuple[Dataset, Dataset]:
    """Draw ``count`` random rows; return (the other rows, the drawn rows)."""
    too_few = HarnessError(
        f"{place}: too few usable rows to split.",
        "Give one file of at least 3 usable rows, or a folder with train, eval and test files.",
    )
    if len(rows) <= count:
        raise too_few
    if "cluster" in rows.column_names:
        taken = _draw_clusters(rows["cluster"], count, seed)
        if all(taken):
            raise too_few
        sides = ([n for n, t in enumerate(taken) if t is side] for side in (False, True))
        rest, drawn = (rows.select(side) for side in sides)
        return rest, drawn
    parts = rows.train_test_split(test_size=count, seed=seed)
    return parts["train"], parts["test"]


def _draw_clusters(clusters: Sequence[str], count: int, seed: int) -> list[bool]:
    """Draw whole clusters until at least ``count`` rows are drawn; return a mask of the rows."""
    import numpy as np

    sizes = Counter(clusters)
    names = list(sizes)
    drawn: set[str] = set()
    rows = 0
    for place in np.random.RandomState(seed).permutation(len(names)):
        if rows >= count:
            break
        drawn.add(names[place])
        rows += sizes[names[place]]
    return [cluster in drawn for cluster in clusters]


def _require_column(table: Table, name: str, role: str) -> None:
    if name not in table.columns:
        raise HarnessError(f"{table.path}: there is no column {name!r}.", _hint(table, role))


def _hint(table: Table, role: str) -> str:
    return f"Columns: {', '.join(table.columns)}. Choose one with --{role}-column NAME"
