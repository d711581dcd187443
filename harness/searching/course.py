"""Values that all stages of a search share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.searching.budget import Budget
from harness.searching.candidates import Candidate
from harness.searching.estimate import Finals
from harness.searching.needs import Needs
from harness.searching.runs import Runs
from harness.searching.trials import Trials
from harness.sweeps.preview import CellPlan

FINALS = "finals"
"""Folder of the runs with fresh seeds, in the search's folder."""


@dataclass(frozen=True)
class Shape:
    """Size of a search.

    Attributes:
        octaves: largest distance of a learning rate from the recipe's own, in factors of 2.
        round_size: largest number of candidates of a round.
        finals: wanted size of the finals.
    """

    octaves: int
    round_size: int
    finals: Finals


@dataclass(frozen=True)
class Course:
    """A search in a folder, from its beginning or from where it was stopped.

    Attributes:
        folder: the search's folder.
        reference: the plan of a run of full fine-tuning.
        runs: trains candidates.
        trials: the candidates.
        budget: the wall time.
        shape: the size.
        needs: what a recipe must reach.
        on_message: is called with a sentence at each stage.
    """

    folder: Path
    reference: CellPlan
    runs: Runs
    trials: Trials
    budget: Budget
    shape: Shape
    needs: Needs
    on_message: Callable[[str], None]

    def costs(self, candidates: Sequence[Candidate]) -> dict[Candidate, tuple[float, float]]:
        """Return the planned speed and memory of candidates."""
        screened = {candidate: self.trials.costs(candidate) for candidate in candidates}
        return {c: (costs.speed, costs.memory_or_full) for c, costs in screened.items()}

    def scores(self, candidate: Candidate, steps: Sequence[int]) -> list[float | None]:
        """Return a candidate's best score up to each rung that it reached."""
        found = [self.runs.value(candidate, step) for step in steps]
        return found[: next((n for n, value in enumerate(found) if value is None), len(found))]


def fresh_seeds(seed: int, count: int) -> list[int]:
    """Return seeds that no run of the search before its finals had."""
    return list(range(seed + 1, seed + 1 + count))
