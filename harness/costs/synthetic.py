"""Examples of a given length profile, for measuring without data."""

from __future__ import annotations

import numpy as np

from harness.api.task import LengthProfile
from harness.data.examples import Example

_SPREAD = 0.6
"""Standard deviation of the logarithm of a length, as texts of one kind commonly have it."""


def draw_examples(
    profile: LengthProfile,
    max_source: int,
    max_target: int,
    vocabulary: int,
    count: int,
    seed: int,
) -> list[Example]:
    """Draw examples whose lengths are log-normal around a profile, cut at a task's limits.

    Args:
        profile: mean lengths in tokens, before they are cut.
        max_source: largest number of tokens in a source.
        max_target: largest number of tokens in a target.
        vocabulary: number of token ids. Ids are drawn at random; random tokens cost as much to
            train on as real text.
        count: number of examples.
        seed: seeds the generator; equal seeds give equal examples.
    """
    random = np.random.default_rng(seed)

    def lengths(mean: float, limit: int) -> list[int]:
        # The mean of a log-normal variable is exp(mu + sigma^2 / 2).
        drawn = random.lognormal(np.log(mean) - _SPREAD**2 / 2, _SPREAD, count)
        return [int(length) for length in np.clip(np.rint(drawn), 2, limit)]

    def tokens(length: int) -> list[int]:
        # The lowest ids are special tokens in every model family.
        return [int(token) for token in random.integers(10, vocabulary, length)]

    sources = lengths(profile.source_mean, max_source)
    targets = lengths(profile.target_mean, max_target)
    return [Example(tokens(s), tokens(t)) for s, t in zip(sources, targets, strict=True)]
