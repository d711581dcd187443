"""Writing of Parquet files: a part for each window, merged in constant memory at the end."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.generation.cells import as_text
from harness.generation.writers import Row, Writer


class ParquetWriter(Writer):
    """Parts that become the row groups of one file.

    A column that holds values of several types becomes text: texts stay as they are, other values
    are written as JSON.

    Args:
        folder: folder of the parts; it need not exist.
        types: pyarrow schema of the columns of the input; None if it has none.
    """

    def __init__(self, folder: Path, types: Any = None) -> None:
        self._folder = folder
        self._types = types

    def append(self, rows: Sequence[Row | None]) -> None:
        """Write a part."""
        good = [row for row in rows if row is not None]
        self._folder.mkdir(exist_ok=True)
        path = self._part(self.position)
        temporary = path.with_suffix(".tmp")
        self._write(temporary, good)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        self.position += 1

    def _part(self, number: int) -> Path:
        return self._folder / f"{number:09}.parquet"

    def _write(self, path: Path, rows: Sequence[Row]) -> None:
        import pyarrow
        from pyarrow import parquet

        names = list(dict.fromkeys(name for row in rows for name in row))
        columns = {name: self._column(name, [row.get(name) for row in rows]) for name in names}
        try:
            parquet.write_table(pyarrow.table(columns), path)
        except pyarrow.ArrowException:  # Parquet lacks some nested types, such as empty ones.
            flat = {
                name: _texts(column.to_pylist()) if pyarrow.types.is_nested(column.type) else column
                for name, column in columns.items()
            }
            parquet.write_table(pyarrow.table(flat), path)

    def _column(self, name: str, values: list[Any]) -> Any:
        known = self._types is not None and name in self._types.names
        return _array(values, self._types.field(name).type if known else None)

    def rewind(self, position: int) -> None:
        """Remove the parts after a position."""
        for path in self._folder.glob("*"):
            if path.suffix != ".parquet" or int(path.stem) >= position:
                path.unlink()
        self.position = position

    def finish(self, path: Path, columns: Sequence[str]) -> tuple[str, ...]:
        """Merge the parts, one at a time."""
        import pyarrow
        from pyarrow import parquet

        parts = [self._part(number) for number in range(self.position)]
        types = self._initial_types(columns)
        for part in parts:
            for field in parquet.read_schema(part):
                types[field.name] = _common(types.get(field.name, field.type), field.type)
        schema = pyarrow.schema([(name, types.get(name, pyarrow.null())) for name in columns])
        changed: set[str] = set()
        with parquet.ParquetWriter(path, schema) as writer:
            for part in parts:
                table = parquet.read_table(part, partitioning=None)
                if len(table):
                    writer.write_table(_fitted(table, schema, changed))
        return tuple(
            f"The column {name!r} holds values of several types, so it became text."
            for name in sorted(changed)
        )

    def _initial_types(self, columns: Sequence[str]) -> dict[str, Any]:
        """Return the types of the input, which a part without values does not know."""
        if self._types is None:
            return {}
        return {field.name: field.type for field in self._types if field.name in columns}


def _array(values: list[Any], kind: Any = None) -> Any:
    """Return an Arrow array of a type, by default the one that fits, or else of texts."""
    import pyarrow

    try:
        return pyarrow.array(values, kind)
    # OverflowError: whole numbers of more than 64 bits.
    except (pyarrow.ArrowException, OverflowError, TypeError, ValueError):
        return _texts(values)


def _texts(values: list[Any]) -> Any:
    import pyarrow

    return pyarrow.array([as_text(value) for value in values], pyarrow.string())


def _common(one: Any, other: Any) -> Any:
    """Return a type that holds the values of two types; text if there is no other."""
    import pyarrow

    if one == other:
        return one
    pair = [pyarrow.schema([("column", kind)]) for kind in (one, other)]
    try:
        return pyarrow.unify_schemas(pair, promote_options="permissive").field("column").type
    except pyarrow.ArrowException:
        return pyarrow.string()


def _fitted(table: Any, schema: Any, changed: set[str]) -> Any:
    """Return a table with the columns and types of a schema.

    Args:
        table: the rows of a part.
        schema: the schema of the whole file.
        changed: names of columns whose values became text; new ones are added.
    """
    import pyarrow

    columns = []
    for field in schema:
        if field.name not in table.column_names:
            columns.append(pyarrow.nulls(len(table), field.type))
            continue
        column = table.column(field.name)
        if column.type != field.type:
            if pyarrow.types.is_string(field.type) and column.null_count < len(column):
                changed.add(field.name)
                column = _texts(column.to_pylist())
            else:
                column = pyarrow.array(column.to_pylist(), field.type)
        columns.append(column)
    return pyarrow.table(columns, schema=schema)
