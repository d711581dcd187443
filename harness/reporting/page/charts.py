"""The charts of the page, as Vega-Lite specifications.

Text from data or names is only ever a value in the rows. In a field name or an expression it could
be executed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import altair as alt

from harness.reporting.summary import Estimate, Group, RecipeRow
from harness.reporting.wording import UNITS, heading
from harness.spec.run_spec import BASELINE

Spec = dict[str, Any]

_HEIGHT = 300
_WIDTH = 420
"""Approximate size of a plot's inside in pixels; the real width follows the window."""
_LETTER, _LINE = 7, 13
"""Width of a letter and height of a line of a point's name, in pixels."""
_ABOVE, _BELOW = -12, 16
"""Vertical offsets of a name from its point, in pixels."""
_FRONT = {True: "on the front", False: "not on the front", None: "not known"}


def tradeoff(group: Group, metric: str, against: str) -> Spec | None:
    """Plot quality against a cost, with intervals and the Pareto front.

    Args:
        group: the group.
        metric: the name of the quality's metric.
        against: the cost: ``speed``, ``memory`` or ``decoding``.

    Returns:
        The specification, or None if no recipe has both numbers.
    """
    rows = _points(group, metric, against)
    if not rows:
        return None
    _place_names(rows)
    title = {
        "speed": "speed, % of full",
        "memory": f"peak memory, {group.memory_unit}",
        "decoding": "decoding speed, % of full",
    }[against]
    x_axis = alt.X("x:Q").title(title).scale(zero=False, padding=44)
    quality_title = heading(metric) + ", less is better" * group.less_is_better(metric)
    y_axis = alt.Y("y:Q").title(quality_title).scale(zero=False, padding=12)
    color = alt.Color("recipe:N").legend(None)
    base = alt.Chart(_data(rows))
    has_front = any(row["front"] == _FRONT[True] for row in rows)
    below = alt.Legend(orient="bottom", title="Pareto", symbolFillColor="currentColor")
    line = (
        base.transform_filter(f"datum.front == '{_FRONT[True]}'")
        .mark_line(strokeDash=[4, 3], opacity=0.6, color="currentColor")
        .encode(x_axis, y_axis, order="x:Q")
    )
    layers = [
        *([line] if has_front else []),
        base.mark_rule(opacity=0.5).encode(x_axis, alt.Y("y_low:Q"), alt.Y2("y_high:Q"), color),
        base.mark_rule(opacity=0.5).encode(alt.X("x_low:Q"), y_axis, alt.X2("x_high:Q"), color),
        base.mark_point(filled=True, size=90, opacity=1).encode(
            x_axis,
            y_axis,
            color,
            shape=alt.Shape("front:N", legend=below if has_front else None),
            tooltip=_tooltip(
                recipe="recipe",
                front="Pareto front",
                x=title,
                y=heading(metric),
                y_low="lower bound",
                y_high="upper bound",
            ),
        ),
        base.mark_text(dy=alt.expr("datum.name_dy"), fontSize=11, color="currentColor").encode(
            x_axis, y_axis, text="recipe:N"
        ),
    ]
    return _spec(alt.layer(*layers), _HEIGHT)


def _points(group: Group, metric: str, against: str) -> list[Spec]:
    """Return the points of a trade-off."""
    rows = []
    unit = group.memory_unit
    # A front of other costs would be a line through points that it does not compare.
    has_front_of_cost = (against == "decoding") == (group.front == "inference")
    for row in group.rows:
        quality = row.quality.get(metric)
        x = _cost(row, against, unit)
        if quality is None or x is None:
            continue
        value = quality.value
        rows.append(
            {
                "recipe": row.recipe,
                **{f"x{end}": bound for end, bound in zip(("", "_low", "_high"), x, strict=True)},
                "y": value.value,
                "y_low": value.value if value.low is None else value.low,
                "y_high": value.value if value.high is None else value.high,
                "front": _FRONT[row.on_front if has_front_of_cost else None],
            }
        )
    return rows


def _cost(row: RecipeRow, against: str, unit: str) -> tuple[float, float, float] | None:
    if against == "memory":
        return _size(row.memory_bytes, unit)
    if against == "speed":
        return _percent(row.speed)
    return _percent(row.inference.latency if row.inference else None)


def _place_names(rows: Sequence[Spec]) -> None:
    """Place each name above its point, or below if it would cover another name."""
    x_span, y_span = (
        max(row[f"{axis}_high"] for row in rows) - min(row[f"{axis}_low"] for row in rows) or 1
        for axis in "xy"
    )
    placed: list[tuple[float, float, float]] = []

    def is_free(x: float, y: float, width: float) -> bool:
        return all(
            abs(x - other_x) > (width + other_width) / 2 or abs(y - other_y) > _LINE
            for other_x, other_y, other_width in placed
        )

    for row in sorted(rows, key=lambda row: -float(row["y"])):
        width = _LETTER * len(row["recipe"])
        x, y = row["x"] / x_span * _WIDTH, -row["y"] / y_span * _HEIGHT
        above, below = ((x, y + dy, width) for dy in (_ABOVE, _BELOW))
        goes_below = is_free(*below) and not is_free(*above)
        row["name_dy"] = _BELOW if goes_below else _ABOVE
        placed.append(below if goes_below else above)


def comparison(group: Group, metric: str) -> Spec | None:
    """Plot each recipe's costs and quality in percent of full fine-tuning's or the baseline's.

    Args:
        group: the group.
        metric: the name of the quality's metric.

    Returns:
        The specification, or None if there are no numbers.
    """
    of = "" if group.baseline == BASELINE else f" of {group.baseline}'s"
    kept = f"{heading(metric)} kept{of}"
    rows = []
    for row in group.rows:
        measures = [("training speed", _percent(row.speed))]
        if row.trainable_pct is not None:
            measures.append(("trained parameters", (row.trainable_pct,) * 3))
        if row.memory_relative is not None:
            measures.append(("peak memory", (100 * row.memory_relative,) * 3))
        if metric in row.quality:
            measures.append((kept, _percent(row.quality[metric].retention)))
        for measure, value in measures:
            if value is not None:
                x, low, high = value
                rows.append(
                    {"recipe": row.recipe, "measure": measure, "x": x, "low": low, "high": high}
                )
    if not rows:
        return None
    order = [row.recipe for row in group.rows]
    base = alt.Chart(_data(rows))
    x_axis = alt.X("x:Q").title("% of full fine-tuning (parameters: of the backbone)")
    y_axis = alt.Y("recipe:N").title(None).sort(order).axis(grid=True, labelLimit=200)
    below = alt.Legend(orient="bottom", columns=2, title=None)
    color = alt.Color("measure:N", legend=below)
    layers = [
        alt.Chart(_data([{"x": 100}]))
        .mark_rule(strokeDash=[4, 3], color="currentColor")
        .encode(x="x:Q"),
        base.mark_rule(strokeWidth=2).encode(
            alt.X("low:Q"), alt.X2("high:Q"), y_axis, color, yOffset="measure:N"
        ),
        base.mark_point(filled=True, size=70, opacity=1).encode(
            x_axis,
            y_axis,
            color,
            shape=alt.Shape("measure:N", legend=None),
            yOffset="measure:N",
            tooltip=_tooltip(recipe="recipe", measure="measure", x="%", low="from", high="to"),
        ),
    ]
    return _spec(alt.layer(*layers), max(160, 46 * len(order)))


def curve(rows: Sequence[Spec], title: str) -> Spec | None:
    """Plot a quantity over optimizer steps, one line per run.

    Args:
        rows: the points, each with ``recipe``, ``seed``, ``step`` and ``value``.
        title: the name of the quantity.
    """
    if not rows:
        return None
    chart = (
        alt.Chart(_data(rows))
        .mark_line(point={"size": 16}, opacity=0.85)
        .encode(
            alt.X("step:Q").title("optimizer step").axis(tickMinStep=1, format="d"),
            alt.Y("value:Q").title(title).scale(zero=False),
            alt.Color("recipe:N").title(None).legend(orient="bottom", columns=2, labelLimit=200),
            detail="seed:N",
            tooltip=_tooltip(recipe="recipe", seed="seed", step="step", value=title),
        )
    )
    return _spec(chart, _HEIGHT)


def breakdown(rows: Sequence[Spec], order: Sequence[str], title: str) -> Spec | None:
    """Plot the parts of a total, one bar per recipe.

    Args:
        rows: the parts, each with ``recipe``, ``part``, ``value`` and ``place``.
        order: the recipes from top to bottom.
        title: the name of the value, with its unit.
    """
    if not rows:
        return None
    parts = list(dict.fromkeys(row["part"] for row in rows))
    chart = (
        alt.Chart(_data(rows))
        .mark_bar()
        .encode(
            alt.X("value:Q").title(title),
            alt.Y("recipe:N").title(None).sort(order).axis(labelLimit=200),
            alt.Color("part:N").title(None).sort(parts).legend(orient="bottom", columns=3),
            order="place:Q",
            tooltip=_tooltip(recipe="recipe", part="part", value=title),
        )
    )
    return _spec(chart, max(120, 34 * len(order)))


def _data(rows: Sequence[Spec]) -> Any:
    return alt.Data(values=list(rows))


def _tooltip(**titles: str) -> list[alt.Tooltip]:
    numeric = {"x", "y", "y_low", "y_high", "low", "high", "value", "step"}
    return [
        alt.Tooltip(f"{field}:Q", title=title, format=".4~g")
        if field in numeric
        else alt.Tooltip(f"{field}:N", title=title)
        for field, title in titles.items()
    ]


def _spec(chart: Any, height: int) -> Spec:
    """Return the specification, in the colours of the page."""
    ink = "currentColor"
    text = {"labelColor": ink, "titleColor": ink, "labelFontSize": 12, "titleFontSize": 12}
    lines = {"domainColor": ink, "tickColor": ink, "gridColor": ink, "gridOpacity": 0.12}
    spec: Spec = (
        chart.properties(width="container", height=height, background="transparent")
        .configure(font="system-ui, sans-serif")
        .configure_axis(**text, **lines)
        .configure_legend(**text)
        .configure_view(stroke=None)
        .to_dict()
    )
    return spec


def _percent(estimate: Estimate | None) -> tuple[float, float, float] | None:
    if estimate is None:
        return None
    value = estimate.value
    bounds: Iterable[float] = (
        value,
        value if estimate.low is None else estimate.low,
        value if estimate.high is None else estimate.high,
    )
    middle, low, high = (100 * bound for bound in bounds)
    return middle, low, high


def _size(size: int | None, unit: str) -> tuple[float, float, float] | None:
    return None if size is None else (size / UNITS[unit],) * 3
