"""BLEU, its n-gram precisions, and chrF, with sacreBLEU."""

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
    """Tokenizer of sacreBLEU: zh and ja-mecab for Chinese and Japanese, char for any script without
    spaces between words, flores200 for any language."""


class Bleu(Metric):
    """BLEU (Papineni et al. 2002), and n-gram precisions that some papers call BLEU.

    ``bleu`` is corpus BLEU: a brevity penalty times the geometric mean of four precisions. The
    value of a single example uses only the orders that it is long enough for. The scores
    ``bleu1_precision`` and ``bleu4_precision`` are corpus n-gram precisions of order 1 and 4:
    matched divided by predicted n-grams, without brevity penalty and smoothing. With several
    references, an n-gram of any of them matches, as in sacreBLEU.
    """

    names = ("bleu", "bleu1_precision", "bleu4_precision")
    several_references: ClassVar[bool] = True
    Options = BleuOptions
    options: BleuOptions

    def unavailable(self) -> str | None:
        """Return what the tokenizer needs and is missing here, or ``None``."""
        return tokenizers.missing_for(self.options.tokenize)

    def unreadable(self, references: Sequence[str | list[str]]) -> str | None:
        """Return a reason if the tokenizer does not separate the words of most references."""
        name = self.options.tokenize
        texts = tokenizers.texts_of(references)
        if tokenizers.undivided_share(texts, tokenizers.sacrebleu_tokens(name)) <= 0.5:
            return None
        return (
            f"BLEU's tokenizer {name!r} does not separate the words of the references. Use one for "
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

    several = tuple(
        (reference,) if isinstance(reference, str) else tuple(reference) for reference in references
    )
    metric = _prepared(kind, several)
    # sacreBLEU's own significance tests use this method; its public methods do not return the
    # sufficient statistics of each example.
    rows = metric._extract_corpus_statistics(list(predictions), None)
    return np.asarray(rows, dtype=np.float64), metric.get_signature().format()


@functools.lru_cache(maxsize=4)
def _prepared(kind: Callable[..., Any], references: tuple[tuple[str, ...], ...]) -> Any:
    """Return sacreBLEU's metric with preprocessed references, which a report uses for many runs.

    sacreBLEU takes references as streams, with None if an example has fewer.
    """
    return kind(references=[list(stream) for stream in zip_longest(*references)])


def _precision(sums: FloatArray) -> FloatArray:
    import numpy as np

    precision: FloatArray = 100 * sums[:, 0] / np.maximum(sums[:, 1], 1)
    return precision
