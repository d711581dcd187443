"""Candidates of the rounds: asked of Optuna, screened by their planned costs, raced, answered."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from harness.api.plugins import Plugins
from harness.errors import HarnessError
from harness.searching.candidates import Candidate
from harness.searching.racing import Raced, Track
from harness.searching.screen import Screen, Screened
from harness.searching.space import Point, Space
from harness.searching.study import Study, Trial

_REPEATS = 3
"""Repeated suggestions in a row after which the nearest point that was not tried is taken."""


class Trials:
    """Candidates of a search, in the order in which they were asked.

    Args:
        study: asks for points, and keeps them.
        space: the points.
        screen: computes the costs of recipes.
        plugins: the plugins of this environment.
        seed: seeds the choice where the study only repeats itself.
    """

    def __init__(
        self, study: Study, space: Space, screen: Screen, plugins: Plugins, seed: int
    ) -> None:
        self._study, self._space, self._screen = study, space, screen
        self._plugins, self._seed = plugins, seed
        for trial in self._study.trials:
            if not trial.notes and not trial.is_answered:
                study.forget(trial.number)  # The search was stopped while it asked.
        if not self._study.trials:
            study.propose(space.first)

    @property
    def looked_at(self) -> list[Trial]:
        """The trials of candidates, rejected ones too."""
        return [trial for trial in self._study.trials if "recipe" in trial.notes]

    @property
    def trained(self) -> list[Candidate]:
        """The candidates that were not rejected."""
        return [candidate_of(t) for t in self.looked_at if not t.notes.get("rejected")]

    def costs(self, candidate: Candidate) -> Screened:
        """Return the planned costs of a candidate."""
        return self._screen.costs(candidate.recipe)

    def rejections(self) -> dict[str, str]:
        """Return recipe -> reason of all that were rejected."""
        return {
            trial.notes["recipe"]: trial.notes["rejected"]
            for trial in self.looked_at
            if trial.notes.get("rejected")
        }

    def waiting(self) -> list[Candidate]:
        """Return the candidates of a round that was stopped; empty if there is none."""
        return [candidate_of(trial) for trial in self.looked_at if not trial.is_answered]

    def ask(self) -> Iterator[Candidate]:
        """Yield new candidates whose planned costs are within the limits, until none is left."""
        repeats = 0
        while True:
            number, point = self._study.ask()
            candidate, screened = self._look_at(point)
            if candidate in {candidate_of(trial) for trial in self.looked_at}:
                self._study.forget(number)
                repeats += 1
                if repeats < _REPEATS:
                    continue
                untried = self._nearest_untried(point)
                if untried is None:
                    return
                self._study.propose([untried])
                continue
            repeats = 0
            self._study.note(
                number,
                dict(zip(("speed", "memory"), screened.excess, strict=True)),
                recipe=candidate.recipe,
                octave=candidate.octave,
                rejected=screened.rejected,
            )
            if screened.rejected:
                self._study.prune(number)
                continue
            yield candidate

    def answer(self, raced: Raced, track: Track) -> None:
        """Answer the trials of a round."""
        for trial in self.looked_at:
            candidate = candidate_of(trial)
            if trial.is_answered or candidate not in raced.scores:
                continue
            if candidate in raced.failures:
                self._study.note(trial.number, failed=raced.failures[candidate])
            share = track.share(raced.scores[candidate])
            if candidate in raced.finished and share is not None:
                costs = self.costs(candidate)
                self._study.finish(trial.number, share, costs.speed, costs.memory_or_full)
            else:
                self._study.prune(trial.number)

    def _look_at(self, point: Point) -> tuple[Candidate, Screened]:
        """Return the candidate of a point, and its costs or the reason to reject it."""
        try:
            recipe = str(self._plugins.recipe(point.recipe))
        except HarnessError as error:
            rejected = Screened(0.0, None, 0, (1.0, 0.0), error.message)
            return Candidate(point.recipe, point.octave), rejected
        return Candidate(recipe, point.octave), self._screen.costs(recipe)

    def _nearest_untried(self, suggested: Point) -> Point | None:
        """Return the point nearest to a suggestion that was not looked at, or None if all were."""
        seen = {candidate_of(trial) for trial in self.looked_at}
        points = list(self._space.points())
        Random(f"{self._seed}/{len(seen)}").shuffle(points)
        for point in sorted(points, key=suggested.distance):
            try:
                recipe = str(self._plugins.recipe(point.recipe))
            except HarnessError:
                recipe = point.recipe
            if Candidate(recipe, point.octave) not in seen:
                return point
        return None


def candidate_of(trial: Trial) -> Candidate:
    """Return the candidate of a trial."""
    return Candidate(trial.notes["recipe"], trial.notes["octave"])
