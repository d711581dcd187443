"""``harness score``: score predictions that exist already; no backbone is needed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from harness.errors import HarnessError

if TYPE_CHECKING:
    from harness.metric import Metric, Score


class Row(NamedTuple):
    """One line of a file of predictions."""

    line: int
    prediction: str
    reference: str
    source: str | None


def score(
    file: Annotated[
        Path,
        typer.Argument(help="JSONL with the fields prediction, reference and, for SummaC, source."),
    ],
    metrics: Annotated[
        str, typer.Option(help="Names with commas; harness list metrics shows all.")
    ] = "rouge,bleu,chrf",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, with the values of each example.")
    ] = False,
) -> None:
    """Score a file of predictions, such as a run's predictions.jsonl.

    Example: harness score results/RUN/predictions.jsonl --metrics rouge,bertscore
    """
    chosen = _metrics(metrics)
    rows = read_predictions(file)
    for name, metric in chosen.items():
        bare = next((row.line for row in rows if row.source is None), None)
        if metric.needs_sources and bare is not None:
            raise HarnessError(
                f"{file}, line {bare}: {name} needs the field source.",
                f"Add the field to every line, or leave {name} out of --metrics.",
            )
    scores: dict[str, Score] = {}
    for metric in chosen.values():
        scores |= metric.score(
            [row.source or "" for row in rows],
            [row.prediction for row in rows],
            [row.reference for row in rows],
        )
    if as_json:
        typer.echo(json.dumps(_record(scores, len(rows)), allow_nan=False))
    else:
        _print(scores, len(rows))


def read_predictions(path: Path) -> list[Row]:
    """Read a JSONL file of predictions; blank lines do not count, further fields are ignored.

    Raises:
        HarnessError: the file is missing, empty or malformed; the message names the line.
    """
    rows = []
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    rows.append(_row(line, number, path))
    except OSError as error:
        raise HarnessError(f"{path} cannot be read: {error.strerror}.") from error
    if not rows:
        raise HarnessError(
            f"{path} holds no predictions.",
            'Each line is an object: {"prediction": "...", "reference": "..."}',
        )
    return rows


def _row(line: bytes, number: int, path: Path) -> Row:
    place = f"{path}, line {number}"
    try:
        record = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise HarnessError(f"{place}: not UTF-8 text ({error.reason}).") from error
    except (ValueError, RecursionError) as error:
        raise HarnessError(f"{place}: not JSON ({error}).") from error
    if not isinstance(record, dict):
        raise HarnessError(
            f"{place}: a {type(record).__name__} where an object belongs.",
            'Each line is an object: {"prediction": "...", "reference": "..."}',
        )
    source = None
    if record.get("source") is not None:
        source = _text(record, "source", place)
    return Row(
        number, _text(record, "prediction", place), _text(record, "reference", place), source
    )


def _text(record: dict[str, Any], field: str, place: str) -> str:
    if field not in record:
        raise HarnessError(
            f"{place}: the field {field} is missing.",
            f"Fields of this line: {', '.join(map(repr, record)) or 'none'}.",
        )
    value = record[field]
    if not isinstance(value, str):
        raise HarnessError(f"{place}: the field {field} holds {value!r:.40}, which is not text.")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise HarnessError(
            f"{place}: the field {field} holds half of a surrogate pair, which is no character."
        ) from error
    return value


def _metrics(names: str) -> dict[str, Metric]:
    """Build the metrics that are asked for; any that cannot be computed is an error."""
    from harness.plugins import installed

    chosen: dict[str, Metric] = {}
    for name in dict.fromkeys(name.strip() for name in names.split(",") if name.strip()):
        metric: Metric = installed().metrics.find(name).load()()
        if reason := metric.unavailable():
            raise HarnessError(f"{name} cannot be computed.", reason)
        chosen[name] = metric
    if not chosen:
        raise HarnessError("--metrics names no metric.", "See: harness list metrics")
    return chosen


def _record(scores: dict[str, Score], count: int) -> dict[str, Any]:
    return {
        "corpus": {name: score.value for name, score in scores.items()},
        "examples": [
            {name: score.examples[index] for name, score in scores.items()}
            for index in range(count)
        ],
    }


def _print(scores: dict[str, Score], count: int) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), title=f"{count:,} examples")
    table.title_justify = "left"
    table.add_column("metric", no_wrap=True)
    table.add_column("value", justify="right")
    table.add_column("95 % interval", justify="right", no_wrap=True)
    for name, score in scores.items():
        table.add_row(name, f"{score.value:.2f}", _interval(score))
    console = Console(highlight=False)
    console.print(table)
    console.print()
    # Never wrapped by rich: a signature must survive copying.
    for score in scores.values():
        console.print(score.signature, style="dim", soft_wrap=True, markup=False)


def _interval(score: Score) -> str:
    from harness.statistics import bootstrap_interval

    if len(score.examples) < 2:
        return "one example"
    interval = bootstrap_interval(score)
    return f"{interval.low:.2f} to {interval.high:.2f}"
