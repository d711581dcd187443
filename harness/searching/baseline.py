"""Full fine-tuning with several learning rates, which all candidates are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.errors import HarnessError
from harness.records.atomic import write_text
from harness.searching.candidates import Candidate
from harness.searching.course import Course
from harness.searching.estimate import Finals, Seconds, probed_seconds
from harness.searching.racing import Track, race
from harness.searching.rungs import rung_steps
from harness.spec.run_spec import BASELINE
from harness.sweeps.preview import empty_schedule
from harness.sweeps.view import duration

_PROBE = "probe.json"


@dataclass(frozen=True)
class Baseline:
    """Full fine-tuning in a search.

    Attributes:
        track: the rungs, and full fine-tuning's best score at each.
        candidates: full fine-tuning with each learning rate, the best first.
        seconds: the time that parts of a run take.
    """

    track: Track
    candidates: list[Candidate]
    seconds: Seconds


def train_baseline(course: Course) -> Baseline:
    """Train full fine-tuning with each learning rate, or read what earlier starts trained.

    Raises:
        HarnessError: the budget is too small for any search, or training fails.
    """
    runs, octaves = course.runs, course.shape.octaves
    rates = sorted(range(-octaves, octaves + 1), key=abs)
    candidates = [Candidate(BASELINE, octave) for octave in rates]
    track = _track(course)
    probed = _probed(course)
    last = track.steps[-1]
    if probed and all(runs.value(candidate, last) is None for candidate in candidates):
        _check_budget(course, probed, track, len(candidates))
    course.on_message(f"Full fine-tuning, the reference; learning rates: {len(candidates)}.")
    raced = race(candidates, track, runs, dict.fromkeys(candidates, (1.0, 1.0)))
    if not raced.finished:
        raise HarnessError(f"Full fine-tuning failed: {next(iter(raced.failures.values()))}")
    scores = list(raced.scores.values())
    reference = [
        track.metric.best([value for s in scores if len(s) > n and (value := s[n]) is not None])
        for n in range(len(track.steps))
    ]
    (best, *_) = [c for c in raced.finished if raced.scores[c][-1] == reference[-1]]
    seconds = Seconds(
        start=runs.start_seconds,
        training=(training := runs.training_seconds(best) or 0.0),
        # On another machine nothing was probed.
        test=probed.test if probed else training,
        profile=probed.profile if probed else 0.0,
        slots=runs.executor.slots,
    )
    others = [candidate for candidate in candidates if candidate != best]
    return Baseline(replace(track, reference=reference), [best, *others], seconds)


def _track(course: Course) -> Track:
    """Return the rungs, without full fine-tuning's scores."""
    base = course.runs.base
    schedule = empty_schedule(base, len(course.reference.splits.train))
    interval = schedule.steps_between_evaluations(base.train.eval_every_epochs)
    steps = rung_steps(course.reference.cell.steps, interval)
    return Track(steps, course.runs.metric, (), course.needs.min_quality)


def _probed(course: Course) -> Seconds | None:
    """Estimate times by a probe on this machine, once for all starts; None for other machines."""
    file = course.folder / _PROBE
    if file.exists():
        return Seconds.from_json(file.read_text("utf-8"))
    if not course.runs.executor.here:
        return None
    course.on_message("Probing full fine-tuning, to know what fits into the budget.")
    probed = probed_seconds(course.reference, course.runs.executor.slots)
    if probed:
        write_text(file, probed.to_json() + "\n")
    return probed


def _check_budget(course: Course, seconds: Seconds, track: Track, rates: int) -> None:
    """Check before anything is trained that the smallest search fits into the budget."""
    shares: Sequence[float] = track.shares
    least = seconds.round(rates, shares) + seconds.round(2, shares)
    least += seconds.finals(Finals(1, min(2, course.shape.finals.seeds)))
    if least > course.budget.seconds:
        raise HarnessError(
            f"The smallest search takes about {duration(least)}: full fine-tuning with {rates} "
            "learning rates, two candidates, and the better one with fresh seeds. The budget is "
            f"{duration(course.budget.seconds)}.",
            f"Give at least --budget {int(least / 60) + 1}m, or train shorter: "
            "--set train.max_steps=N",
        )
