"""BLEU, its n-gram precisions, and chrF, all by sacreBLEU."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, ClassVar

from harness import Metric, Options, Score
from tasks.metrics import tokenizers
from tasks.metrics.corpus_formulas import bleu_values, chrf_values

if TYPE_CHECKING:
    from harness import FloatArray

_ORDERS = 4


class BleuOptions(Options):
    """Tokenization of the texts."""

    tokenize: tokenizers.SacreBleuName = "13a"
    """sacreBLEU's tokenizer: zh and ja-mecab for Chinese and Japanese, char for any script that
    does not divide words, flores200 for any language."""


class Bleu(Metric):
    """BLEU (Papineni et al. 2002), and the precisions that some papers print under its name.

    ``bleu`` is the true corpus BLEU, with a brevity penalty over the geometric mean of four
    precisions; an example's own value uses the orders that it is long enough for. The scores
    ``bleu1_precision`` and ``bleu4_precision`` are corpus n-gram precisions of order 1 and 4
    alone: matched over predicted n-grams, no brevity penalty, no smoothing. An n-gram of any of
    several references matches, as in sacreBLEU.
    """

    names = ("bleu", "bleu1_precision", "bleu4_precision")
    several_references: ClassVar[bool] = True
    Options = BleuOptions
    options: BleuOptions

    def unavailable(self) -> str | None:
        """Say what the tokenizer lacks here, or ``None``."""
        return tokenizers.missing_for(self.options.tokenize)

    def unreadable(self, references: Sequence[str | list[str]]) -> str | None:
        """Say so where the tokenizer does not divide most of the references into words."""
        name = self.options.tokenize
        texts = tokenizers.texts_of(references)
        if tokenizers.undivided_share(texts, tokenizers.sacrebleu_tokens(name)) <= 0.5:
            return None
        return (
            f"BLEU's tokenizer {name!r} does not divide the references into words. Take one for "
            "their script: --metrics bleu:tokenize=zh (Chinese), or bleu:tokenize=char"
        )

    def score(
        self,
        sources: Sequence[str],
        predictions: Sequence[str],
        references: Sequence[str | list[str]],
    ) -> dict[str, Score]:
        """Score all examples; the sources are not used."""
        import sacrebleu
        from sacrebleu.metrics.bleu import BLEU

        tokenizer = self.options.tokenize
        kind = functools.partial(BLEU, tokenize=tokenizer) if tokenizer != "13a" else BLEU
        statistics, signature = _statistics(kind, predictions, references)
        count = signature.partition("nrefs:")[2].partition("|")[0]
        scores = {
            "bleu": Score(
                bleu_values(statistics, effective_order=True).tolist(),
                f"bleu|{signature}",
                statistics,
                bleu_values,
            )
        }
        for order, name in ((1, "bleu1_precision"), (4, "bleu4_precision")):
            # Columns: predicted length, reference length, 4 counts of matches, 4 of n-grams.
            matched_and_total = statistics[:, [1 + order, 1 + _ORDERS + order]]
            scores[name] = Score(
                _precision(matched_and_total).tolist(),
                f"ngram-precision|order:{order}|nrefs:{count}|case:mixed|tok:{tokenizer}|smooth:none"
                f"|version:{sacrebleu.__version__}",
                matched_and_total,
                _precision,
            )
        return scores


class Chrf(Metric):
    """chrF (Popović 2015): F2 over character n-grams of order 1 to 6."""

    names = ("chrf",)
    several_references: ClassVar[bool] = True

    def score(
        self,
        sources: Sequence[str],
        predictions: Sequence[str],
        references: Sequence[str | list[str]],
    ) -> dict[str, Score]:
        """Score all examples; the sources are not used."""
        from sacrebleu.metrics.chrf import CHRF

        statistics, signature = _statistics(CHRF, predictions, references)
        examples = chrf_values(statistics).tolist()
        return {"chrf": Score(examples, f"chrf|{signature}", statistics, chrf_values)}


def _statistics(
    kind: Callable[..., Any], predictions: Sequence[str], references: Sequence[str | list[str]]
) -> tuple[FloatArray, str]:
    """Return sufficient statistics, of shape (examples, k), and sacreBLEU's signature."""
    import numpy as np

    several = tuple((each,) if isinstance(each, str) else tuple(each) for each in references)
    metric = _prepared(kind, several)
    # The method is the one that sacreBLEU's own significance tests are built on; the public ones
    # do not give an example's sufficient statistics.
    rows = metric._extract_corpus_statistics(list(predictions), None)
    return np.asarray(rows, dtype=np.float64), metric.get_signature().format()


@functools.lru_cache(maxsize=4)
def _prepared(kind: Callable[..., Any], references: tuple[tuple[str, ...], ...]) -> Any:
    """Return sacreBLEU's metric with its references counted: a report scores many runs by them.

    sacreBLEU takes them as streams, with None where an example has no more.
    """
    return kind(references=[list(stream) for stream in zip_longest(*references)])


def _precision(sums: FloatArray) -> FloatArray:
    import numpy as np

    precision: FloatArray = 100 * sums[:, 0] / np.maximum(sums[:, 1], 1)
    return precision
