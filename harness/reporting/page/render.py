"""Putting the page together: one file, nothing fetched, nothing from data obeyed."""

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
from harness.reporting.summary import Group, Summary
from harness.reporting.wording import heading

_RUNS = 1000
"""Runs that the list at the end holds."""


def page(summary: Summary, runs: Sequence[StoredRun]) -> str:
    """Write the report as HTML.

    Args:
        summary: of the runs.
        runs: for what a summary leaves out: curves, examples, fingerprints.

    Raises:
        HarnessError: the packages that it takes are not installed.
    """
    try:
        import altair  # noqa: F401
        import jinja2
        import vl_convert
    except ImportError as error:
        raise HarnessError(
            f"The HTML report needs the package {error.name}.",
            "Install what it takes: pip install 'seq2seq-harness[html]'",
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
        found = contents.examples(group, members) if left > 0 else []
        left -= len(json.dumps(found))
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
        if found:
            examples.append({"group": _title(group, summary), "examples": found})
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
    """Name a group, with its settings where its title alone would not tell it from another."""
    alike = sum(other.title == group.title for other in summary.groups) > 1
    return f"{group.title}, settings {group.settings or 'unknown'}" if alike else group.title


def _figures(group: Group, runs: Sequence[StoredRun]) -> list[tuple[str, str, dict[str, Any]]]:
    """Return title, description and specification of each chart that there are data for."""
    from harness.reporting.page import charts

    had = [name for row in group.rows for name in row.quality]
    metric = group.front_metric or (had[0] if had else "")
    name = heading(metric)
    losses, scores = contents.curves(runs, metric)
    order = [row.recipe for row in group.rows]
    memory, time = (contents.parts(group, runs, of) for of in ("memory", "speed"))
    made = [
        (
            f"{name} against training speed",
            "Each recipe's quality over its speed, with 95 % intervals; a dashed line joins the "
            "Pareto front. The numbers are in the table.",
            charts.tradeoff(group, metric, "speed"),
        ),
        (
            f"{name} against peak memory",
            "Each recipe's quality over its peak memory, with 95 % intervals. The numbers are in "
            "the table.",
            charts.tradeoff(group, metric, "memory"),
        ),
        (
            "Methods beside full fine-tuning",
            "Speed, trained parameters, memory and quality of each recipe in percent of full "
            "fine-tuning's. The numbers are in the table.",
            charts.comparison(group, metric),
        ),
        (
            "Training loss",
            "The loss over optimizer steps, one line a run.",
            charts.curve(losses, "loss, nats per target token"),
        ),
        (
            f"{name} on the eval split",
            "The eval split's score over optimizer steps, one line a run.",
            charts.curve(scores, name),
        ),
        (
            "What memory is taken by",
            "Bytes of tensors at the peak of a training step, by what they are for.",
            charts.breakdown(memory, order, "GiB"),
        ),
        (
            "What a step's time goes to",
            "Shares of the time of a training step.",
            charts.breakdown(time, order, "% of a step"),
        ),
    ]
    return [(title, alt, spec) for title, alt, spec in made if spec is not None]


def _wording() -> dict[str, Any]:
    from harness.reporting import wording

    names = ("bounds", "count", "directed", "heading", "mark", "memory", "percent", "seeds_left")
    return {name: getattr(wording, name) for name in (*names, "reference_lines")}


def _file(name: str) -> str:
    return (resources.files("harness.reporting.page") / name).read_text("utf-8")


def _embedded(value: Any) -> str:
    """Write JSON that can stand in a script element: no markup can begin or end in it."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _hash(script: str) -> str:
    """Return the hash by which the page's policy lets this script, and no other, run."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
