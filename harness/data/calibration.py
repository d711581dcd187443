"""The examples that compressors may look at before training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from harness.api.context import MOST_EXAMPLES
from harness.data.examples import Example


@dataclass(frozen=True)
class CalibrationData:
    """Examples for ``Context.calibration``.

    Attributes:
        examples: the examples, in random order; the first N are a random sample too.
        synthetic: whether their tokens are random.
    """

    examples: tuple[Example, ...]
    synthetic: bool = False

    @classmethod
    def sample(
        cls, examples: Sequence[Example], seed: int, synthetic: bool = False
    ) -> CalibrationData:
        """Draw as many examples as a compressor can ask for, or all if there are fewer.

        Args:
            examples: the training split.
            seed: seeds the draw; equal seeds give equal samples.
            synthetic: whether the tokens are random.
        """
        chosen = Random(seed).sample(range(len(examples)), min(MOST_EXAMPLES, len(examples)))
        return cls(tuple(examples[i] for i in chosen), synthetic)
