"""Statistics of a data set's texts: the columns of Zhu et al. 2023, table 1.

*Words* are separated by white space. A *sentence* ends with ``.``, ``!`` or ``?`` before white
space or the end of the text, except after a single character, as in "1." or "J.". The sentence
marks of Chinese, Japanese, Hindi and Arabic always end a sentence. Words after the last sentence
end are one more sentence. *Novel n-grams* are the share of a target's distinct n-grams that its
source does not contain, averaged over the examples whose target has n-grams. For them, words are
runs of letters and digits in lower case.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import regex

_WORD = regex.compile(r"[\p{L}\p{M}\p{N}_]+")
_SENTENCE_END = re.compile(
    r"(?<=[^\s.!?]{2})[.!?]+[\"')\]]*(?=\s|$)|[\u3002\uff01\uff1f\u0964\u0965\u061f]+"
)


@dataclass(frozen=True)
class TextStatistics:
    """Means over examples.

    Attributes:
        examples: number of examples.
        source_sentences: mean number of sentences of a source.
        source_words: mean number of words of a source.
        target_sentences: mean number of sentences of a target.
        target_words: mean number of words of a target.
        novel_unigrams_pct: distinct words of a target that are not in its source, in percent;
            None if no target has words.
        novel_bigrams_pct: distinct pairs of neighbouring words of a target that are not in its
            source, in percent; None if no target has any.
    """

    examples: int
    source_sentences: float
    source_words: float
    target_sentences: float
    target_words: float
    novel_unigrams_pct: float | None
    novel_bigrams_pct: float | None


def describe_texts(pairs: Iterable[tuple[str, str]]) -> TextStatistics:
    """Return the statistics of pairs of source and target, in one pass and constant memory."""
    sentences, words = (_Mean(), _Mean()), (_Mean(), _Mean())
    novelty = (_Mean(), _Mean())
    for pair in pairs:
        for side, text in enumerate(pair):
            sentences[side].add(count_sentences(text))
            words[side].add(len(text.split()))
        source, target = map(words_of, pair)
        for order, mean in enumerate(novelty, start=1):
            grams = _ngrams(target, order)
            if grams:
                mean.add(100 * len(grams - _ngrams(source, order)) / len(grams))
    return TextStatistics(
        examples=words[0].count,
        source_sentences=sentences[0].value or 0.0,
        source_words=words[0].value or 0.0,
        target_sentences=sentences[1].value or 0.0,
        target_words=words[1].value or 0.0,
        novel_unigrams_pct=novelty[0].value,
        novel_bigrams_pct=novelty[1].value,
    )


def words_of(text: str) -> list[str]:
    """Return the runs of letters and digits of a text, in lower case."""
    words: list[str] = _WORD.findall(text.lower())
    return words


def count_sentences(text: str) -> int:
    """Return the number of sentences, as defined above."""
    return sum(1 for piece in _SENTENCE_END.split(text) if piece and not piece.isspace())


def _ngrams(words: list[str], order: int) -> set[tuple[str, ...]]:
    return set(zip(*(words[start:] for start in range(order)), strict=False))


class _Mean:
    """A mean that is computed from a running sum."""

    def __init__(self) -> None:
        self.count = 0
        self._sum = 0.0

    def add(self, value: float) -> None:
        self.count += 1
        self._sum += value

    @property
    def value(self) -> float | None:
        return self._sum / self.count if self.count else None
