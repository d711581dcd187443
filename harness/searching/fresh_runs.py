"""Runs of the finals: the most promising recipes with fresh seeds, one seed after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from harness import clock
from harness.searching.baseline import Baseline
from harness.searching.candidates import Candidate
from harness.searching.course import FINALS, Course, fresh_seeds
from harness.searching.estimate import Finals
from harness.searching.finals import affordable, measure, promising
from harness.sweeps.preview import plan_cells
from harness.sweeps.sweep import SweepCell


@dataclass
class FreshRuns:
    """Runs with fresh seeds.

    Attributes:
        finalists: full fine-tuning and the recipes of the finals.
        seeds: the seeds that were trained.
        ids: the ids of the runs.
        notes: sentences that a reader must know.
    """

    finalists: list[Candidate] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)


def run_finals(course: Course, baseline: Baseline, size: Finals) -> FreshRuns:
    """Measure the most promising recipes, and train the best of them with fresh seeds.

    Args:
        course: the search.
        baseline: full fine-tuning.
        size: the size of the finals.
    """
    fresh = FreshRuns()
    order = _order(course, baseline, size)
    if not order:
        fresh.notes.append("No candidate was trained to its end, so there are no finals.")
        return fresh
    fresh.finalists = [baseline.candidates[0], *order[: size.finalists]]
    wanted = course.shape.finals
    if size != wanted:
        fresh.notes.append(
            f"The budget left room for finals of {size.finalists} x {size.seeds} recipes and "
            f"seeds, not of {wanted.finalists} x {wanted.seeds}."
        )
    expected = baseline.seconds.seed(size)
    for seed in fresh_seeds(course.runs.base.seed, size.seeds):
        cells = _cells(course, fresh.finalists, seed)
        is_done = all(cell.done for cell in cells)
        if fresh.seeds and not is_done and course.budget.left < expected:
            fresh.notes.append(
                f"The budget was over after {len(fresh.seeds)} of {size.seeds} fresh seeds."
            )
            break
        course.on_message(f"Finals with the fresh seed {seed}.")
        began = clock.seconds()
        course.runs.sweep(course.folder / FINALS, cells)
        if not is_done:
            expected = clock.seconds() - began
        fresh.ids.update(cell.id for cell in cells)
        fresh.seeds.append(seed)
    return fresh


def _order(course: Course, baseline: Baseline, size: Finals) -> list[Candidate]:
    """Return the candidates for the finals, one more than take part if costs were measured."""
    steps = baseline.track.steps
    scores = {c: course.scores(c, steps) for c in course.trials.trained}
    whole = {c: s for c, s in scores.items() if len(s) == len(steps)}
    order = promising(whole, baseline.track, course.costs(list(whole)))[: size.finalists + 1]
    if not order or not course.runs.executor.here:
        return order
    measured = measure(
        order,
        course.runs.base,
        course.folder / FINALS,
        lambda step: course.on_message(f"Measuring speed and memory: {step}."),
    )
    return affordable(order, measured, course.needs)


def _cells(course: Course, finalists: Sequence[Candidate], seed: int) -> list[SweepCell]:
    """Return the runs of one seed. Those on other machines measure their costs by themselves."""
    runs = course.runs
    measures = not runs.executor.here
    specs = [c.spec(runs.base, runs.plugins, seed, measures=measures) for c in finalists]
    return [plan.cell for plan in plan_cells(specs, runs.plugins, course.folder / FINALS)]
