"""Optuna's part: which point to try next, and a file of all trials that a search resumes from.

Each trial is asked of a sampler whose seed is derived from the search's seed and the trial's
number. A search that was stopped asks for the same points as one that was not, as long as the
answers to earlier trials are the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from harness.errors import HarnessError
from harness.searching.space import Point, Space

FILE = "trials.log"
_NOTES = "notes"
_RANDOM_TRIALS = 10
"""Trials before the sampler's model of the answers is used."""


@dataclass(frozen=True)
class Trial:
    """A trial.

    Attributes:
        number: its number.
        is_answered: false while its candidate may still be trained.
        notes: what was noted of it; empty if the search was stopped in between.
    """

    number: int
    is_answered: bool
    notes: dict[str, Any]


class Study:
    """Trials of a search, kept in its folder.

    Args:
        folder: the search's folder.
        space: the points to choose from.
        seed: seeds the choice.

    Raises:
        HarnessError: Optuna is not installed.
    """

    def __init__(self, folder: Path, space: Space, seed: int) -> None:
        optuna = import_optuna()
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        self._optuna = optuna
        self._space, self._seed = space, seed
        self._study = optuna.create_study(
            study_name="search",
            storage=JournalStorage(JournalFileBackend(str(folder / FILE))),
            # Quality, speed, memory.
            directions=["maximize", "maximize", "minimize"],
            load_if_exists=True,
        )

    @property
    def trials(self) -> list[Trial]:
        """The trials so far, in the order in which they were asked."""
        running = self._optuna.trial.TrialState.RUNNING
        return [
            Trial(trial.number, trial.state != running, _notes(trial)) for trial in self._asked()
        ]

    def propose(self, points: Sequence[Point]) -> None:
        """Ask for these points next, before any that the sampler chooses; not while some wait."""
        waiting = self._optuna.trial.TrialState.WAITING
        if self._study.get_trials(deepcopy=False, states=[waiting]):
            return
        for point in points:
            self._study.enqueue_trial(point.parameters)

    def ask(self) -> tuple[int, Point]:
        """Return the number and the point of a new trial."""
        seed = Random(f"{self._seed}/{len(self._asked())}").getrandbits(32)
        self._study.sampler = self._optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=_RANDOM_TRIALS
        )
        trial = self._study.ask()
        texts = [template.text for template in self._space.templates]
        template = self._space.templates[
            texts.index(trial.suggest_categorical("template", texts)) if len(texts) > 1 else 0
        ]
        values = [
            trial.suggest_categorical(choice.name, choice.values) for choice in template.choices
        ]
        octaves = self._space.octaves
        octave = trial.suggest_int("octave", -octaves, octaves) if octaves else 0
        return trial.number, template.point(values, octave)

    def note(
        self, number: int, constraints: Mapping[str, float] | None = None, **notes: Any
    ) -> None:
        """Note what a search that is resumed must know of an unanswered trial.

        Args:
            number: the trial's number.
            constraints: limits of the user -> a number above 0 where the limit is exceeded.
            notes: names and values.
        """
        trial = next(trial for trial in self._asked() if trial.number == number)
        running = self._optuna.trial.Trial(self._study, trial._trial_id)
        for name, value in (constraints or {}).items():
            running.set_constraint(name, value)
        # In one piece: a search that is killed has noted all of it or nothing.
        running.set_user_attr(_NOTES, {**_notes(trial), **notes})

    def finish(self, number: int, quality: float, speed: float, memory: float) -> None:
        """Answer a trial that was trained to its end."""
        self._study.tell(number, [quality, speed, memory])

    def prune(self, number: int) -> None:
        """Answer a trial that was rejected, or whose training was stopped early."""
        self._study.tell(number, state=self._optuna.trial.TrialState.PRUNED)

    def forget(self, number: int) -> None:
        """Answer a trial that says nothing: it repeats another, or was never begun."""
        self._study.tell(number, state=self._optuna.trial.TrialState.FAIL)

    def _asked(self) -> list[Any]:
        waiting = self._optuna.trial.TrialState.WAITING
        return [t for t in self._study.get_trials(deepcopy=False) if t.state != waiting]


def import_optuna() -> Any:
    """Return Optuna, which logs only warnings.

    Raises:
        HarnessError: it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise HarnessError(
            "A search needs the package optuna.",
            "Install it: pip install 'seq2seq-harness[search]'",
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _notes(trial: Any) -> dict[str, Any]:
    return dict(trial.user_attrs.get(_NOTES, {}))
