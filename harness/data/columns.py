"""Choice of the columns that examples are made of, from an overview of all rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Literal

import numpy as np

from harness.data.table_source import TableSource
from harness.errors import HarnessError

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
_DIGEST_BYTES = 16
Role = Literal["source", "target"]


@dataclass(frozen=True)
class NamedColumns:
    """Columns that the user named; None means that a column is guessed."""

    source: str | None = None
    target: str | None = None
    id: str | None = None


@dataclass(frozen=True)
class Overview:
    """Properties of a table that only all of its rows tell.

    Attributes:
        path: the file or folder, for messages.
        names: names of the columns.
        lists: columns whose first value is a list; the others must then be lists too.
        unique: those of the columns that may hold ids whose values are unique.
        notes: sentences on guesses made while reading.
    """

    path: Path
    names: tuple[str, ...]
    lists: frozenset[str]
    unique: frozenset[str]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class ChosenColumns:
    """Columns that examples are made of.

    Attributes:
        source: column of the sources.
        target: column of the targets; None means that answers of dialogues are the targets.
        id: column of the ids; None means that rows are numbered.
        dialogues: whether the sources are lists of turns.
        references: whether the targets are lists of references.
    """

    source: str
    target: str | None
    id: str | None
    dialogues: bool
    references: bool


class _Ids:
    """Values of a column that may hold ids; their hashes take less memory than they do."""

    def __init__(self) -> None:
        self._digests = bytearray()

    def add(self, values: Iterable[object]) -> None:
        for value in values:
            if type(value) in (int, str):
                text = str(value).encode("utf-8", "surrogatepass")
                self._digests += blake2b(text, digest_size=_DIGEST_BYTES).digest()

    def are_unique(self, rows: int) -> bool:
        """Return whether every row has an id of its own."""
        digests = np.frombuffer(self._digests, f"S{_DIGEST_BYTES}")
        return len(digests) == rows == len(np.unique(digests))


def overview_of(source: TableSource, named_id: str | None) -> Overview:
    """Read all rows once, and keep none of them.

    Args:
        source: the rows.
        named_id: the column of ids that the user named.

    Raises:
        HarnessError: a file is malformed, or the parts have different columns.
    """
    all_names: list[dict[str, None]] = []
    lists: dict[str, bool] = {}
    ids: dict[str, _Ids] = {}
    rows = 0
    notes: tuple[str, ...] = ()
    for part in source.parts:
        names: dict[str, None] = {}
        for piece in part.pieces():
            names |= dict.fromkeys(piece.columns)
            rows += len(piece)
            if not all_names:
                notes = piece.notes
            for name, values in piece.columns.items():
                first = next((value for value in values if value is not None), None)
                if first is not None:
                    lists.setdefault(name, isinstance(first, list))
                if name == named_id or (named_id is None and name.lower() in _ID_NAMES):
                    ids.setdefault(name, _Ids()).add(values)
        all_names.append(names)
        source.require_same_columns(part, names, all_names[0])
    return Overview(
        source.path,
        tuple(all_names[0]),
        frozenset(name for name, is_list in lists.items() if is_list),
        frozenset(name for name, values in ids.items() if values.are_unique(rows)),
        notes,
    )


def choose_columns(overview: Overview, named: NamedColumns) -> ChosenColumns:
    """Choose the columns of sources, targets and ids.

    Args:
        overview: the table.
        named: the columns that the user named.

    Raises:
        HarnessError: a named column is missing, or none or several could be the one.
    """
    source = _column(overview, "source", named.source, named.target)
    identity = _id_column(overview, named.id)
    dialogues = source in overview.lists
    has_target = named.target is not None or likely_columns(overview.names, "target", source)
    if dialogues and not has_target:
        return ChosenColumns(source, None, identity, True, False)
    target = _column(overview, "target", named.target, source)
    return ChosenColumns(source, target, identity, dialogues, target in overview.lists)


def _column(overview: Overview, role: Role, named: str | None, other: str | None) -> str:
    """Return the column of a role; it must differ from the column of the other role."""
    if named is not None:
        _require_column(overview, named, role)
        if named == other:
            raise HarnessError(
                f"{overview.path}: column {named!r} cannot be both source and target.",
                column_hint(overview, role),
            )
        return named
    guesses = likely_columns(overview.names, role, other)
    if len(guesses) == 1:
        return guesses[0]
    problem = (
        f"more than one column could be the {role}: {', '.join(guesses)}"
        if guesses
        else f"no column is obviously the {role}"
    )
    raise HarnessError(f"{overview.path}: {problem}.", column_hint(overview, role))


def _id_column(overview: Overview, named: str | None) -> str | None:
    """Return the column of the ids, or None if no column holds unique ids."""
    if named is None:
        names = (name for name in overview.names if name in overview.unique)
        return next(names, None)
    _require_column(overview, named, "id")
    if named not in overview.unique:
        # Scores of two systems are paired by id: a repeated one would pair wrong rows.
        raise HarnessError(
            f"{overview.path}: the values of column {named!r} are not unique ids.",
            "Leave --id-column out to number the rows, or name a column of unique texts "
            "or whole numbers.",
        )
    return named


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


def _require_column(overview: Overview, name: str, role: str) -> None:
    if name not in overview.names:
        raise HarnessError(
            f"{overview.path}: there is no column {name!r}.", column_hint(overview, role)
        )


def column_hint(overview: Overview, role: str) -> str:
    """Return a hint that lists the columns and the option that names one."""
    return f"Columns: {', '.join(overview.names)}. Choose one with --{role}-column NAME"
