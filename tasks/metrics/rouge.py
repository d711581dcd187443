"""ROUGE: F1 with Porter stemming, equal to the rouge-score package and much faster."""

from __future__ import annotations

import importlib.metadata
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from functools import partial
from itertools import pairwise
from typing import ClassVar, Literal

from harness import Metric, Options, Score
from tasks.metrics import sentences, tokenizers
from tasks.metrics.tokenizers import SacreBleuName, Tokenizer

Tokens = list[str]


class RougeOptions(Options):
    """Division of the texts into tokens and sentences."""

    tokenizer: Literal["reference", "unicode"] | SacreBleuName = "reference"
    """Tokenizer. reference: stemmed runs of a-z and 0-9; unicode: runs of letters of any script,
    and single characters in scripts without spaces between words; others: sacreBLEU's, in lower
    case."""
    sentences: Literal["lines", "split"] = "lines"
    """Sentences of rougeLsum. lines: the lines of the text; split: sentences found by a splitter,
    as in transformers' scripts."""


class Rouge(Metric):
    """ROUGE-1, ROUGE-2, ROUGE-L and ROUGE-Lsum (Lin 2004).

    The values equal those of ``rouge_score.RougeScorer(..., use_stemmer=True)`` 0.1.2. The code is
    faster because each distinct word is stemmed once, and because each row of the table of the
    longest common subsequence is one integer, which needs a few integer operations (Hyyrö 2004).
    ROUGE-Lsum uses lines as sentences, as the package does by default. With several references,
    each of the four scores uses the best one, as the package's ``score_multi`` does.
    """

    names = ("rouge1", "rouge2", "rougeL", "rougeLsum")
    several_references: ClassVar[bool] = True
    Options = RougeOptions
    options: RougeOptions

    def unavailable(self) -> str | None:
        """Return what the tokenizer needs and is missing here, or ``None``."""
        return tokenizers.missing_for(self.options.tokenizer)

    def unreadable(self, references: Sequence[str | list[str]]) -> str | None:
        """Return a reason if the tokenizer drops most letters or does not separate most words."""
        texts, tokenize = tokenizers.texts_of(references), self._tokenizer()
        name = self.options.tokenizer
        dropped = tokenizers.dropped_share(texts, tokenize)
        if dropped > 0.5:
            return (
                f"ROUGE's tokenizer {name!r} drops {100 * dropped:.0f} % of the references' "
                "letters and digits. Use one for their script: --metrics rouge:tokenizer=unicode"
            )
        if tokenizers.undivided_share(texts, tokenize) > 0.5:
            return (
                f"ROUGE's tokenizer {name!r} does not separate the words of the references. Use "
                "one "
                "that does: --metrics rouge:tokenizer=unicode"
            )
        return None

    def score(
        self,
        sources: Sequence[str],
        predictions: Sequence[str],
        references: Sequence[str | list[str]],
    ) -> dict[str, Score]:
        """Score all examples; the sources are not used."""
        compute = partial(
            rouge, tokenize=self._tokenizer(), split=self.options.sentences == "split"
        )
        rows = []
        for prediction, expected in zip(predictions, references, strict=True):
            several = [expected] if isinstance(expected, str) else expected
            per_reference = [compute(prediction, reference) for reference in several]
            rows.append([max(values) for values in zip(*per_reference, strict=True)])
        best = any(not isinstance(reference, str) for reference in references)
        return {
            name: Score.mean([100 * row[column] for row in rows], self._signature(name, best))
            for column, name in enumerate(self.names)
        }

    def _tokenizer(self) -> Tokenizer:
        name = self.options.tokenizer
        if name == "reference":
            return tokenizers.reference_tokens
        if name == "unicode":
            return tokenizers.any_script_tokens
        return tokenizers.lower_sacrebleu_tokens(name)

    def _signature(self, name: str, best: bool) -> str:
        tokenizer = self.options.tokenizer
        parts = [name, "measure:f1"]
        if tokenizer in ("reference", "unicode"):
            parts.append(f"stemmer:porter-nltk-{importlib.metadata.version('nltk')}")
        if tokenizer == "unicode":
            parts.append(f"tokenizer:unicode-regex-{importlib.metadata.version('regex')}")
        elif tokenizer != "reference":
            version = importlib.metadata.version("sacrebleu")
            parts += ["stemmer:none", f"tokenizer:lower-{tokenizer}-sacrebleu-{version}"]
        if name == "rougeLsum":
            split = self.options.sentences == "split"
            parts.append(f"sentences:{sentences.SIGNATURE if split else 'lines'}")
        parts += ["references:best"] if best else []
        return "|".join([*parts, "aggregate:mean", "rouge-score:0.1.2"])


def rouge(
    prediction: str,
    reference: str,
    tokenize: Tokenizer = tokenizers.reference_tokens,
    split: bool = False,
) -> tuple[float, float, float, float]:
    """Return the F1 of ROUGE-1, ROUGE-2, ROUGE-L and ROUGE-Lsum, between 0 and 1.

    Args:
        prediction: predicted text.
        reference: reference text.
        tokenize: tokenizer of a text without line breaks.
        split: whether a splitter finds sentences; otherwise lines are sentences.
    """
    predicted_lines = [tokenize(line) for line in _sentences(prediction, split)]
    reference_lines = [tokenize(line) for line in _sentences(reference, split)]
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


def _sentences(text: str, split: bool) -> list[str]:
    lines = text.split("\n")
    if not split:
        return lines
    return [sentence for line in lines for sentence in sentences.split_sentences(line)] or [""]


def _f1(hits: int, total: int) -> float:
    """Return the F1 of ``hits`` shared items; ``total`` counts prediction and reference."""
    return 2 * hits / total if hits else 0.0


def _overlap(left: Iterable[Hashable], right: Iterable[Hashable]) -> int:
    """Return the size of the intersection of two multisets."""
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
    indices: set[int] = set()
    for candidate in candidates:
        rows = _lcs_rows(reference, candidate)
        i, j = len(reference), len(candidate)
        # There may be several longest subsequences. At a tie this steps back in the reference
        # first, as the package does; otherwise the union would differ.
        while i and j:
            if reference[i - 1] == candidate[j - 1]:
                i, j = i - 1, j - 1
                indices.add(i)
            elif rows[j - 1] >> (i - 1) & 1:
                i -= 1
            else:
                j -= 1
    return [reference[index] for index in sorted(indices)]
