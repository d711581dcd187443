"""BLEU, its n-gram precisions, and chrF, all by sacreBLEU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness import Metric, Score

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

        corpus, sentence = BLEU(), BLEU(effective_order=True)
        statistics, signature = _statistics(corpus, predictions, references)
        scores = {
            "bleu": Score(
                _values(sentence, statistics).tolist(),
                f"bleu|{signature}",
                statistics,
                lambda sums: _values(corpus, sums),
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

        chrf = CHRF()
        statistics, signature = _statistics(chrf, predictions, references)
        examples = _values(chrf, statistics).tolist()
        score = Score(examples, f"chrf|{signature}", statistics, lambda sums: _values(chrf, sums))
        return {"chrf": score}


# The two methods below with a leading underscore are those that sacreBLEU's own significance
# tests are built on; the public ones do not give an example's sufficient statistics.


def _statistics(
    metric: Any, predictions: Sequence[str], references: Sequence[str]
) -> tuple[FloatArray, str]:
    """Return sufficient statistics, of shape (examples, k), and sacreBLEU's signature."""
    import numpy as np

    rows = metric._extract_corpus_statistics(list(predictions), [list(references)])
    signature = metric.get_signature().format()
    return np.asarray(rows, dtype=np.float64), signature


def _values(metric: Any, sums: FloatArray) -> FloatArray:
    import numpy as np

    return np.array([metric._compute_score_from_stats(row).score for row in sums.tolist()])


def _precision(sums: FloatArray) -> FloatArray:
    import numpy as np

    precision: FloatArray = 100 * sums[:, 0] / np.maximum(sums[:, 1], 1)
    return precision
