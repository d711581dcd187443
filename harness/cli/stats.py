"""``harness stats``: statistics of a task's data."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli import options

if TYPE_CHECKING:
    from harness.data.entry import TaskStatistics


def stats(
    task: Annotated[str, typer.Argument(help="Task: a name, or your own file or folder.")],
    source_column: options.SourceColumn = None,
    target_column: options.TargetColumn = None,
    id_column: options.IdColumn = None,
    encoding: options.Encoding = None,
    delimiter: options.Delimiter = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Option of the task, e.g. task_options.path=DIR; repeatable.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the splits, for tasks without fixed splits.")
    ] = 0,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="Also count the texts that are longer than the task's limits, with the tokenizer "
            "of this backbone.",
            show_default=False,
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Show a task's statistics: rows, sentences, words, and new n-grams in the targets.

    Rows are counted per split; means are over all splits.

    Example: harness stats radiology_demo
    """
    from rich.console import Console
    from rich.progress import Progress

    import harness

    named = options.given(
        source_column=source_column,
        target_column=target_column,
        id_column=id_column,
        encoding=encoding,
        delimiter=delimiter,
    )
    chosen = _options(task, named, settings or [])
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as bars:
        bar = bars.add_task("reading")
        statistics = harness.stats(
            task,
            task_options=chosen,
            seed=seed,
            backbone=backbone,
            on_progress=lambda done, total: bars.update(bar, completed=done, total=total),
        )
    if as_json:
        typer.echo(json.dumps(_record(statistics), indent=2))
    else:
        _print(statistics)


def _options(task: str, named: dict[str, str], settings: list[str]) -> dict[str, Any]:
    from harness.errors import HarnessError
    from harness.spec.run_spec import parse_settings

    values = parse_settings(settings)
    if other := sorted(values.keys() - {"task_options"}):
        raise HarnessError(
            f"--set {other[0]}: only options of the task have a meaning here.",
            f"Write --set task_options.NAME=VALUE; see: harness list tasks {task}",
        )
    return {**named, **values.get("task_options", {})}


def _record(statistics: TaskStatistics) -> dict[str, Any]:
    """Return the statistics without notes and counts that there are none of."""
    record = statistics.model_dump(mode="json")
    optional = ("notes", "cut_sources", "cut_targets")
    return {k: v for k, v in record.items() if k not in optional or v not in (None, [])}


def _print(statistics: TaskStatistics) -> None:
    from rich.console import Console
    from rich.table import Table

    from harness.records.data_notes import cut_notes, left_out_notes

    table = Table(title=statistics.task, title_justify="left", box=None, padding=(0, 2, 0, 0))
    cells = {
        **{split: f"{count:,}" for split, count in statistics.rows.items()},
        "source sents": f"{statistics.source.sentences:.1f}",
        "words": f"{statistics.source.words:.1f}",
        "target sents": f"{statistics.target.sentences:.1f}",
        "words ": f"{statistics.target.words:.1f}",
        "new 1-grams": _percent(statistics.novel_unigrams_pct),
        "2-grams": _percent(statistics.novel_bigrams_pct),
    }
    for heading in cells:
        table.add_column(heading, justify="right")
    table.add_row(*cells.values())
    console = Console(highlight=False)
    console.print(table)
    total = sum(statistics.rows.values())
    notes = [*statistics.notes, *left_out_notes(statistics.skipped, total)]
    cut = (statistics.cut_sources or 0, statistics.cut_targets or 0)
    if statistics.cut_sources is None:
        notes.append("To count the texts longer than the limits, add --backbone NAME")
    else:
        notes += cut_notes(*cut, total) if any(cut) else ["No text is longer than the limits."]
    for note in notes:
        console.print(note, style="dim", markup=False, soft_wrap=True)
    for kind, count in statistics.leakage.items():
        console.print(
            f"{count:,} pairs of sources in different splits are duplicates: {kind}", style="dim"
        )


def _percent(value: float | None) -> str:
    return "none" if value is None else f"{value:.0f} %"
