"""The table over runs that a terminal shows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.markup import escape
from rich.table import Table

from harness.reporting.report import Report
from harness.spec import BASELINE

_METRICS = {"rouge1": "R-1", "rouge2": "R-2", "rougeL": "R-L"}
"""Metric -> heading; a suite's other metrics are in report.json."""

_HEADINGS = ("speed", "95 % CI", "trained", "%", "peak GiB", "of full", *_METRICS.values())


def results_table(reports: Sequence[Report]) -> Table:
    """Lay out runs as the paper lays out its Table 3: a row a recipe, grouped by what it is on.

    Fits 80 columns, so that it can be pasted into an issue or a mail.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), caption_justify="left")
    # The only column that gives way: a long name folds, a number is never cut.
    table.add_column("recipe", overflow="fold")
    for heading in _HEADINGS:
        table.add_column(heading, justify="right", no_wrap=True)
    several_seeds = len({r.seed for r in reports}) > 1
    for task, backbone in sorted({(r.task, r.backbone) for r in reports}):
        table.add_row(f"[bold]{escape(backbone)}[/]")
        table.add_row(f"[bold]{escape(task)}[/]")
        members = [r for r in reports if (r.task, r.backbone) == (task, backbone)]
        for report in sorted(members, key=lambda r: (r.recipe != BASELINE, r.recipe, r.seed)):
            seed = f" s{report.seed}" if several_seeds else ""
            table.add_row(f"{report.recipe}{seed}", *_cells(report))
        table.add_section()
    table.caption = "\n".join(_notes(reports))
    return table


def _cells(report: Report) -> Iterable[str]:
    if report.failure:
        yield f"[red]{report.status}[/]"
        return
    speed, memory, parameters = report.speed, report.memory, report.parameters
    if speed is None or memory is None or parameters is None:
        return
    yield percent(speed.relative)
    yield (
        "-"
        if speed.relative_ci is None
        else "{:.0f}-{:.0f}".format(*(100 * bound for bound in speed.relative_ci))
    )
    yield f"{parameters.trainable:,}"
    yield f"{parameters.trainable_pct_of_original:.2f}"
    yield f"{memory.peak_bytes / 2**30:.2f}"
    yield percent(memory.relative)
    for name in _METRICS:
        yield f"{report.quality[name].value:.2f}" if name in report.quality else "-"


def percent(ratio: float | None) -> str:
    """Write a ratio as the paper does; nothing to write is a dash."""
    return "-" if ratio is None else f"{100 * ratio:.0f} %"


def span(interval: tuple[float, float] | None) -> str:
    """Write an interval of ratios in percent."""
    return "-" if interval is None else f"{100 * interval[0]:.0f}-{100 * interval[1]:.0f}"


def _notes(reports: Sequence[Report]) -> list[str]:
    notes = []
    floors = [r.speed.noise_floor for r in reports if r.speed and r.speed.noise_floor]
    if floors:
        notes.append(
            "speed, of full: full fine-tuning on the same batches is 100 %. Full against full "
            f"differed by {100 * (max(floors) - 1):.0f} % at most."
        )
    tests = sorted({r.data.test for r in reports if r.data and not r.failure})
    if tests:
        notes.append(
            "trained, %: parameters, and their share of the original backbone's. "
            f"R: ROUGE F1 on {' or '.join(map(str, tests))} test examples."
        )
    return notes
