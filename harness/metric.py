"""The interface of a metric."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Score:
    """What a metric says of a set of predictions.

    Attributes:
        value: the corpus value; a percentage unless the signature says otherwise.
        examples: one value for each example, in order.
        signature: pins the implementation; values of unlike signatures are never compared.
        higher_is_better: the direction.
    """

    value: float
    examples: list[float]
    signature: str
    higher_is_better: bool = True


class Metric(ABC):
    """Scores predictions. One pass may yield several named scores, as ROUGE does."""

    names: tuple[str, ...]

    @abstractmethod
    def score(
        self, sources: Sequence[str], predictions: Sequence[str], references: Sequence[str]
    ) -> dict[str, Score]:
        """Score all examples; the three sequences run in parallel and are not empty."""
