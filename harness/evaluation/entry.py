"""Scoring from Python: ``harness.score``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from harness.api.metric import Metric
from harness.api.parts import split_parts
from harness.api.plugins import installed
from harness.data.dialect import Dialect
from harness.errors import HarnessError
from harness.evaluation import scoring
from harness.evaluation.prediction_files import Fields, read_any_predictions
from harness.evaluation.predictions import PredictionRow, Reference
from harness.evaluation.scoring import Scores
from harness.records.run_folder import PREDICTIONS, find_runs

Texts = str | Path | Sequence[str]
"""A file, or a list of texts."""


def score(
    predictions: Texts,
    references: str | Path | Sequence[Reference] | None = None,
    *,
    sources: Sequence[str] | None = None,
    metrics: str | Iterable[str] = ("rouge", "bleu", "chrf"),
    prediction_column: str = "prediction",
    reference_column: str = "reference",
    source_column: str = "source",
    encoding: str | None = None,
    delimiter: str | None = None,
) -> Scores:
    """Score predictions that exist already.

    Args:
        predictions: a list of texts; a table (JSONL, CSV, Parquet, ...); a text file with one
            prediction per line; or the folder of a run.
        references: a list with the reference, or the list of references, of each prediction; or,
            for a text file of predictions, the text file of their references.
        sources: for a list of predictions, the text that each was made from; SummaC needs it.
        metrics: names of metrics with their options, as a list or separated by commas.
        prediction_column: the column of predictions in a table.
        reference_column: the column of references in a table; a list holds several.
        source_column: the column of sources in a table.
        encoding: the encoding of text files; by default UTF-8.
        delimiter: the delimiter between the cells of CSV files; by default guessed.

    Returns:
        The scores; a notebook shows them as a table. ``computed["rouge1"].value`` is a corpus value
        and ``computed["rouge1"].examples`` holds the value of each example.

    Raises:
        HarnessError: an unknown metric, a file or column that is missing, or no metric that can be
            computed.

    Example:
        >>> harness.score(["a cat"], ["the cat"], metrics="rouge").computed["rouge1"].value
    """
    names = split_parts(metrics) if isinstance(metrics, str) else metrics
    chosen = scoring.named_metrics(names, installed().metrics)
    if isinstance(predictions, str | Path):
        fields = Fields(prediction_column, reference_column, source_column)
        dialect = Dialect(encoding, delimiter)
        rows, notes = _rows_of_file(Path(predictions), references, fields, dialect)
        place = str(predictions)
    else:
        rows, notes, place = _rows(predictions, references, sources), (), "The predictions"
    _check_sources(chosen, rows, place)
    scores = scoring.score(chosen.values(), rows)
    if not scores.computed:
        name, reason = next(iter(scores.not_computed.items()))
        raise HarnessError(f"{name} cannot be computed.", reason)
    scores.notes.extend(notes)
    return scores


def _rows_of_file(
    file: Path,
    references: str | Path | Sequence[Reference] | None,
    fields: Fields,
    dialect: Dialect,
) -> tuple[list[PredictionRow], tuple[str, ...]]:
    if not (references is None or isinstance(references, str | Path)):
        raise HarnessError(
            f"The predictions are a file, {str(file)!r}, and the references are a list.",
            "Give two files or two lists.",
        )
    return read_any_predictions(
        _predictions_in(file) if file.is_dir() else file,
        None if references is None else Path(references),
        fields,
        dialect,
    )


def _rows(
    predictions: Sequence[str],
    references: str | Path | Sequence[Reference] | None,
    sources: Sequence[str] | None,
) -> list[PredictionRow]:
    if references is None or isinstance(references, str | Path):
        raise HarnessError(
            "The predictions are a list, and the references are not.", "Give two lists."
        )
    source_texts = [None] * len(predictions) if sources is None else sources
    if not predictions or not len(predictions) == len(references) == len(source_texts):
        raise HarnessError(
            f"There are {len(predictions):,} predictions, {len(references):,} references and "
            f"{'no' if sources is None else f'{len(source_texts):,}'} sources.",
            "Give a reference for each prediction, and a source for each or for none.",
        )
    columns = zip(predictions, references, source_texts, strict=True)
    return [PredictionRow(number, *row) for number, row in enumerate(columns, start=1)]


def _check_sources(metrics: dict[str, Metric], rows: Sequence[PredictionRow], place: str) -> None:
    """Raise an error if a metric needs a source that a row does not have."""
    bare = next((row.line for row in rows if row.source is None), None)
    for name, metric in metrics.items():
        if metric.needs_sources and bare is not None:
            raise HarnessError(
                f"{place}, line {bare}: {name} needs the field source.",
                f"Add the field to every line, name another (--source-column), or leave {name} "
                "out of --metrics.",
            )


def _predictions_in(folder: Path) -> Path:
    """Return the predictions of the one run that a folder is or holds, at any depth.

    Raises:
        HarnessError: it holds no run, or several.
    """
    runs = list(find_runs(folder))
    if not runs:
        raise HarnessError(f"The folder {str(folder)!r} holds no run.", "Name a file.")
    if len(runs) > 1:
        raise HarnessError(
            f"The folder {str(folder)!r} holds {len(runs)} runs.",
            f"Name one: harness score {runs[0]}",
        )
    return runs[0] / PREDICTIONS
