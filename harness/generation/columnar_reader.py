"""Reading of Parquet and Arrow files by batches of rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.data.table import holds_half_pair, malformed, require_distinct
from harness.errors import HarnessError
from harness.generation.readers import BadRecordError, Reader

_ROWS = 256
"""Rows that are converted at once."""
_BUFFER = 1 << 20


class ColumnarReader(Reader):
    """The rows of a Parquet, Arrow or Feather file.

    Args:
        path: the file.
        kind: parquet or arrow.

    Raises:
        HarnessError: there is no such file, or it is damaged.
    """

    def __init__(self, path: Path, kind: str) -> None:
        import pyarrow

        self.path = path
        self._read_rows = 0
        self._rows: int | None = None
        self._damage = (pyarrow.ArrowException, OSError, ValueError)
        try:
            self._open(kind)
        except FileNotFoundError as error:
            raise HarnessError(f"There is no file {str(path)!r}.", "Check the path.") from error
        except self._damage as error:
            raise malformed(path, f"not a file of {kind} that can be read", str(error)) from error
        names = list(self._schema.names)
        require_distinct(path, names)
        self.columns = tuple(names)

    def _open(self, kind: str) -> None:
        from pyarrow import OSFile, ipc, parquet

        if kind == "parquet":
            # Column chunks are read through a small buffer instead of whole.
            file = parquet.ParquetFile(self.path, pre_buffer=False, buffer_size=_BUFFER)
            self._schema, self._rows = file.schema_arrow, file.metadata.num_rows
            self._batches = file.iter_batches(batch_size=_ROWS)
            return
        with self.path.open("rb") as start:
            in_file = start.read(6) == b"ARROW1"
        source = OSFile(str(self.path))
        reader = ipc.open_file(source) if in_file else ipc.open_stream(source)
        self._schema = reader.schema
        if in_file:
            self._batches = (reader.get_batch(n) for n in range(reader.num_record_batches))
        else:
            self._batches = iter(reader)

    def items(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the rows."""
        try:
            for batch in self._batches:
                # Unlike Parquet, Arrow does not check its bytes.
                batch.validate(full=True)
                for start in range(0, len(batch), _ROWS):
                    for row in batch.slice(start, _ROWS).to_pylist():
                        self._read_rows += 1
                        yield self._read_rows, row
        except self._damage as error:
            place = f"after row {self._read_rows:,}"
            raise malformed(self.path, place, str(error)) from error

    def values(self, item: dict[str, Any]) -> dict[str, Any]:
        """Return the row."""
        if holds_half_pair(item):
            raise BadRecordError("half of a surrogate pair")
        return item

    def content(self, item: dict[str, Any]) -> bytes:
        """Return the row in Python's notation."""
        return repr(item).encode("utf-8", "surrogatepass")

    def share(self) -> float | None:
        """Return the share of the rows that were read."""
        return self._read_rows / self._rows if self._rows else None

    def types(self) -> Any:
        """Return the schema of the file."""
        return self._schema
