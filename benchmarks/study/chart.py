"""The chart of the study: quality kept against trained parameters, with the Pareto front."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import altair as alt
import vl_convert

from harness.reporting.pareto import pareto_front
from harness.reporting.summary import Estimate, RecipeRow

INK = "#57606a"
"""Readable on white and on dark pages: the chart has no background of its own."""
WIDTH, HEIGHT = 640, 420


def kept(row: RecipeRow, metric: str) -> Estimate | None:
    """Return the share of full fine-tuning's quality that a recipe keeps; its own is 1."""
    quality = row.quality.get(metric)
    if quality is None or quality.retention is not None:
        return quality.retention if quality else None
    return Estimate(value=1, low=1, high=1) if row.recipe == "full" else None


def front(rows: Sequence[RecipeRow], metric: str) -> set[str]:
    """Return the recipes that no other beats in quality kept and trained parameters."""
    points = {}
    for row in rows:
        share = kept(row, metric)
        if share is not None and row.trainable:
            points[row.recipe] = [share, Estimate(value=-math.log(row.trainable))]
    return pareto_front(points)


def draw(rows: Sequence[RecipeRow], metric: str, title: str) -> str | None:
    """Return an SVG, or None if no recipe was compared.

    Args:
        rows: the recipes.
        metric: name of the metric.
        title: title of the axis of quality.
    """
    best = front(rows, metric)
    points: list[dict[str, Any]] = []
    for row in rows:
        share = kept(row, metric)
        if share is None or not row.trainable:
            continue
        low, high = share.low or share.value, share.high or share.value
        points.append(
            {
                "recipe": row.recipe if row.recipe in best else "",
                "layers": "pruned" if "lprun" in row.recipe.split("+") else "all",
                "trained": row.trainable,
                "kept": 100 * share.value,
                "low": 100 * low,
                "high": 100 * high,
                "front": row.recipe in best,
            }
        )
    if not points:
        return None
    base = alt.Chart(alt.Data(values=points))
    x = alt.X("trained:Q").title("trained parameters").scale(type="log").axis(format="~s")
    y = alt.Y("kept:Q").title(title).scale(zero=False)
    color = alt.Color("layers:N").title("layers").scale(scheme="dark2")
    layers = [
        base.transform_filter("datum.front")
        .mark_line(strokeDash=[4, 3], opacity=0.6, color=INK)
        .encode(x, y, order="trained:Q"),
        base.mark_rule(opacity=0.4).encode(x, alt.Y("low:Q"), alt.Y2("high:Q"), color),
        base.mark_point(filled=True, size=70, opacity=1).encode(
            x, y, color, shape=alt.Shape("front:N").title("on the front")
        ),
        base.mark_text(dy=-12, fontSize=10, color=INK).encode(x, y, text="recipe:N"),
    ]
    chart = alt.layer(*layers).properties(width=WIDTH, height=HEIGHT, background="transparent")
    styled = chart.configure_axis(labelColor=INK, titleColor=INK).configure_legend(
        labelColor=INK, titleColor=INK
    )
    return str(vl_convert.vegalite_to_svg(json.dumps(styled.to_dict())))
