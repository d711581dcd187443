"""``harness score``: scores existing predictions, without the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli import options

if TYPE_CHECKING:
    from harness.api.metric import Score


def score(
    file: Annotated[
        Path,
        typer.Argument(
            help="A table (JSONL, CSV, Parquet, ...) with the columns prediction, reference and, "
            "for SummaC, source; a text file with one prediction per line; or a run's folder."
        ),
    ],
    references: Annotated[
        Path | None,
        typer.Argument(
            help="Text file of references, if the predictions are a text file.", show_default=False
        ),
    ] = None,
    metrics: Annotated[
        str, typer.Option(help="Metrics, separated by commas; harness list metrics shows all.")
    ] = "rouge,bleu,chrf",
    prediction_column: Annotated[
        str, typer.Option(help="Column of the predictions.")
    ] = "prediction",
    reference_column: Annotated[
        str, typer.Option(help="Column of the references; a list is several references.")
    ] = "reference",
    source_column: Annotated[str, typer.Option(help="Column of the sources.")] = "source",
    encoding: options.Encoding = None,
    delimiter: options.Delimiter = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON with the scores of each example.")
    ] = False,
) -> None:
    """Score the predictions of a run, of a table, or of two text files.

    Examples: harness score results/RUN/predictions.jsonl --metrics rouge,bertscore;
    harness score out.csv --prediction-column answer; harness score hypotheses.txt references.txt
    """
    import harness

    scores = harness.score(
        file,
        references,
        metrics=metrics,
        prediction_column=prediction_column,
        reference_column=reference_column,
        source_column=source_column,
        encoding=encoding,
        delimiter=delimiter,
    )
    for note in scores.notes:
        typer.echo(note, err=True)
    if as_json:
        record = {
            **_record(scores.computed, scores.example_count),
            "not_computed": scores.not_computed,
        }
        typer.echo(json.dumps(record, allow_nan=False))
    else:
        _print(scores.computed, scores.example_count)
    by_reason: dict[str, list[str]] = {}
    for name, reason in scores.not_computed.items():
        by_reason.setdefault(reason, []).append(name)
    for reason, names in by_reason.items():
        typer.echo(f"Not computed: {', '.join(names)}. {reason}", err=True)
    if scores.not_computed:
        raise typer.Exit(1)


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
    # Not wrapped by rich, so that a signature can be copied.
    for score in scores.values():
        console.print(score.signature, style="dim", soft_wrap=True, markup=False)


def _interval(score: Score) -> str:
    from harness.statistics.intervals import bootstrap_interval

    if len(score.statistics) < 2:
        return "one example"
    interval = bootstrap_interval(score)
    return f"{interval.low:.2f} to {interval.high:.2f}"
