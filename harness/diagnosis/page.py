"""A page of charts and tables: one file that fetches and executes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from typing import Any

from harness import __version__
from harness.diagnosis.record import Diagnosis
from harness.diagnosis.tables import heading, tables
from harness.errors import HarnessError

Row = dict[str, Any]
INK = "#57606a"
"""Readable on white and on dark pages: the charts have no background of their own."""
_WIDTH, _HEIGHT = 520, 240


def require_packages() -> None:
    """Check that the packages of the page are installed.

    Raises:
        HarnessError: one is not.
    """
    try:
        import altair  # noqa: F401
        import jinja2  # noqa: F401
        import vl_convert  # noqa: F401
    except ImportError as error:
        raise HarnessError(
            f"The page needs the package {error.name}.",
            "Install it: pip install 'seq2seq-harness[html]'",
        ) from error


def page(diagnosis: Diagnosis) -> str:
    """Write a diagnosis as HTML; text from data is escaped.

    Raises:
        HarnessError: a package that the page needs is not installed.
    """
    require_packages()
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: _file("harness.diagnosis", name)),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.jinja").render(
        heading=list(heading(diagnosis)),
        proposal=diagnosis.proposal,
        charts=list(_charts(diagnosis)),
        tables=list(tables(diagnosis)),
        not_measured=diagnosis.not_measured,
        version=__version__,
        style=_file("harness.reporting.page", "page.css"),
    )


def _charts(diagnosis: Diagnosis) -> Iterator[dict[str, str]]:
    """Yield title, description and SVG of each chart that has data."""
    layers: list[Row] = [
        {"place": layer.number, "group": layer.stack, **_bounds(layer.loss_increase)}
        for layer in diagnosis.layers
    ]
    if layers:
        yield _chart(
            "Loss without each layer",
            "Increase of the loss if one layer is removed, with 95 % intervals over examples.",
            _bars(layers, "layer", "nats per target token"),
        )
    for changes in [diagnosis.changes] if diagnosis.changes else []:
        shares: list[Row] = [
            {"place": c.role, "group": c.stack, "value": 100 * c.energy_share} for c in changes
        ]
        yield _chart(
            "What training changed, by role",
            "Share of the sum of squares of all changes.",
            _bars(shares, "role", "% of the change"),
        )
        ranks: list[Row] = [
            {"rank": rank, "value": 100 * share, "group": c.stack, "role": c.role}
            for c in changes
            for rank, share in c.rank_shares.items()
        ]
        yield _chart(
            "Does a low rank suffice?",
            "Share of a change that its best approximation of a rank holds, one line per role.",
            _curves(ranks),
        )
    if not diagnosis.changes and diagnosis.gradients:
        pulls: list[Row] = [
            {"place": g.role, "group": g.stack, "value": g.root_mean_square}
            for g in diagnosis.gradients
        ]
        yield _chart(
            "Gradients by role, before training",
            "Root of the mean square of the gradient of one weight.",
            _bars(pulls, "role", "root mean square"),
        )
    for loss in diagnosis.lost or ():
        bins: list[Row] = [
            {
                "place": f"{one.low:.0f} to {one.high:.0f}",
                "group": "difference",
                **_bounds(one.difference),
            }
            for one in loss.bins
        ]
        yield _chart(
            f"{loss.metric} by {loss.by}",
            "Score of the run minus score of the other run, with 95 % intervals over examples.",
            _bars(bins, loss.by, f"difference of {loss.metric}"),
        )


def _bounds(estimate: Any) -> Row:
    value = estimate.value
    low = value if estimate.low is None else estimate.low
    high = value if estimate.high is None else estimate.high
    return {"value": value, "low": low, "high": high}


def _bars(rows: list[Row], place: str, title: str) -> Any:
    """Return grouped bars, with intervals if the rows have bounds."""
    import altair as alt

    groups = list(dict.fromkeys(row["group"] for row in rows))
    order = list(dict.fromkeys(row["place"] for row in rows))
    # Names of roles are too long to stand side by side.
    level = alt.Axis(labelAngle=0 if len(order) < 5 or isinstance(order[0], int) else -45)
    x_axis = alt.X("place:O").title(place).sort(order).axis(level)
    offset = alt.XOffset("group:N").sort(groups)
    legend = alt.Legend(orient="top", title=None) if len(groups) > 1 else None
    base = alt.Chart(alt.Data(values=rows))
    bars = base.mark_bar().encode(
        x_axis,
        alt.Y("value:Q").title(title),
        offset,
        alt.Color("group:N").sort(groups).legend(legend),
    )
    if "low" not in rows[0]:
        return bars
    rules = base.mark_rule(color=INK).encode(x_axis, alt.Y("low:Q"), offset, alt.Y2("high:Q"))
    return alt.layer(bars, rules)


def _curves(rows: list[Row]) -> Any:
    import altair as alt

    base = alt.Chart(alt.Data(values=rows)).encode(
        alt.X("rank:Q").title("rank").scale(type="log", base=2),
        alt.Y("value:Q").title("% of the change"),
        alt.Color("role:N").legend(title=None, symbolType="stroke"),
    )
    # Points are a layer of their own: with them the legend would draw no dashes.
    lines = base.mark_line().encode(alt.StrokeDash("group:N").legend(title=None))
    return lines + base.mark_circle(opacity=1)


def _chart(title: str, description: str, chart: Any) -> dict[str, str]:
    import vl_convert

    text = {"labelColor": INK, "titleColor": INK, "labelFontSize": 12, "titleFontSize": 12}
    lines = {"domainColor": INK, "tickColor": INK, "gridColor": INK, "gridOpacity": 0.15}
    spec = (
        chart.properties(width=_WIDTH, height=_HEIGHT, background="transparent")
        .configure(font="system-ui, sans-serif")
        .configure_axis(**text, **lines)
        .configure_legend(labelColor=INK, titleColor=INK)
        .configure_view(stroke=None)
        .to_dict()
    )
    return {
        "title": title,
        "description": description,
        "svg": vl_convert.vegalite_to_svg(spec),
    }


def _file(package: str, name: str) -> str:
    return (resources.files(package) / name).read_text("utf-8")
