"""Reports from Python: ``harness.load_report``, ``load_reports`` and ``recommend``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from harness.errors import HarnessError, did_you_mean
from harness.records.report import Report
from harness.records.run_folder import REPORT, read_report, read_runs
from harness.reporting.collection import Reports
from harness.reporting.planned_memory import recommend_for
from harness.reporting.recommendation import Cost, Needs, Recommendation
from harness.reporting.recommendation import recommend as choose
from harness.reporting.summary import Summary


def load_report(path: str | Path) -> Report:
    """Read the report of one run.

    Args:
        path: the folder of a run, or the ``report.json`` in it.

    Returns:
        The report; a notebook shows it as a table.

    Raises:
        HarnessError: there is no report, or it cannot be read.

    Example:
        >>> report = harness.load_report("results/RUN")
        >>> report.speed.relative
    """
    folder = Path(path)
    return read_report(folder.parent if folder.name == REPORT else folder)


def load_reports(
    folder: str | Path = "results", on_run: Callable[[], None] = lambda: None
) -> Reports:
    """Read the reports of all finished runs of a results folder, at any depth.

    Args:
        folder: the results folder.
        on_run: is called after each run.

    Returns:
        The runs, as a sequence with ``summarize()`` and ``to_pandas()``; a notebook shows it as a
        table. Folders that cannot be read are left out and listed in ``skipped``.

    Raises:
        HarnessError: there is no such folder, or it holds no finished run.

    Example:
        >>> for run in harness.load_reports("results"):
        ...     print(run.report.recipe, run.report.quality["rouge1"].value)
    """
    results = Path(folder)
    runs, skipped = read_runs(results, on_run)
    if not runs:
        unreadable = "".join(f"\nSkipped: {error.message}" for error in skipped)
        raise HarnessError(
            f"There are no finished runs in {str(results)!r}.{unreadable}",
            "Make one first: harness run",
        )
    return Reports(results, tuple(runs), tuple(skipped))


def recommend(
    results: str | Path | Reports | Summary = "results",
    *,
    min_quality: float = 0.95,
    max_memory_bytes: int | None = None,
    min_speed: float | None = None,
    max_latency_seconds: float | None = None,
    metric: str | None = None,
    by: Cost = "speed",
    backbone: str | None = None,
    device: str = "auto",
) -> list[Recommendation]:
    """Choose the cheapest recipe that keeps enough of full fine-tuning's quality.

    A recipe keeps enough if the lower bound of the 95 % interval of its quality, relative to full
    fine-tuning, is at least ``min_quality``.

    Args:
        results: the results folder, its reports, or a summary of them.
        min_quality: share of full fine-tuning's quality that a recipe must keep.
        max_memory_bytes: largest peak memory.
        min_speed: lowest training speed relative to full fine-tuning, for example 1.5.
        max_latency_seconds: longest time to decode one example.
        metric: the metric that measures quality; by default the first, such as rouge1.
        by: meaning of cheapest: ``speed``, ``memory``, ``parameters`` or ``latency``.
        backbone: the backbone that you want to train, if not that of the runs: its memory is
            computed as by ``plan``.
        device: the device for which that memory is computed: ``auto``, ``cpu`` or ``cuda``.

    Returns:
        A recommendation for each backbone and task; its ``chosen`` is None if no recipe is good
        enough.

    Raises:
        HarnessError: there are no runs, none has been scored or has the metric, or a latency is
            asked for that no run has measured.

    Example:
        >>> harness.recommend("results", min_quality=0.97)[0].chosen
    """
    summary = results
    if isinstance(summary, (str, Path)):
        summary = load_reports(summary)
    if isinstance(summary, Reports):
        summary = summary.summarize(None if metric is None else [metric])
    if not summary.metrics:
        raise HarnessError("No run has been scored.", "See: harness report")
    if metric is not None and metric not in summary.metrics:
        raise HarnessError(
            f"No run has the metric {metric!r}.", did_you_mean(metric, summary.metrics)
        )
    if max_latency_seconds is not None or by == "latency":
        _require_latency(summary)
    needs = Needs(
        metric=metric or summary.metrics[0],
        min_quality=min_quality,
        max_memory_bytes=max_memory_bytes,
        min_speed=min_speed,
        max_latency_seconds=max_latency_seconds,
        by=by,
    )
    if backbone is None:
        return [choose(group, needs) for group in summary.groups]
    return [recommend_for(group, needs, backbone, device) for group in summary.groups]


def _require_latency(summary: Summary) -> None:
    """Raise an error if no run has a latency to choose by."""
    if not any(group.has_inference for group in summary.groups):
        raise HarnessError(
            "No run has measured decoding, so no latency is known.",
            "Repeat the runs with --set probe.inference=true, or leave out --max-latency and "
            "--by latency",
        )
