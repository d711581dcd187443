"""Events that observers of a run receive; see the observer hooks in ``harness.api.hookspecs``."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class PhaseStarted:
    """A phase begins.

    Attributes:
        phase: one of ``harness.records.phase.Phase``, as text.
        steps: number of steps it will take, if known.
    """

    phase: str
    steps: int | None = None


@dataclass(frozen=True)
class StepDone:
    """A step of the current phase is done.

    Attributes:
        step: 1 for the first one.
        values: values of the step, e.g. ``loss`` (nats per target token) and ``learning_rate``.
    """

    step: int
    values: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluated:
    """The eval split was scored during training.

    Attributes:
        step: optimizer steps done so far.
        epoch: passes over the training split done so far.
        values: metric name -> corpus value, in percent.
        best: whether this is the best value of the primary metric so far.
    """

    step: int
    epoch: float
    values: dict[str, float]
    best: bool


@dataclass(frozen=True)
class DataRead:
    """The task's data are read; nothing else has started.

    Attributes:
        notes: sentences on what was guessed, left out and truncated.
    """

    notes: tuple[str, ...]
