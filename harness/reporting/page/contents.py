"""Collect the data of the page's charts and examples: learning curves, costs, predictions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from harness.errors import HarnessError
from harness.records.run_folder import HISTORY, StoredRun
from harness.reporting.scores import read_prediction_rows
from harness.reporting.summary import Group

POINTS = 150
"""Largest number of points of a learning curve."""
CURVES = 24
"""Largest number of runs of a group whose learning curves are drawn."""
EXAMPLES = 40
"""Largest number of embedded test examples of a group, spread evenly over the split."""
RECIPES = 12
"""Largest number of recipes of a group whose predictions are embedded."""
CHARACTERS = 4000
"""Length in characters after which an embedded text is truncated."""
TOTAL = 8_000_000
"""Total length of embedded examples after which groups have none."""

_GIB = 2**30

Rows = list[dict[str, Any]]


def curves(runs: Sequence[StoredRun], metric: str) -> tuple[Rows, Rows]:
    """Return the training losses and the eval split's scores over optimizer steps.

    Args:
        runs: the runs of a group.
        metric: the name of the metric of the scores.
    """
    losses, scores = [], []
    for run in runs[:CURVES]:
        report = run.report
        steps = list(_history(run.folder / HISTORY))
        name = {"recipe": report.recipe, "seed": str(report.seed)}
        run_losses = [(row["step"], row["loss"]) for row in steps if _is_number(row.get("loss"))]
        evals = [(row["step"], row["eval"]) for row in steps if isinstance(row.get("eval"), dict)]
        run_scores = [
            (step, values[metric]) for step, values in evals if _is_number(values.get(metric))
        ]
        losses += [{**name, "step": step, "value": value} for step, value in _thin(run_losses)]
        scores += [{**name, "step": step, "value": value} for step, value in _thin(run_scores)]
    return losses, scores


def cost_parts(group: Group, runs: Sequence[StoredRun], cost: str) -> Rows:
    """Return the parts of a cost, from one run of each recipe.

    Args:
        group: the group.
        runs: the runs of the group.
        cost: ``memory``, in GiB, or ``speed``, in percent of a step.
    """
    rows = []
    for run in first_runs(group, runs):
        measured = run.report.memory if cost == "memory" else run.report.speed
        parts = measured.parts if measured else None
        if parts is None:
            continue
        values = parts.model_dump()
        scale = 1 / _GIB if cost == "memory" else 100 / (sum(values.values()) or 1)
        rows += [
            {"recipe": run.report.recipe, "part": part, "value": scale * value, "place": place}
            for place, (part, value) in enumerate(values.items())
        ]
    return rows


def examples(group: Group, runs: Sequence[StoredRun]) -> Rows:
    """Return test examples, each with the predictions of all recipes and their scores.

    Args:
        group: the group.
        runs: the runs of the group.
    """
    by_id: dict[str, dict[str, Any]] = {}
    for run in first_runs(group, runs)[:RECIPES]:
        try:
            rows = read_prediction_rows(run.folder)
        except HarnessError:
            continue
        if not any("prediction" in row for row in rows):
            continue  # Its texts were not kept.
        if not by_id:
            step = max(1, len(rows) // EXAMPLES)
            for row in rows[::step][:EXAMPLES]:
                by_id[str(row["id"])] = {
                    "id": str(row["id"]),
                    "source": _truncated(row.get("source")),
                    "reference": _truncated(row.get("reference")),
                    "predictions": [],
                }
        for row in rows:
            if example := by_id.get(str(row["id"])):
                scores = row.get("scores")
                example["predictions"].append(
                    {
                        "recipe": run.report.recipe,
                        "seed": run.report.seed,
                        "text": _truncated(row.get("prediction")),
                        "scores": scores if isinstance(scores, dict) else {},
                    }
                )
    return list(by_id.values())


def first_runs(group: Group, runs: Sequence[StoredRun]) -> list[StoredRun]:
    """Return one good run of each recipe: that of its first seed."""
    by_id = {run.report.id: run for run in runs}
    return [by_id[row.runs[0]] for row in group.rows if row.runs]


def _history(path: Any) -> Iterator[dict[str, Any]]:
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and _is_number(row.get("step")):
            yield row


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and abs(value) < float("inf")


def _thin(points: Sequence[tuple[Any, Any]]) -> Sequence[tuple[Any, Any]]:
    """Return at most ``POINTS`` points, with the last one."""
    step = -(-len(points) // POINTS) or 1
    return points[::-1][::step][::-1]


def _truncated(text: object) -> str:
    if isinstance(text, list):  # Several references of one example.
        text = "\n".join(map(str, text))
    shown = text if isinstance(text, str) else ""
    return shown if len(shown) <= CHARACTERS else shown[:CHARACTERS] + " … [cut]"
