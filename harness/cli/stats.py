"""``harness stats``: statistics of a task's data."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli import options

if TYPE_CHECKING:
    from harness.api.task import Splits
    from harness.data.text_statistics import TextStatistics


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
    from harness.api.plugins import installed
    from harness.data.text_statistics import describe_texts

    named = options.given(
        source_column=source_column,
        target_column=target_column,
        id_column=id_column,
        encoding=encoding,
        delimiter=delimiter,
    )
    chosen = installed().task(task, _options(task, named, settings or []))
    splits = chosen.splits(seed)
    statistics = describe_texts(_pairs(splits))
    cut = _count_cut(backbone, chosen, splits) if backbone else None
    if as_json:
        record = _record(chosen.name, splits, statistics)
        if cut is not None:
            record |= {"cut_sources": cut[0], "cut_targets": cut[1]}
        typer.echo(json.dumps(record, indent=2))
    else:
        _print(chosen.name, splits, statistics, cut)


def _count_cut(backbone: str, task: Any, splits: Splits) -> tuple[int, int]:
    """Return how many sources and how many targets are longer than the task's limits."""
    from harness.api.plugins import installed
    from harness.data.token_cache import tokenize_once

    tokenizer = installed().backbone(backbone).tokenizer()
    parts = [
        tokenize_once(split, tokenizer, task) for split in (splits.train, splits.eval, splits.test)
    ]
    return sum(part.truncated_sources for part in parts), sum(
        part.truncated_targets for part in parts
    )


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


def _rows(splits: Splits) -> dict[str, int]:
    return {"train": len(splits.train), "eval": len(splits.eval), "test": len(splits.test)}


def _pairs(splits: Splits) -> Iterator[tuple[str, str]]:
    from rich.console import Console
    from rich.progress import track

    parts = (splits.train, splits.eval, splits.test)
    rows = (
        pair
        for part in parts
        for batch in part.iter(batch_size=1000)
        for pair in zip(batch["source"], batch["target"], strict=True)
    )
    console = Console(stderr=True)
    total = sum(_rows(splits).values())
    return iter(track(rows, "reading", total, console=console, disable=not console.is_terminal))


def _record(name: str, splits: Splits, statistics: TextStatistics) -> dict[str, Any]:
    return {
        "task": name,
        "rows": _rows(splits),
        "source": {"sentences": statistics.source_sentences, "words": statistics.source_words},
        "target": {"sentences": statistics.target_sentences, "words": statistics.target_words},
        "novel_unigrams_pct": statistics.novel_unigrams_pct,
        "novel_bigrams_pct": statistics.novel_bigrams_pct,
        "skipped": splits.skipped,
        "leakage": splits.leakage,
        **({"notes": list(splits.notes)} if splits.notes else {}),
    }


def _print(
    name: str, splits: Splits, statistics: TextStatistics, cut: tuple[int, int] | None
) -> None:
    from rich.console import Console
    from rich.table import Table

    from harness.records.data_notes import cut_notes, left_out_notes

    table = Table(title=name, title_justify="left", box=None, padding=(0, 2, 0, 0))
    cells = {
        **{split: f"{count:,}" for split, count in _rows(splits).items()},
        "source sents": f"{statistics.source_sentences:.1f}",
        "words": f"{statistics.source_words:.1f}",
        "target sents": f"{statistics.target_sentences:.1f}",
        "words ": f"{statistics.target_words:.1f}",
        "new 1-grams": _percent(statistics.novel_unigrams_pct),
        "2-grams": _percent(statistics.novel_bigrams_pct),
    }
    for heading in cells:
        table.add_column(heading, justify="right")
    table.add_row(*cells.values())
    console = Console(highlight=False)
    console.print(table)
    total = sum(_rows(splits).values())
    notes = [*splits.notes, *left_out_notes(splits.skipped, total)]
    if cut is None:
        notes.append("To count the texts longer than the limits, add --backbone NAME")
    else:
        notes += cut_notes(*cut, total) if any(cut) else ["No text is longer than the limits."]
    for note in notes:
        console.print(note, style="dim", markup=False, soft_wrap=True)
    for kind, count in splits.leakage.items():
        console.print(
            f"{count:,} pairs of sources in different splits are duplicates: {kind}", style="dim"
        )


def _percent(value: float | None) -> str:
    return "none" if value is None else f"{value:.0f} %"
