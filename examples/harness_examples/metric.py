"""Word error rate: the share of words to change, add or remove to get the reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness import Metric, Options, Score

if TYPE_CHECKING:
    from harness import FloatArray


class WerOptions(Options):
    """Options of ``wer``."""

    case: bool = True
    """Count words that differ only in upper and lower case as different."""


class WordErrorRate(Metric):
    """Word error rate: edits by words of the reference, over all examples; less is better."""

    names = ("wer",)
    Options = WerOptions
    options: WerOptions

    def score(
        self, sources: Sequence[str], predictions: Sequence[str], references: Sequence[str]
    ) -> dict[str, Score]:
        """Count edits and words of each example; their sums give the rate of any resample."""
        import numpy as np

        pairs = zip(map(self._words, predictions), map(self._words, references), strict=True)
        counts = np.array([(edits(said, meant), len(meant)) for said, meant in pairs], float)
        signature = f"wer|case:{'mixed' if self.options.case else 'lower'}|words:white_space"
        return {"wer": Score(_rate(counts).tolist(), signature, counts, _rate, False)}

    def _words(self, text: str) -> list[str]:
        return (text if self.options.case else text.lower()).split()


def edits(said: list[str], meant: list[str]) -> int:
    """Return the Levenshtein distance, by dynamic programming over one row of its table."""
    row = list(range(len(meant) + 1))
    for number, word in enumerate(said, start=1):
        diagonal, row[0] = row[0], number
        for i, other in enumerate(meant, start=1):
            diagonal, row[i] = row[i], min(row[i] + 1, row[i - 1] + 1, diagonal + (word != other))
    return row[-1]


def _rate(sums: FloatArray) -> FloatArray:
    rates: FloatArray = 100 * sums[:, 0] / sums[:, 1].clip(min=1)
    return rates
