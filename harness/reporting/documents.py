"""Write a summary as Markdown, LaTeX, CSV or the output of a notebook cell."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from html import escape

from harness.records.display import html_table
from harness.reporting.notes import legend
from harness.reporting.process_row import (
    cost_cells,
    cost_headings,
    process_headings,
    process_record,
)
from harness.reporting.summary import Estimate, Group, InferenceRow, RecipeRow, Summary
from harness.reporting.wording import (
    LEAD_BASELINE,
    LESS_IS_BETTER,
    bounds,
    count,
    directed,
    heading,
    mark,
    memory,
    percent,
    reference_lines,
    seeds_left,
)


def markdown(summary: Summary) -> str:
    """Write a table for each group, in GitHub's Markdown."""
    lines = []
    for group in summary.groups:
        metrics = group.scored(summary.metrics)
        lines += [f"## {_markdown(group.backbone)} on {_markdown(group.task)}", ""]
        lines += [_markdown(" ".join(group.answer)), ""]
        headings = _headings(group, metrics)
        lines.append(_bar(map(_markdown, headings)))
        lines.append(_bar(["---", *["---:"] * (len(headings) - 1)]))
        for cells in _lines(group, metrics):
            lines.append(_bar(map(_markdown, cells)))
        lines += ["", *(f"- {_markdown(note)}" for note in group.notes), ""]
    lines += [f"- {_markdown(line)}" for line in legend(summary)]
    return "\n".join(lines).rstrip() + "\n"


def notebook_html(summary: Summary) -> str:
    """Write an HTML table for each group, without styles or scripts.

    Args:
        summary: the summary to show.
    """
    parts = []
    for group in summary.groups:
        metrics = group.scored(summary.metrics)
        lines = _lines(group, metrics)
        parts.append(
            html_table(group.title, lines, _headings(group, metrics), group.notes, group.answer)
        )
    parts.append("".join(f"<small><div>{escape(line)}</div></small>" for line in legend(summary)))
    return "".join(parts)


def latex(summary: Summary) -> str:
    r"""Write a ``table`` for each group, with rules of the package booktabs."""
    lines = [r"% needs \usepackage{booktabs}"]
    for group in summary.groups:
        metrics = group.scored(summary.metrics)
        headings = _headings(group, metrics)
        lines += [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_latex(_caption(group))}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(headings) - 1)}}}",
            r"\toprule",
            " & ".join(map(_latex, headings)) + r" \\",
            r"\midrule",
            *(" & ".join(map(_latex, cells)) + r" \\" for cells in _lines(group, metrics)),
            r"\bottomrule",
            r"\end{tabular}",
            r"\par\footnotesize",
            *(_latex(note) + r"\\" for note in [*group.notes, *legend(summary)]),
            r"\end{table}",
        ]
    return "\n".join(lines) + "\n"


def _caption(group: Group) -> str:
    return " ".join([f"{group.title}.", *group.answer])


def table_csv(summary: Summary) -> str:
    """Write a line for each recipe, with plain numbers: ratios, bytes, percent for metrics."""
    has_inference = any(group.has_inference for group in summary.groups)
    has_processes = any(process_headings(group) for group in summary.groups)
    rows = [
        _record(group, row, summary, has_inference) | (process_record(row) if has_processes else {})
        for group in summary.groups
        for row in group.rows
    ]
    fields = list(dict.fromkeys(field for row in rows for field in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, fields, lineterminator="\n")
    writer.writeheader()
    writer.writerows({field: _cell(value) for field, value in row.items()} for row in rows)
    return text.getvalue()


def _headings(group: Group, metrics: Sequence[str]) -> list[str]:
    names = [directed(group, name) for name in metrics]
    kept = [f"{heading(name)} kept" for name in group.compared(metrics)]
    above = [
        f"{heading(name)} kept above {LEAD_BASELINE}" for name in group.above_lead_baseline(metrics)
    ]
    unit = f"peak {group.memory_unit}"
    costs = cost_headings(group)
    return ["recipe", "front", "speed", "trained", unit, *names, *kept, *above, *costs]


def _lines(group: Group, metrics: Sequence[str]) -> Iterable[list[str]]:
    kept, above = group.compared(metrics), group.above_lead_baseline(metrics)
    others = len(kept) + len(above) + len(cost_headings(group))
    unit = group.memory_unit
    for row in group.rows:
        cells = [_with(row.recipe, seeds_left(row)), "•" if row.on_front else ""]
        if row.status == "ok":
            cells += [*_values(row, unit, metrics), *_shares(row, kept, above)]
            cells += [_with(c.value, c.more) for c in cost_cells(group, row)]
        else:
            cells += [row.status] + [""] * (2 + len(metrics) + others)
        yield cells
        for label, values in reference_lines(row, unit, metrics):
            yield [label, "", *values, *[""] * others]


def _values(row: RecipeRow, unit: str, metrics: Sequence[str]) -> list[str]:
    share = "" if row.trainable_pct is None else f"{row.trainable_pct:.2f} %"
    of_full = "" if row.memory_relative is None else percent(row.memory_relative)
    cells = [
        _with(percent(row.speed.value if row.speed else None), bounds(row.speed, 100)),
        _with(count(row.trainable), share),
        _with(memory(row.memory_bytes, unit), of_full),
    ]
    for name in metrics:
        quality = row.quality.get(name)
        if quality:
            value = f"{quality.value.value:.2f}{mark(quality)}"
            cells.append(_with(value, bounds(quality.value, digits=2)))
        else:
            cells.append("-")
    return cells


def _shares(row: RecipeRow, kept: Sequence[str], above: Sequence[str]) -> Iterable[str]:
    """Yield the quality kept by each metric, then the same above the lead baseline."""
    quality = row.quality
    shares = [quality[name].retention if name in quality else None for name in kept]
    shares += [quality[name].retention_above_floor if name in quality else None for name in above]
    for share in shares:
        yield _with(percent(share.value, 1), bounds(share, 100, 1)) if share else ""


def _with(value: str, more: str) -> str:
    return f"{value} ({more})" if more else value


def _record(
    group: Group, row: RecipeRow, summary: Summary, has_inference: bool
) -> dict[str, object]:
    record: dict[str, object] = {
        "backbone": group.backbone,
        "task": group.task,
        "settings": group.settings,
        "recipe": row.recipe,
        "status": row.status,
        "seeds": " ".join(map(str, row.seeds)),
        "folders": " ".join(row.folders),
        "failures": "; ".join(f"seed {seed}: {how}" for seed, how in row.failures.items()),
        **_flat("speed", row.speed),
        "tokens_per_s": row.tokens_per_s,
        "trainable": row.trainable,
        "trainable_pct": row.trainable_pct,
        "memory_bytes": row.memory_bytes,
        "memory_relative": row.memory_relative,
        "on_front": row.on_front,
        **(_inference_record(row.inference) if has_inference else {}),
    }
    for name in summary.metrics:
        quality = row.quality.get(name)
        record |= _flat(name, quality.value if quality else None)
        record |= _flat(f"{name}_retention", quality.retention if quality else None)
        record[f"{name}_floor"] = quality.floor if quality else None
        above = quality.retention_above_floor if quality else None
        record |= _flat(f"{name}_retention_above_floor", above)
        record[f"{name}_p"] = quality.p_value if quality else None
    if summary.compared_with:
        reference = row.reference
        record["reference_speed"] = reference.speed if reference else None
        record["reference_trainable"] = reference.trainable if reference else None
        record["reference_memory_bytes"] = reference.memory_bytes if reference else None
        for name in summary.metrics:
            record[f"reference_{name}"] = reference.quality.get(name) if reference else None
    return record


def _inference_record(row: InferenceRow | None) -> dict[str, object]:
    record: dict[str, object] = {}
    for name in InferenceRow.model_fields:
        value = getattr(row, name, None)
        if name in ("latency", "throughput"):
            record |= _flat(f"inference_{name}", value)
        elif name != "not_measured":
            record[f"inference_{name}"] = value
    return record


def _flat(name: str, estimate: Estimate | None) -> dict[str, object]:
    return {
        name: estimate.value if estimate else None,
        f"{name}_low": estimate.low if estimate else None,
        f"{name}_high": estimate.high if estimate else None,
        f"{name}_seeds": estimate.seeds if estimate else None,
    }


def _cell(value: object) -> object:
    """Quote a text that a spreadsheet would run as a formula."""
    dangerous = isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r"))
    return f"'{value}" if dangerous else value


def _bar(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown(text: str) -> str:
    """Escape markup of Markdown and of HTML in it."""
    escaped = re.sub(r"([\\`*_{}\[\]#|~])", r"\\\1", text.replace("\n", " "))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


_LATEX = {
    "\\": r"\textbackslash{}",
    "•": r"$\bullet$",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    LESS_IS_BETTER: r"$\downarrow$",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


def _latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text.replace("\n", " "))
