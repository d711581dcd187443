"""The runs of a group, by recipe and seed, and the requests to compare them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from harness.records.run_folder import StoredRun
from harness.reporting.outcome import Request, Seed
from harness.spec.run_spec import BASELINE


class Members(NamedTuple):
    """The runs that a group's rows are computed from.

    Attributes:
        by_recipe: for each recipe, the baseline first, one run per seed.
        requests: the comparison to make for each recipe of ``by_recipe``.
        has_baseline: whether there is a good run of the baseline.
        older: runs that were left out for a later or better one of the same recipe and seed.
    """

    by_recipe: list[list[StoredRun]]
    requests: list[Request]
    has_baseline: bool
    older: list[StoredRun]

    @property
    def runs(self) -> list[StoredRun]:
        """The runs of all recipes."""
        return [run for runs in self.by_recipe for run in runs]

    @classmethod
    def of(
        cls, runs: Sequence[StoredRun], metrics: Sequence[str], baseline: str = BASELINE
    ) -> Members:
        """Choose the last good run of each recipe and seed, or the last run if none is good.

        Args:
            runs: the runs of a group.
            metrics: names of the metrics to compare.
            baseline: the recipe to compare with.
        """
        by_seed: dict[str, dict[int, StoredRun]] = defaultdict(dict)
        older = []
        for run in sorted(runs, key=lambda run: (run.report.status == "ok", run.report.started)):
            seeds = by_seed[run.report.recipe]
            if run.report.seed in seeds:
                older.append(seeds[run.report.seed])
            seeds[run.report.seed] = run
        others = {s: r for s, r in by_seed.get(baseline, {}).items() if r.report.status == "ok"}
        by_recipe, requests = [], []
        for recipe in sorted(by_seed, key=lambda recipe: (recipe != baseline, recipe)):
            chosen = [by_seed[recipe][seed] for seed in sorted(by_seed[recipe])]
            by_recipe.append(chosen)
            paired, present = _compared(chosen, {} if recipe == baseline else others, metrics)
            requests.append(Request(paired, present, baseline))
        return cls(by_recipe, requests, bool(others), older)


def _compared(
    runs: Sequence[StoredRun], others: Mapping[int, StoredRun], metrics: Sequence[str]
) -> tuple[tuple[Seed, ...], tuple[str, ...]]:
    """Return the seeds that ended well, and the metrics that all of them have."""
    good = [run for run in runs if run.report.status == "ok"]
    present = [name for name in metrics if all(name in run.report.quality for run in good)]
    seeds = tuple(Seed(run, others.get(run.report.seed)) for run in good)
    return seeds, tuple(present) if good else ()
