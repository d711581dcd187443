"""The choice of one run among several of one recipe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.errors import HarnessError
from harness.records.run_folder import StoredRun, find_runs, read_report


def choose_run(place: Path, seed: int | str | None = None) -> Path:
    """Return the folder of one run.

    Args:
        place: the folder of a run, or a folder that holds runs of one recipe with several seeds.
        seed: the seed of the run; ``best`` is the one with the best value on the eval split, which
            is the split that also chose its weights; None if there is only one run.

    Raises:
        HarnessError: there is no such run, or several.
    """
    runs = [StoredRun(folder, read_report(folder)) for folder in find_runs(place)]
    good = [run for run in runs if run.report.status == "ok" and run.report.training]
    if not good:
        raise HarnessError(
            f"The folder {str(place)!r} holds no run that ended well.", "See: harness report"
        )
    recipes = sorted({(r.report.backbone, r.report.recipe, r.report.task) for r in good})
    if len(recipes) > 1:
        names = ", ".join(" ".join(parts) for parts in recipes[:6])
        raise HarnessError(
            f"The folder {str(place)!r} holds runs of several recipes: {names}.",
            "Name the folder of one run, or let the results choose: harness recommend "
            f"{place} --export FOLDER",
        )
    return _with_seed(good, seed).folder


def best_of(folders: Sequence[Path]) -> Path:
    """Return the folder of the run with the best value on the eval split, among several seeds.

    Args:
        folders: folders of runs of one recipe; those that did not end well are left out.

    Raises:
        HarnessError: none ended well, or their weights were chosen by different metrics.
    """
    runs = [StoredRun(folder, read_report(folder)) for folder in folders]
    good = [run for run in runs if run.report.status == "ok" and run.report.training]
    if not good:
        raise HarnessError("No run of the recipe ended well.", "See: harness report")
    return _best(good).folder


def _with_seed(runs: Sequence[StoredRun], seed: int | str | None) -> StoredRun:
    if seed == "best":
        return _best(runs)
    chosen = [run for run in runs if seed is None or str(run.report.seed) == str(seed)]
    if len(chosen) == 1:
        return chosen[0]
    seeds = ", ".join(str(run.report.seed) for run in sorted(runs, key=lambda r: r.report.seed))
    if chosen:
        raise HarnessError(f"There are {len(chosen)} runs, with the seeds {seeds}.", "--seed best")
    raise HarnessError(f"No run has the seed {seed}.", f"There are: {seeds}; or --seed best")


def _best(runs: Sequence[StoredRun]) -> StoredRun:
    """Return the run with the best value on the eval split; of equal ones the lowest seed."""
    metrics = {run.report.training.best_metric for run in runs if run.report.training}
    if len(metrics) > 1:
        raise HarnessError(
            "The best weights of these runs were chosen by different metrics.", "--seed NUMBER"
        )
    metric = metrics.pop()
    higher = next(
        (r.report.quality[metric].higher_is_better for r in runs if metric in r.report.quality),
        True,
    )

    def rank(run: StoredRun) -> tuple[float, int]:
        assert run.report.training
        value = run.report.training.best_value
        worst = float("inf")
        return (worst if value is None else -value if higher else value), run.report.seed

    return min(runs, key=rank)
