"""Sources of tables: files that are read some thousand rows at a time, and more than once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from harness.data.dialect import Dialect
from harness.data.files import read_pieces
from harness.data.table import Table
from harness.errors import HarnessError


@dataclass(frozen=True)
class TablePart:
    """A file, or several files that are read together.

    Attributes:
        path: the file or folder, for messages.
        files: the files whose contents are the rows.
        pieces: reads the rows from the first on.
    """

    path: Path
    files: tuple[Path, ...]
    pieces: Callable[[], Iterator[Table]]

    @classmethod
    def of_file(cls, path: Path, dialect: Dialect) -> TablePart:
        """Return a data file, or a pair of text files named by the one with the sources."""
        from harness.data.kinds import LINE_PAIRS

        other = (path.with_suffix(LINE_PAIRS[path.suffix]),) if path.suffix in LINE_PAIRS else ()
        return cls(path, (path, *other), lambda: read_pieces(path, dialect))


@dataclass(frozen=True)
class TableSource:
    """The rows of a split.

    Attributes:
        path: the file or folder, for messages.
        parts: the parts in order, such as the shards of a large data set.
    """

    path: Path
    parts: tuple[TablePart, ...]

    @classmethod
    def of_table(cls, table: Table) -> TableSource:
        """Return a table in memory as a source."""
        return cls(table.path, (TablePart(table.path, (), lambda: iter([table])),))

    @property
    def files(self) -> tuple[Path, ...]:
        """The files of all parts."""
        return tuple(file for part in self.parts for file in part.files)

    def read(self) -> Table:
        """Read all rows into memory.

        Raises:
            HarnessError: a file cannot be read, or the parts have different columns.
        """
        tables = [Table.joined(part.path, part.pieces()) for part in self.parts]
        for part, table in zip(self.parts, tables, strict=True):
            self.require_same_columns(part, table.columns, tables[0].columns)
        if len(tables) == 1:
            return replace(tables[0], path=self.path)
        joined = Table.joined(self.path, tables)
        return replace(joined, notes=tables[0].notes)

    def pieces(self, names: Iterable[str]) -> Iterator[Table]:
        """Yield the rows some at a time, numbered over all parts.

        Args:
            names: the columns that each piece gets.
        """
        first_row = 1
        for part in self.parts:
            for piece in part.pieces():
                yield replace(piece.with_columns(names), path=self.path, first_row=first_row)
                first_row += len(piece)

    def require_same_columns(
        self, part: TablePart, names: Iterable[str], expected: Iterable[str]
    ) -> None:
        """Check that a part has the columns of the first part.

        Raises:
            HarnessError: it has others.
        """
        if set(names) != set(expected):
            raise HarnessError(
                f"{part.path}: its columns ({', '.join(names)}) differ from those of "
                f"{self.parts[0].path.name} ({', '.join(expected)}).",
                "All shards of a split must have the same columns.",
            )
