"""ROUGE: F1 with Porter stemming, the values of the rouge-score package at many times its speed."""

from __future__ import annotations

import functools
import importlib.metadata
import re
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from itertools import pairwise

from harness import Metric, Score
from tasks.metrics.porter import porter_stemmer

_TOKEN = re.compile("[a-z0-9]+")

Tokens = list[str]


class Rouge(Metric):
    """ROUGE-1, ROUGE-2, ROUGE-L and ROUGE-Lsum (Lin 2004).

    The values equal those of ``rouge_score.RougeScorer(..., use_stemmer=True)`` 0.1.2. They come
    sooner because each distinct word is stemmed once, and because the table of the longest common
    subsequence is held as one integer a row, so that a row is a handful of integer operations
    (Hyyrö 2004). ROUGE-Lsum takes lines as sentences, as the package does unless told otherwise.
    """

    names = ("rouge1", "rouge2", "rougeL", "rougeLsum")

    def score(
        self, sources: Sequence[str], predictions: Sequence[str], references: Sequence[str]
    ) -> dict[str, Score]:
        """Score all examples; the sources are not used."""
        rows = [
            rouge(prediction, reference)
            for prediction, reference in zip(predictions, references, strict=True)
        ]
        return {
            name: Score.mean([100 * row[column] for row in rows], _signature(name))
            for column, name in enumerate(self.names)
        }


def rouge(prediction: str, reference: str) -> tuple[float, float, float, float]:
    """Return the F1 of ROUGE-1, ROUGE-2, ROUGE-L and ROUGE-Lsum, between 0 and 1."""
    predicted_lines = [_tokenize(line) for line in prediction.split("\n")]
    reference_lines = [_tokenize(line) for line in reference.split("\n")]
    # A line break separates words, so the tokens of the text are those of its lines.
    predicted = [token for line in predicted_lines for token in line]
    expected = [token for line in reference_lines for token in line]

    total = len(predicted) + len(expected)
    longest = _lcs_length(expected, predicted)
    if len(predicted_lines) == len(reference_lines) == 1:
        summary_longest = longest
    else:
        union = [token for line in reference_lines for token in _union_lcs(line, predicted_lines)]
        # A predicted word may account for no more reference words than it has occurrences.
        summary_longest = _overlap(union, predicted)
    return (
        _f1(_overlap(expected, predicted), total),
        _f1(_overlap(pairwise(expected), pairwise(predicted)), total - 2),
        _f1(longest, total),
        _f1(summary_longest, total),
    )


def _signature(name: str) -> str:
    sentences = "|sentences:lines" if name == "rougeLsum" else ""
    stemmer = f"porter-nltk-{importlib.metadata.version('nltk')}"
    return f"{name}|measure:f1|stemmer:{stemmer}{sentences}|aggregate:mean|rouge-score:0.1.2"


def _tokenize(text: str) -> Tokens:
    return [_stem(word) for word in _TOKEN.findall(text.lower())]


@functools.lru_cache(maxsize=1 << 18)
def _stem(word: str) -> str:
    # The original ROUGE script leaves words of up to three characters as they are.
    return str(porter_stemmer().stem(word)) if len(word) > 3 else word


def _f1(hits: int, total: int) -> float:
    """F1 of ``hits`` shared items, where prediction and reference hold ``total`` together."""
    return 2 * hits / total if hits else 0.0


def _overlap(left: Iterable[Hashable], right: Iterable[Hashable]) -> int:
    """Size of the intersection of two multisets."""
    counts = Counter(left)
    others = Counter(right)
    return sum(min(count, others[item]) for item, count in counts.items() if item in others)


def _lcs_rows(reference: Tokens, candidate: Tokens) -> list[int]:
    """Return the table of LCS lengths as bits, one integer for each token of ``candidate``.

    Bit i of row j is *clear* where the LCS with ``candidate[: j + 1]`` grows by one as the
    reference grows from i to i + 1 tokens; two neighbours never differ by more.
    """
    positions: dict[str, int] = {}
    for index, token in enumerate(reference):
        positions[token] = positions.get(token, 0) | 1 << index
    mask = (1 << len(reference)) - 1
    row = mask
    rows = []
    for token in candidate:
        matches = row & positions.get(token, 0)
        row = ((row + matches) | (row - matches)) & mask
        rows.append(row)
    return rows


def _lcs_length(reference: Tokens, candidate: Tokens) -> int:
    rows = _lcs_rows(reference, candidate)
    return len(reference) - rows[-1].bit_count() if rows else 0


def _union_lcs(reference: Tokens, candidates: list[Tokens]) -> Tokens:
    """Return the tokens of a sentence that lie on its LCS with any candidate sentence."""
    found: set[int] = set()
    for candidate in candidates:
        rows = _lcs_rows(reference, candidate)
        i, j = len(reference), len(candidate)
        # There may be several longest subsequences: at a tie this walks back through the
        # reference first, as the package does, or the union would be another one.
        while i and j:
            if reference[i - 1] == candidate[j - 1]:
                i, j = i - 1, j - 1
                found.add(i)
            elif rows[j - 1] >> (i - 1) & 1:
                i -= 1
            else:
                j -= 1
    return [reference[index] for index in sorted(found)]
