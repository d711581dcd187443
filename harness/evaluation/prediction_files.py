"""Reading of predictions from JSON lines, tables of any kind, and pairs of text files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.data.dialect import Dialect
from harness.data.files import read_lines, read_table
from harness.data.kinds import DATA_SUFFIXES
from harness.data.table import Table, holds_lists, references_column, text_column
from harness.errors import HarnessError
from harness.evaluation.predictions import PredictionRow, Reference, read_predictions


@dataclass(frozen=True)
class Fields:
    """The names of the columns of a table, or of the fields of JSON lines.

    Attributes:
        prediction: holds the predictions.
        reference: holds the references.
        source: holds the sources; it need not exist.
    """

    prediction: str = "prediction"
    reference: str = "reference"
    source: str = "source"


_USUAL = Fields()
_UTF8 = Dialect()


def read_any_predictions(
    path: Path,
    references: Path | None = None,
    fields: Fields = _USUAL,
    dialect: Dialect = _UTF8,
) -> tuple[list[PredictionRow], tuple[str, ...]]:
    """Read predictions with their references.

    Args:
        path: JSON lines, a table of any kind, or (together with a file of references) a text file
            with a prediction on each line.
        references: a text file with a reference on each line, or None if ``path`` holds them.
        fields: the names of the columns.
        dialect: encoding, separator and sheet of the files, where they are not detected.

    Returns:
        (the rows, notes on what was detected)

    Raises:
        HarnessError: a file is missing, malformed or empty, or lacks a column.
    """
    if references is not None:
        return _from_lines(path, references, dialect), ()
    tabular = path.name.endswith(DATA_SUFFIXES) and not path.name.endswith((".jsonl", ".json"))
    if tabular or dialect.encoding is not None or path.name.endswith(".json"):
        table = read_table(path, dialect)
        return _from_table(table, fields), table.notes
    try:
        return read_predictions(path, fields.prediction, fields.reference, fields.source), ()
    except HarnessError as error:
        if path.suffix != ".txt":
            raise
        raise HarnessError(
            error.message,
            "A text file with a prediction on each line needs a second one with a reference on "
            f"each line: harness score {path} REFERENCES",
        ) from error


def _from_lines(path: Path, references: Path, dialect: Dialect) -> list[PredictionRow]:
    for file in (path, references):
        if file.name.endswith(DATA_SUFFIXES):
            raise HarnessError(
                f"{file} is a table: of two files each must be text, with one text on each line.",
                "Or give one table with both columns: harness score FILE --prediction-column NAME "
                "--reference-column NAME",
            )
    predicted, expected = read_lines(path, dialect), read_lines(references, dialect)
    if len(predicted) != len(expected):
        raise HarnessError(
            f"{path} has {len(predicted):,} lines, and {references} has {len(expected):,}.",
            "Line N of one file must belong to line N of the other.",
        )
    if not predicted:
        raise HarnessError(f"{path} holds no predictions.", "Write one prediction on each line.")
    pairs = enumerate(zip(predicted, expected, strict=True), start=1)
    return [PredictionRow(number, text, reference, None) for number, (text, reference) in pairs]


def _from_table(table: Table, fields: Fields) -> list[PredictionRow]:
    for role, name in (("prediction", fields.prediction), ("reference", fields.reference)):
        if name not in table.columns:
            raise HarnessError(
                f"{table.path}: there is no column {name!r}.",
                f"Columns: {', '.join(table.columns)}. Choose one with --{role}-column NAME",
            )
    predictions = _complete(table, fields.prediction)
    references: list[Reference] = (
        _several(table, fields.reference)
        if holds_lists(table, fields.reference)
        else [*_complete(table, fields.reference)]
    )
    absent: list[str | None] = [None] * len(table)
    sources = text_column(table, fields.source) if fields.source in table.columns else absent
    clusters = text_column(table, "cluster") if "cluster" in table.columns else absent
    rows = zip(predictions, references, sources, clusters, strict=True)
    return [PredictionRow(number, *row) for number, row in enumerate(rows, start=1)]


def _complete(table: Table, name: str) -> list[str]:
    """Return a column of texts, none of which is missing; a text may be empty."""
    texts: list[str] = []
    for number, text in enumerate(text_column(table, name), start=1):
        if text is None:
            raise HarnessError(
                f"{table.path}: row {number}, column {name!r} is empty.",
                'Every row needs a text there, which may be "". Or remove the row.',
            )
        texts.append(text)
    return texts


def _several(table: Table, name: str) -> list[Reference]:
    references: list[Reference] = []
    for number, texts in enumerate(references_column(table, name), start=1):
        if not texts:
            raise HarnessError(f"{table.path}: row {number}, column {name!r} holds no reference.")
        references.append(texts if len(texts) > 1 else texts[0])
    return references
