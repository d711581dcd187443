"""BLEU, its n-gram precisions, and chrF, all by sacreBLEU."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from harness import Metric, Score
from tasks.metrics.corpus_formulas import bleu_values, chrf_values

if TYPE_CHECKING:
    from harness.metric import FloatArray

_ORDERS = 4


class Bleu(Metric):
    """BLEU (Papineni et al. 2002), and the precisions that some papers print under its name.

    ``bleu`` is the true corpus BLEU, with a brevity penalty over the geometric mean of four
    precisions; an example's own value uses the orders that it is long enough for. The scores
    ``bleu1_precision`` and ``bleu4_precision`` are corpus n-gram precisions of order 1 and 4
    alone: matched over predicted n-grams, no brevity penalty, no smoothing.
    """

    names = ("bleu", "bleu1_precision", "bleu4_precision")

    def score(
        self, sources: Sequence[str], predictions: Sequence[str], references: Sequence[str]
    ) -> dict[str, Score]:
        """Score all examples; the sources are not used."""
        import sacrebleu
        from sacrebleu.metrics.bleu import BLEU

        statistics, signature = _statistics(BLEU, predictions, references)
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
                f"ngram-precision|order:{order}|nrefs:1|case:mixed|tok:13a|smooth:none"
                f"|version:{sacrebleu.__version__}",
                matched_and_total,
                _precision,
            )
        return scores


class Chrf(Metric):
    """chrF (Popović 2015): F2 over character n-grams of order 1 to 6."""

    names = ("chrf",)

    def score(
        self, sources: Sequence[str], predictions: Sequence[str], references: Sequence[str]
    ) -> dict[str, Score]:
        """Score all examples; the sources are not used."""
        from sacrebleu.metrics.chrf import CHRF

        statistics, signature = _statistics(CHRF, predictions, references)
        examples = chrf_values(statistics).tolist()
        return {"chrf": Score(examples, f"chrf|{signature}", statistics, chrf_values)}


def _statistics(
    kind: Callable[..., Any], predictions: Sequence[str], references: Sequence[str]
) -> tuple[FloatArray, str]:
    """Return sufficient statistics, of shape (examples, k), and sacreBLEU's signature."""
    import numpy as np

    metric = _prepared(kind, tuple(references))
    # The method is the one that sacreBLEU's own significance tests are built on; the public ones
    # do not give an example's sufficient statistics.
    rows = metric._extract_corpus_statistics(list(predictions), None)
    return np.asarray(rows, dtype=np.float64), metric.get_signature().format()


@functools.lru_cache(maxsize=4)
def _prepared(kind: Callable[..., Any], references: tuple[str, ...]) -> Any:
    """Return sacreBLEU's metric with its references counted: a report scores many runs by them."""
    return kind(references=[list(references)])


def _precision(sums: FloatArray) -> FloatArray:
    import numpy as np

    precision: FloatArray = 100 * sums[:, 0] / np.maximum(sums[:, 1], 1)
    return precision
