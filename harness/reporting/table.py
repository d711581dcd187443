"""Lay out a summary for the terminal, in 80 columns, so that it can be pasted into an e-mail."""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Iterable, Iterator, Sequence

import click

from harness.reporting.inference_row import inference_cells, inference_headings
from harness.reporting.notes import legend
from harness.reporting.process_row import process_cells, process_headings
from harness.reporting.summary import Group, RecipeRow, Summary
from harness.reporting.text_columns import Line, in_columns, printable
from harness.reporting.wording import (
    LEAD_BASELINE,
    ONE_SEED,
    bounds,
    count,
    directed,
    mark,
    memory,
    percent,
    plus_minus,
    reference_lines,
    seeds_left,
    spoken,
)

_FIXED, _METRIC = 42, 7
"""Widths in characters: of recipe, speed, parameters and memory together, and of a metric."""
_RECIPE, _KEPT = 15, 13
"""Widths in the table of quality kept: of the recipe, and of a metric."""


def table(summary: Summary, width: int = 80) -> str:
    """Lay out each group: the answer, costs and metrics, quality kept, decoding, and notes.

    Args:
        summary: the summary to show.
        width: the width of the terminal; metrics that do not fit are named below the table.

    Returns:
        Lines with ANSI styles.
    """
    lines = [line for group in summary.groups for line in _group(group, summary, width)]
    columns = {name for group in summary.groups for name in _shown(group, summary, width)}
    explained = [name for name in summary.metrics if name in columns]
    sentences = [*legend(summary, explained)]
    if any(row.status == "ok" for group in summary.groups for row in group.rows):
        sentences.append("±: half of the 95 % interval.")
    if any(ONE_SEED in line for line in lines):
        sentences.append(f"{ONE_SEED}: of one seed or run, without the spread between several.")
    return "\n".join([*lines, *_dim(sentences, width)]) + "\n"


def _shown(group: Group, summary: Summary, width: int) -> list[str]:
    """Return the metrics that fit the width."""
    return group.scored(summary.metrics)[: max(1, (width - _FIXED) // _METRIC)]


def _group(group: Group, summary: Summary, width: int) -> Iterator[str]:
    present = group.scored(summary.metrics)
    shown = _shown(group, summary, width)
    tests = " or ".join(f"{number:,}" for number in group.test_examples)
    title = printable(group.title)
    title += f", {tests} test examples" if tests else ""
    yield from (click.style(line, bold=True) for line in textwrap.wrap(title, width))
    yield from _wrapped(group.answer, width)
    yield ""
    name_of = functools.partial(directed, group)
    headings = ["recipe", "", "speed", "trained", group.memory_unit, *map(name_of, shown)]
    lines = [Line(headings, bold=True), *_costs(group, shown)]
    yield from in_columns(lines, width)
    room = _KEPT + len(ONE_SEED) * any(len(row.seeds) == 1 for row in group.rows)
    if kept := group.compared(present)[: max(1, (width - _RECIPE) // room)]:
        yield f"quality kept, % of {spoken(group.baseline)}'s:"
        yield from in_columns(
            [Line(["recipe", *map(name_of, kept)], bold=True), *_kept(group, kept)], width
        )
    if above := [name for name in kept if name in group.above_lead_baseline(present)]:
        yield f"quality kept above {LEAD_BASELINE} (the source's first words), %:"
        lines = [
            Line(["recipe", *map(name_of, above)], bold=True),
            *_kept(group, above, above_lead_baseline=True),
        ]
        yield from in_columns(lines, width)
    if decoding := list(_decoding(group)):
        yield "decoding:"
        yield from in_columns(decoding, width)
    if processes := list(_processes(group)):
        yield "several processes:"
        yield from in_columns(processes, width)
    notes = list(group.notes)
    if left := present[len(shown) :]:
        notes.append(f"Not shown for lack of width (see --format json): {', '.join(left)}.")
    yield from _dim(notes, width)
    yield ""


def _costs(group: Group, metrics: Sequence[str]) -> Iterator[Line]:
    for row in group.rows:
        front = "•" if row.on_front else ""
        if row.status != "ok":
            yield Line([row.recipe, "", row.status, "", "", *[""] * len(metrics)], color="red")
        else:
            yield Line([row.recipe, front, *_values(row, group.memory_unit, metrics)])
            seeds = f"  {seeds_left(row)}" if seeds_left(row) else ""
            yield Line([seeds, "", *_spreads(row, metrics)], dim=True)
        for label, cells in reference_lines(row, group.memory_unit, metrics):
            yield Line([f"  {label}", "", *cells], color="cyan")


def _decoding(group: Group) -> Iterator[Line]:
    """Yield the rows of the costs of decoding; none if no row measured them."""
    headings = inference_headings(group)
    if not headings:
        return
    yield Line(["recipe", *headings], bold=True)
    for row in group.rows:
        if row.inference is None:
            continue
        cells = inference_cells(group, row.inference)
        yield Line([row.recipe, *(cell.value for cell in cells)])
        spreads = (cell.more.replace(", 1 seed", ONE_SEED) for cell in cells)
        yield Line(["", *spreads], dim=True)


def _processes(group: Group) -> Iterator[Line]:
    """Yield the rows of the costs of several processes; none if no row measured them."""
    headings = process_headings(group)
    if not headings:
        return
    yield Line(["recipe", *headings], bold=True)
    for row in group.rows:
        if row.process_costs:
            cells = process_cells(group, row)
            yield Line([row.recipe, *(cell.value for cell in cells)])
            yield Line(["", *(cell.more for cell in cells)], dim=True)


def _values(row: RecipeRow, unit: str, metrics: Sequence[str]) -> Iterator[str]:
    yield percent(row.speed.value if row.speed else None)
    yield count(row.trainable)
    yield memory(row.memory_bytes, unit)
    for name in metrics:
        quality = row.quality.get(name)
        yield f"{quality.value.value:.2f}{mark(quality)}" if quality else "-"


def _spreads(row: RecipeRow, metrics: Sequence[str]) -> Iterator[str]:
    yield plus_minus(row.speed, 100, 0, " %")
    yield "" if row.trainable_pct is None else f"{row.trainable_pct:.2f} %"
    yield "" if row.memory_relative is None else percent(row.memory_relative)
    for name in metrics:
        quality = row.quality.get(name)
        yield plus_minus(quality.value, digits=2) if quality else ""


def _kept(
    group: Group, metrics: Sequence[str], above_lead_baseline: bool = False
) -> Iterator[Line]:
    """Yield the rows of quality kept, with intervals."""
    for row in group.rows:
        cells = []
        for name in metrics:
            quality = row.quality.get(name)
            if quality and above_lead_baseline:
                share = quality.retention_above_floor
            else:
                share = quality.retention if quality else None
            if not quality or not share:
                cells.append("-")
            else:
                value = f"{100 * share.value:.1f}{mark(quality)}"
                cells.append(f"{value} {bounds(share, 100, one_seed=ONE_SEED)}")
        if any(cell != "-" for cell in cells):
            yield Line([row.recipe, *cells])


def _dim(sentences: Iterable[str], width: int) -> Iterator[str]:
    for line in _wrapped(sentences, width):
        yield click.style(line, dim=True)


def _wrapped(sentences: Iterable[str], width: int) -> Iterator[str]:
    """Yield the lines of sentences, each of which begins a line."""
    for sentence in sentences:
        yield from textwrap.wrap(printable(sentence), width, break_on_hyphens=False)
