"""Render one self-contained HTML file; data is escaped and never executed."""

from __future__ import annotations

import base64
import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from importlib import resources
from typing import Any

from harness import __version__
from harness.errors import HarnessError
from harness.records.run_folder import StoredRun
from harness.reporting.notes import legend
from harness.reporting.page import contents
from harness.reporting.process_row import cost_cells, cost_headings
from harness.reporting.summary import Group, Summary
from harness.reporting.wording import heading, spoken

_RUNS = 1000
"""Largest number of runs in the list at the end of the page."""


def page(summary: Summary, runs: Sequence[StoredRun]) -> str:
    """Write the report as HTML.

    Args:
        summary: the summary of the runs.
        runs: the runs, for what a summary leaves out: curves, examples and run times.

    Raises:
        HarnessError: a package that the page needs is not installed.
    """
    try:
        import altair  # noqa: F401
        import jinja2
        import vl_convert
    except ImportError as error:
        raise HarnessError(
            f"The HTML report needs the package {error.name}.",
            "Install it: pip install 'seq2seq-harness[html]'",
        ) from error
    by_key = defaultdict(list)
    for run in sorted(runs, key=lambda run: (run.report.recipe, run.report.seed)):
        by_key[run.report.backbone, run.report.task, run.report.settings].append(run)
    charts: list[dict[str, Any]] = []
    examples: list[Any] = []
    left = contents.TOTAL
    sections = []
    for group in summary.groups:
        members = by_key[group.backbone, group.task, group.settings]
        figures = _figures(group, members)
        group_examples = contents.examples(group, members) if left > 0 else []
        left -= len(json.dumps(group_examples))
        sections.append(
            {
                "group": group,
                "title": _title(group, summary),
                "metrics": group.scored(summary.metrics),
                "compared": group.compared(summary.metrics),
                "figures": [
                    {"title": title, "alt": alt, "number": len(charts) + number}
                    for number, (title, alt, _) in enumerate(figures)
                ],
            }
        )
        charts += [spec for _, _, spec in figures]
        if group_examples:
            examples.append({"group": _title(group, summary), "examples": group_examples})
    script = vl_convert.javascript_bundle(_file("page.js")).replace("</script", "<\\/script")
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_file),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.jinja").render(
        summary=summary,
        sections=sections,
        legend=list(legend(summary)),
        runs=runs[:_RUNS],
        all_runs=len(runs),
        limits=contents,
        examples=examples,
        version=__version__,
        style=_file("page.css"),
        script=script,
        script_hash=_hash(script),
        data=_embedded({"charts": charts, "examples": examples}),
        **_wording(),
    )


def _title(group: Group, summary: Summary) -> str:
    """Return the name of a group, with its settings if another group has the same title."""
    is_shared = sum(other.title == group.title for other in summary.groups) > 1
    return f"{group.title}, settings {group.settings or 'unknown'}" if is_shared else group.title


def _figures(group: Group, runs: Sequence[StoredRun]) -> list[tuple[str, str, dict[str, Any]]]:
    """Return title, description and specification of each chart that has data."""
    from harness.reporting.page import charts

    metrics = [name for row in group.rows for name in row.quality]
    metric = group.front_metric or (metrics[0] if metrics else "")
    name = heading(metric)
    losses, scores = contents.curves(runs, metric)
    order = [row.recipe for row in group.rows]
    memory, time = (contents.cost_parts(group, runs, cost) for cost in ("memory", "speed"))
    figures = [
        (
            f"{name} against training speed",
            "Quality and speed of each recipe, with 95 % intervals; better recipes are further up "
            "and to the right. A dashed line joins the Pareto front.",
            charts.tradeoff(group, metric, "speed"),
        ),
        (
            f"{name} against peak memory",
            "Quality and peak memory of each recipe, with 95 % intervals of the quality; better "
            "recipes are further up and to the left. A dashed line joins the Pareto front.",
            charts.tradeoff(group, metric, "memory"),
        ),
        (
            f"{name} against decoding speed",
            "Quality and speed of decoding one text at a time, with 95 % intervals; better recipes "
            "are further up and to the right.",
            charts.tradeoff(group, metric, "decoding"),
        ),
        (
            "Recipes compared with full fine-tuning",
            "Speed and peak memory of each recipe in percent of full fine-tuning's, quality of "
            f"{spoken(group.baseline)}'s; trained parameters in percent of the backbone's.",
            charts.comparison(group, metric),
        ),
        (
            "Training loss",
            "Training loss over optimizer steps, one line per run.",
            charts.curve(losses, "loss, nats per target token"),
        ),
        (
            f"{name} on the eval split",
            "Score on the eval split over optimizer steps, one line per run.",
            charts.curve(scores, name),
        ),
        (
            "Parts of peak memory",
            "Size of the tensors at the peak of a training step, by their purpose.",
            charts.breakdown(memory, order, "GiB"),
        ),
        (
            "Parts of a step's time",
            "Shares of a training step's time.",
            charts.breakdown(time, order, "% of a step"),
        ),
    ]
    return [(title, alt, spec) for title, alt, spec in figures if spec is not None]


def _wording() -> dict[str, Any]:
    from harness.reporting import wording

    names = ("bounds", "count", "directed", "heading", "mark", "memory", "percent", "seeds_left")
    return {
        **{name: getattr(wording, name) for name in (*names, "reference_lines")},
        "cost_cells": cost_cells,
        "cost_headings": cost_headings,
    }


def _file(name: str) -> str:
    return (resources.files("harness.reporting.page") / name).read_text("utf-8")


def _embedded(value: Any) -> str:
    """Write JSON for a script element; it cannot contain markup."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _hash(script: str) -> str:
    """Return the hash of the only script that the page's security policy allows."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
