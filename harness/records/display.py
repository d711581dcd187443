"""A report as HTML, for the output of a notebook cell."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.records.report import Report


def html_table(
    title: str,
    rows: Iterable[Sequence[str]],
    headings: Sequence[str] = (),
    notes: Iterable[str] = (),
    answer: Iterable[str] = (),
) -> str:
    """Return an HTML table in which all text is escaped.

    Args:
        title: is written above the table.
        rows: the cells, row by row.
        headings: the names of the columns; a table without them has no header.
        notes: are written below the table, one line each.
        answer: is written between the title and the table, one line for each sentence.
    """
    head = f"<thead>{_row(headings, 'th')}</thead>" if headings else ""
    body = "".join(_row(cells, "td") for cells in rows)
    lines = "".join(f"<div>{escape(note)}</div>" for note in notes)
    above = "".join(f"<div>{escape(sentence)}</div>" for sentence in answer)
    return (
        f"<div><strong>{escape(title)}</strong>{above}"
        f"<table>{head}<tbody>{body}</tbody></table><small>{lines}</small></div>"
    )


def report_html(report: Report) -> str:
    """Return the numbers of a report that are compared between runs, as HTML.

    Args:
        report: of a run that ended in any way.
    """
    title = f"{report.recipe} on {report.backbone}, {report.task}, seed {report.seed}"
    notes = []
    if report.failure:
        title += f": {report.status}"
        notes.append(f"In the phase {report.failure.phase!r}: {report.failure.message}")
    notes += [f"{name} was not computed: {why}" for name, why in report.not_computed.items()]
    return html_table(title, facts(report), notes=notes)


def facts(report: Report) -> Iterator[tuple[str, str]]:
    """Yield name and text of each headline number that a report has.

    Args:
        report: of a run that ended in any way.
    """
    if speed := report.speed:
        interval = speed.relative_ci
        bounds = f" (95 % interval {interval[0]:.2f} to {interval[1]:.2f})" if interval else ""
        relative = f", {speed.relative:.2f} x full fine-tuning{bounds}" if speed.relative else ""
        yield "training speed", f"{speed.tokens_per_s:,.0f} tokens/s{relative}"
    if parameters := report.parameters:
        share = parameters.trainable_pct_of_original
        yield "trained parameters", f"{parameters.trainable:,} ({share:.2f} % of the original)"
    if memory := report.memory:
        relative = f", {100 * memory.relative:.0f} % of full fine-tuning" if memory.relative else ""
        yield "peak memory", f"{memory.peak_bytes / 2**30:.2f} GiB{relative}"
    if inference := report.inference:
        latency, interval = inference.latency, inference.latency.relative_ci
        bounds = f" (95 % interval {interval[0]:.2f} to {interval[1]:.2f})" if interval else ""
        relative = (
            f", {latency.relative:.2f} x full fine-tuning{bounds}" if latency.relative else ""
        )
        yield "decoding, batch 1", f"{1000 * latency.median_seconds:.3g} ms{relative}"
    for name, value in report.quality.items():
        bounds = f" (95 % interval {value.ci[0]:.2f} to {value.ci[1]:.2f})" if value.ci else ""
        yield name, f"{value.value:.2f}{bounds}"


def _row(cells: Iterable[str], tag: str) -> str:
    return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"
