"""Time that the parts of a search will take, and the finals that fit into its budget."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import ceil
from typing import NamedTuple

from harness.errors import HarnessError
from harness.running.inputs import scored_counts
from harness.searching.rungs import jobs_of, training_shares
from harness.sweeps.preview import CellPlan, empty_schedule
from harness.sweeps.probes import batches_of, probe

_MARGIN = 1.15
"""Factor for what estimates leave out, such as the computing of scores."""
_FINAL_SHARE = 0.5
"""Largest share of the budget that finals with several finalists and seeds may take."""
_TIMES = ("start", "training", "test", "profile")
"""The times of ``Seconds``."""


class Finals(NamedTuple):
    """Size of the finals: recipes beside full fine-tuning, and seeds of each."""

    finalists: int
    seeds: int


@dataclass(frozen=True)
class Seconds:
    """Time of parts of a run of full fine-tuning, the slowest recipe as a rule.

    Attributes:
        start: start of a process, until it trains.
        training: the whole training with its evaluations.
        test: predicting and scoring the test split.
        profile: measuring the speed and memory of one recipe.
        slots: number of runs at once.
    """

    start: float
    training: float
    test: float
    profile: float
    slots: int

    @classmethod
    def from_json(cls, text: str) -> Seconds:
        """Read what ``to_json`` wrote."""
        return cls(**json.loads(text))

    def to_json(self) -> str:
        """Write all times."""
        return json.dumps(asdict(self))

    def corrected(self, estimated: float, measured: float) -> Seconds:
        """Return all times longer by the factor by which something took longer than estimated.

        Something that was faster changes nothing: part of it may have been done before.

        Args:
            estimated: the estimate, in seconds.
            measured: the time that it took, in seconds.
        """
        factor = max(1.0, measured / estimated) if estimated else 1.0
        times = {name: factor * getattr(self, name) for name in _TIMES}
        return replace(self, **times)

    def round(self, count: int, shares: Sequence[float]) -> float:
        """Return the time of a round of candidates, of which the better half train on."""
        work = training_shares(count, shares) * self.training
        work += jobs_of(count, len(shares)) * self.start
        return _MARGIN * work / min(count, self.slots)

    def finals(self, size: Finals) -> float:
        """Return the time of the profile and of all runs with fresh seeds."""
        return (size.finalists + 1) * _MARGIN * self.profile + size.seeds * self.seed(size)

    def seed(self, size: Finals) -> float:
        """Return the time of the finals' runs with one seed."""
        rounds = ceil((size.finalists + 1) / self.slots)
        return _MARGIN * rounds * (self.start + self.training + self.test)

    def affordable_finals(self, wanted: Finals, budget: float) -> Finals:
        """Return the largest finals that leave half of the budget to the search.

        Finalists are given up before seeds, down to two each; then the second finalist.

        Args:
            wanted: the size that was requested.
            budget: the whole budget, in seconds.
        """
        size = wanted
        while self.finals(size) > _FINAL_SHARE * budget:
            if size.finalists > 2:
                size = Finals(size.finalists - 1, size.seeds)
            elif size.seeds > 2:
                size = Finals(size.finalists, size.seeds - 1)
            elif size.finalists > 1:
                size = Finals(1, size.seeds)
            else:
                break
        return size

    def affordable_round(self, most: int, shares: Sequence[float], seconds: float) -> int:
        """Return the number of candidates of a round that fits into some seconds; 0 if none does.

        Args:
            most: largest number of candidates.
            shares: shares of the training at the rungs.
            seconds: the time that there is.
        """
        sizes = range(most, 1, -1)
        return next((n for n in sizes if self.round(n, shares) <= seconds), 0)


def probed_seconds(plan: CellPlan, slots: int) -> Seconds | None:
    """Estimate the time of full fine-tuning from a few steps and predictions on this machine.

    Args:
        plan: the plan of a run of full fine-tuning.
        slots: number of runs at once.

    Returns:
        The time, or None if full fine-tuning cannot be probed here.
    """
    spec = plan.cell.spec
    batches = batches_of(plan)
    try:
        costs = probe(spec.model_copy(update={"weights": "random"}), batches)
    except HarnessError:
        raise
    except Exception:  # It may not fit into memory, or take too long; training will show that.
        return None
    schedule = empty_schedule(spec, len(plan.splits.train))
    evaluations = ceil(
        plan.cell.steps / schedule.steps_between_evaluations(spec.train.eval_every_epochs)
    )
    greedy, test = scored_counts(spec, plan.task, plan.splits)
    steps = 2 * (3 * spec.probe.warmup_steps + 8 * spec.probe.steps) + 12
    return Seconds(
        start=costs.start,
        training=plan.cell.steps * costs.step + evaluations * greedy * costs.greedy,
        test=test * costs.test,
        profile=2 * costs.start + steps * costs.step,
        slots=slots,
    )
