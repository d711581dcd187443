"""Sources: the text of each record that is given to the model, and the adapter it is for."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from harness.data.columns import likely_columns
from harness.data.table import kind_of
from harness.errors import HarnessError
from harness.generation.progress import Progress
from harness.generation.readers import BadRecordError, Reader


@dataclass(frozen=True)
class Fields:
    """Columns that are read and written.

    Attributes:
        source: column of the sources; None means that it is guessed.
        prediction: column of the predictions.
        adapter: column with the names of adapters; None if there is none.
        only_adapter: name of the adapter of all records, if there is no column; None is the model
            without adapters.
    """

    source: str | None = None
    prediction: str = "prediction"
    adapter: str | None = None
    only_adapter: str | None = None


class Source(NamedTuple):
    """The source of a record.

    Attributes:
        values: the columns of the record.
        text: the source.
        adapter: name of an adapter; None is the model without adapters.
    """

    values: dict[str, Any]
    text: str
    adapter: str | None


@dataclass(frozen=True)
class Window:
    """Records that are read together.

    Attributes:
        records: the records in order; None is a bad one.
        errors: (number of the line, reason) of each bad record.
    """

    records: list[Source | None]
    errors: list[tuple[int, str]]

    @property
    def good(self) -> list[Source]:
        """The good records."""
        return [record for record in self.records if record is not None]

    def count(self, progress: Progress) -> None:
        """Add the records to the progress."""
        progress.windows += 1
        progress.records += len(self.records)
        progress.errors += len(self.errors)
        progress.blank += sum(not record.text.strip() for record in self.good)


class SourceFinder:
    """Finds the source of each record.

    Args:
        reader: the input.
        fields: names of columns.
        adapters: names of the adapters that the model has.

    Attributes:
        fields: names of columns.
        column: column of the sources; None until the first record shows it.

    Raises:
        HarnessError: the input lacks a column, or has one with the name of that of predictions.
    """

    def __init__(self, reader: Reader, fields: Fields, adapters: Collection[str]) -> None:
        self._reader, self.fields, self._adapters = reader, fields, adapters
        self.column = fields.source
        if reader.columns is not None:
            self._require_new(reader.columns)
            self.column = self.column or _guess(reader.columns)
            self._require(reader.columns, self.column, "--source-column")
            if fields.adapter is not None:
                self._require(reader.columns, fields.adapter, "--adapter-column")

    def read(self, items: Sequence[tuple[int, Any]]) -> Window:
        """Find the sources of a window.

        Args:
            items: (number of the line, what a reader yields) of each record.
        """
        window = Window([], [])
        for number, item in items:
            try:
                window.records.append(self.find(item))
            except BadRecordError as error:
                window.records.append(None)
                window.errors.append((number, str(error)))
        return window

    def find(self, item: Any) -> Source:
        """Return the source of what a reader yields.

        Raises:
            BadRecordError: it is no record, or has no source.
            HarnessError: the column of the sources cannot be guessed.
        """
        values = self._reader.values(item)
        if self.column is None:
            self._require_new(tuple(values))
            self.column = _guess(tuple(values))
        if self.fields.prediction in values:
            raise BadRecordError(f"has a column {self.fields.prediction!r} already")
        text = self._text(values, self.column)
        if text is None:
            raise BadRecordError(f"column {self.column!r}: null instead of text")
        adapter = self.fields.only_adapter
        if self.fields.adapter is not None:
            # An empty cell of a CSV file stands for null.
            adapter = self._text(values, self.fields.adapter) or None
            if adapter is not None and adapter not in self._adapters:
                raise BadRecordError(f"column {self.fields.adapter!r}: no adapter has this name")
        return Source(values, text, adapter)

    def _text(self, values: dict[str, Any], column: str) -> str | None:
        if column not in values:
            raise BadRecordError(f"has no column {column!r}")
        value = values[column]
        if value is not None and not isinstance(value, str):
            raise BadRecordError(f"column {column!r}: {kind_of(value)} instead of text")
        return value

    def _require(self, columns: Sequence[str], name: str, option: str) -> None:
        if name not in columns:
            raise HarnessError(
                f"The input has no column {name!r}.",
                f"Columns: {', '.join(columns)}. Choose one: {option} NAME",
            )

    def _require_new(self, columns: Sequence[str]) -> None:
        if self.fields.prediction in columns:
            raise HarnessError(
                f"The input has a column {self.fields.prediction!r} already.",
                "Name another one for the predictions: --prediction-column NAME",
            )


def _guess(columns: Sequence[str]) -> str:
    """Return the column whose name fits sources.

    Raises:
        HarnessError: there is none, or several.
    """
    guesses = likely_columns(columns, "source")
    if len(guesses) == 1:
        return guesses[0]
    problem = (
        f"More than one column could be the source: {', '.join(guesses)}."
        if guesses
        else "No column is obviously the source."
    )
    raise HarnessError(problem, f"Columns: {', '.join(columns)}. Choose one: --source-column NAME")
