"""Rounds of candidates, until the time is up that the finals do not need."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from harness.errors import HarnessError
from harness.searching.baseline import Baseline
from harness.searching.candidates import Candidate
from harness.searching.course import Course
from harness.searching.estimate import Finals
from harness.searching.racing import race
from harness.sweeps.view import duration


def race_candidates(course: Course, baseline: Baseline, finals: Finals) -> Iterator[str]:
    """Race rounds of candidates; yield sentences that a reader of the result must know.

    Args:
        course: the search.
        baseline: full fine-tuning.
        finals: the size of the finals, whose time is left.

    Raises:
        HarnessError: no recipe can meet the limits, or none can be trained.
    """
    trials, shares = course.trials, baseline.track.shares
    seconds = baseline.seconds
    number = 0
    while True:
        began, reserve = course.budget.spent, seconds.finals(finals)
        candidates = trials.waiting()
        if not candidates:
            left = course.budget.left - reserve
            count = seconds.affordable_round(course.shape.round_size, shares, left)
            if not count and not trials.trained:
                count = 2  # Without any candidate there are no finals.
            if not count:
                break
            candidates = _chosen(course, count)
        if not candidates:
            yield "Every candidate of the space was looked at."
            break
        number += 1
        course.on_message(
            f"Round {number}: {len(candidates)} candidates. {duration(course.budget.spent)} of "
            f"{duration(course.budget.seconds)} are over; the finals need about "
            f"{duration(reserve)}."
        )
        _race_round(course, baseline, candidates)
        estimated = seconds.round(len(candidates), shares)
        seconds = seconds.corrected(estimated, course.budget.spent - began)
    if not trials.trained:
        raise HarnessError(
            "No recipe of the space can meet the limits. The nearest: " + _nearest(course),
            "Ask for less, or name other recipes: --compressor",
        )
    if len(shares) == 1:
        yield (
            "No candidate was stopped early: training is evaluated only at its end "
            "(train.eval_every_epochs)."
        )


def _chosen(course: Course, count: int) -> list[Candidate]:
    """Return new candidates, at most a number of them."""
    course.on_message("Choosing candidates, and planning their costs.")
    candidates = []
    for candidate in islice(course.trials.ask(), count):
        candidates.append(candidate)
        course.budget.save_if_due()
    return candidates


def _race_round(course: Course, baseline: Baseline, candidates: Sequence[Candidate]) -> None:
    raced = race(
        candidates,
        baseline.track,
        course.runs,
        course.costs(candidates),
        lambda step, count: course.on_message(f"Candidates up to step {step}: {count}."),
    )
    course.trials.answer(raced, baseline.track)
    reasons = list(raced.failures.values())
    if len(reasons) == len(candidates) and all(r.startswith("error") for r in reasons):
        raise HarnessError(f"No candidate of a round could be trained: {reasons[0]}")


def _nearest(course: Course) -> str:
    rejected = course.trials.rejections()
    costs = {recipe: course.trials.costs(Candidate(recipe)) for recipe in rejected}
    nearest = min(rejected, key=lambda recipe: max(costs[recipe].excess))
    return f"{nearest}: {rejected[nearest]}."
