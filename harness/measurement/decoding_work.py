"""Work of a measurement of decoding: its sources, its size and the time that it may take."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import NamedTuple

import numpy as np

from harness.data.calibration import CalibrationData
from harness.measurement.probe import FrozenSchedule
from harness.spec.decoding import DecodingSettings

SHARE = 0.15
"""Largest share of a run's time that the measurement may take."""
MOST_SECONDS = 90.0
"""Largest time of the measurement, however long the run is."""
MOST_EXAMPLES = 32
"""Largest number of examples that a window decodes one by one."""

Sources = Sequence[Sequence[int]]
"""Token ids of several sources."""


@dataclass(frozen=True)
class FrozenDecoding:
    """Work that every measured process decodes.

    Attributes:
        settings: settings of the search; each example generates exactly ``max_new_tokens``.
        sources: sources that are decoded one by one.
        batch: sources that are decoded at once.
        longest: the longest sources, decoded at once, on which memory is measured.
        calibration: training examples for compressors that need some; None gives them random ones.
    """

    settings: DecodingSettings
    sources: Sources
    batch: Sources
    longest: Sources
    calibration: CalibrationData | None = None

    @property
    def first_token(self) -> DecodingSettings:
        """Settings with which each example generates one token."""
        return self.settings.model_copy(update={"max_new_tokens": 1, "min_new_tokens": 1})


def freeze_decoding(frozen: FrozenSchedule, settings: DecodingSettings) -> FrozenDecoding:
    """Take the sources to decode from a probe's steps.

    Each example generates as many tokens as the targets of these steps have on average, at most as
    many as the settings allow. A source may occur several times if there are few.

    Args:
        frozen: the steps of the probe.
        settings: the settings of the test split; the batch has ``batch_size`` examples.
    """
    sources = [e.source for step in frozen.steps for batch in step.micro_batches for e in batch]
    longest = [e.source for batch in frozen.longest.micro_batches for e in batch]
    tokens = max(1, min(settings.max_new_tokens, round(frozen.mean_target_tokens)))
    fixed = {"max_new_tokens": tokens, "min_new_tokens": tokens}
    return FrozenDecoding(
        settings=DecodingSettings.model_validate({**settings.of_search().model_dump(), **fixed}),
        sources=list(islice(cycle(sources), MOST_EXAMPLES)),
        batch=list(islice(cycle(sources), settings.batch_size)),
        longest=list(islice(cycle(longest), settings.batch_size)),
        calibration=frozen.calibration,
    )


def run_budget(elapsed: float, training: float) -> float:
    """Return the seconds that the measurement may take within a run, of which they are a part.

    Args:
        elapsed: seconds of the run so far.
        training: seconds that the optimizer steps of the run will take. The other phases to come
            are not counted, so that the budget is rather too small.
    """
    return min(MOST_SECONDS, SHARE / (1 - SHARE) * (elapsed + training))


class Windows(NamedTuple):
    """Size of a measurement.

    Attributes:
        rounds: rounds of windows.
        examples: examples that each window decodes one by one.
        batch: whether each window also decodes the batch.
    """

    rounds: int
    examples: int
    batch: bool


def choose_windows(
    budget: float, example: float, batch: float, most_rounds: int, most_examples: int
) -> Windows:
    """Choose the most rounds, then the most examples, whose windows fit a budget.

    There are always two rounds and one example. The batch is left out if these do not fit with it.

    Args:
        budget: seconds for all windows.
        example: seconds that an example adds to a round.
        batch: seconds that the batch adds to a round.
        most_rounds: largest number of rounds, at least 2.
        most_examples: largest number of examples, at least 1.
    """

    def examples(rounds: int, others: float) -> int:
        room = max(0.0, budget / rounds - others)
        return int(min(most_examples, room / example)) if example > 0 else most_examples

    for rounds in range(most_rounds, 1, -1):
        if count := examples(rounds, batch):
            return Windows(rounds, count, True)
    return Windows(2, max(1, examples(2, 0)), False)


def sources_hash(*groups: Sources) -> str:
    """Return a hash of the token ids of groups of sources, and of their order."""
    digest = hashlib.sha256()
    for group in groups:
        for source in group:
            digest.update(np.array(source, np.int32).tobytes() + b"s")
        digest.update(b"g")
    return digest.hexdigest()
