"""Table that a sweep shows before it starts: its runs, and the time and memory of each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.sweeps.view import duration, names

if TYPE_CHECKING:
    from harness.sweeps.forecast import Forecast
    from harness.sweeps.sweep import SweepCell


def show(console: Console, cells: Sequence[SweepCell], forecasts: Mapping[str, Forecast]) -> None:
    """Print a line for each cell, and notes on the numbers below.

    Args:
        console: the console to print to.
        cells: all cells of the sweep.
        forecasts: the forecasts of the cells that are not done, by cell id.
    """
    common, name = names(cells)
    table = Table(box=None, pad_edge=False)
    table.add_column(Text(common), overflow="fold")
    table.add_column("steps", justify="right", no_wrap=True)
    table.add_column("time", justify="right", no_wrap=True)
    table.add_column("GiB", justify="right", no_wrap=True)
    for cell in cells:
        forecast = forecasts.get(cell.id)
        expected = (_time(forecast), _memory(forecast)) if forecast else ("done", "")
        table.add_row(Text(name[cell.id]), str(cell.steps), *expected)
    console.print(table)
    for line in _notes(cells, forecasts, name):
        console.print(line, soft_wrap=not console.is_terminal, markup=False)


def _time(forecast: Forecast) -> str:
    if forecast.seconds is None:
        return "?"
    return duration(forecast.seconds) if forecast.measured else f"~{duration(forecast.seconds)}"


def _memory(forecast: Forecast) -> Text:
    if forecast.peak_bytes is None:
        return Text("?")
    size = f"{forecast.peak_bytes / 2**30:.2f}"
    return Text(f"{size} !", "bold red") if forecast.too_large else Text(size)


def _notes(
    cells: Sequence[SweepCell], forecasts: Mapping[str, Forecast], name: Mapping[str, str]
) -> Iterator[str]:
    shown = forecasts.values()
    times = [f.seconds for f in shown if f.seconds is not None]
    yield f"{len(cells)} runs, {len(cells) - len(forecasts)} of them done.{_sum(times, forecasts)}"
    if any(f.peak_bytes is not None for f in shown):
        processes = max(f.processes for f in shown)
        each = f", of each of {processes} processes" if processes > 1 else ""
        yield f"GiB: peak memory of training{each}, estimated from the shapes of the longest batch."
    divided = [name[cell] for cell, f in forecasts.items() if f.divided]
    if divided:
        unknown = any(f.divided and f.available is None for f in shown)
        device = ", if a device has 80 GB" if unknown else ""
        yield f"The processes divide the model of {_list(divided, len(forecasts))}{device}."
    if any(f.seconds is not None and not f.measured for f in shown):
        yield (
            "~ is estimated from a few steps and predictions. It assumes training to the last step "
            "and predictions as long as the references, and leaves out computing the scores."
        )
    if any(f.measured for f in shown):
        yield "Times without ~ were measured in an earlier run with another seed."
    too_large = {f.available for f in shown if f.too_large and f.available}
    if too_large:
        size = f"{min(too_large) / 2**30:.2f}"
        yield (
            f"! is more than the {size} GiB available for training; --on-oom shrink halves the "
            "micro-batch."
        )
    times_unknown = {cell: f.no_time for cell, f in forecasts.items() if f.no_time}
    memory_unknown = {cell: f.no_memory for cell, f in forecasts.items() if f.no_memory}
    yield from _reasons("time", times_unknown, name, len(forecasts))
    yield from _reasons("GiB", memory_unknown, name, len(forecasts))


def _sum(times: Sequence[float], forecasts: Mapping[str, Forecast]) -> str:
    if not times:
        return ""
    total = duration(sum(times))
    if len(times) < len(forecasts):
        return f" {len(times)} of the others take about {total} together."
    return f" The others take about {total} together."


def _reasons(
    what: str, unknown: Mapping[str, str], name: Mapping[str, str], count: int
) -> Iterator[str]:
    for reason in dict.fromkeys(unknown.values()):
        where = [name[cell] for cell, why in unknown.items() if why == reason]
        yield f"? {what} of {_list(where, count)}: {reason}"


def _list(where: Sequence[str], count: int) -> str:
    if len(where) == count > 1:
        return "all"
    shown: Iterable[str] = where[:2]
    return f"{'; '.join(shown)}{f' and {len(where) - 2} more' if len(where) > 2 else ''}"
