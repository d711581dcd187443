"""The runs of a group, by recipe and seed, and what of them is to be compared."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from harness.records.run_folder import StoredRun
from harness.reporting.outcome import Request, Seed
from harness.spec.run_spec import BASELINE


class Members(NamedTuple):
    """The runs that a group's rows rest on.

    Attributes:
        by_recipe: one run a seed of each recipe, full fine-tuning first.
        requests: what is to be compared of each of these.
        has_baseline: whether there is a good run of full fine-tuning.
        older: runs that were left out for a later or better one of the same recipe and seed.
    """

    by_recipe: list[list[StoredRun]]
    requests: list[Request]
    has_baseline: bool
    older: list[StoredRun]

    @property
    def runs(self) -> list[StoredRun]:
        """All runs that count."""
        return [run for runs in self.by_recipe for run in runs]

    @classmethod
    def of(cls, runs: Sequence[StoredRun], metrics: Sequence[str]) -> Members:
        """Choose the last good run of each recipe and seed."""
        found: dict[str, dict[int, StoredRun]] = defaultdict(dict)
        older = []
        for run in sorted(runs, key=lambda run: (run.report.status == "ok", run.report.started)):
            members = found[run.report.recipe]
            if run.report.seed in members:
                older.append(members[run.report.seed])
            members[run.report.seed] = run
        full = {s: r for s, r in found.get(BASELINE, {}).items() if r.report.status == "ok"}
        by_recipe, requests = [], []
        for recipe in sorted(found, key=lambda recipe: (recipe != BASELINE, recipe)):
            chosen = [found[recipe][seed] for seed in sorted(found[recipe])]
            by_recipe.append(chosen)
            requests.append(_request(chosen, full if recipe != BASELINE else {}, metrics))
        return cls(by_recipe, requests, bool(full), older)


def _request(
    runs: Sequence[StoredRun], full: dict[int, StoredRun], metrics: Sequence[str]
) -> Request:
    """Return the seeds that ended well, and the metrics that all of them have."""
    good = [run for run in runs if run.report.status == "ok"]
    present = [name for name in metrics if all(name in run.report.quality for run in good)]
    seeds = tuple(Seed(run, full.get(run.report.seed)) for run in good)
    return Request(seeds, tuple(present) if good else ())
