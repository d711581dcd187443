"""The formulas over many sums at once against sacreBLEU's own, which take one."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from tasks.metrics.corpus_formulas import bleu_values, chrf_values


def sums(orders: int, seed: int) -> NDArray[np.int64]:
    """Counts of texts from no to thousands of words, with few matches or many."""
    rng = np.random.default_rng(seed)
    total = np.maximum(rng.choice([0, 3, 4, 9, 5000], size=(4000, 1)) - np.arange(orders), 0)
    matched = rng.binomial(total, rng.choice([0, 0.01, 0.4, 1], size=(4000, 1)))
    return np.stack([total, matched])


@pytest.mark.parametrize("effective_order", [False, True])
def test_bleu_is_sacrebleus(effective_order: bool) -> None:
    total, matched = sums(4, 0)
    expected = np.random.default_rng(1).choice([0, 2, 8, 4000], size=len(total))
    rows = np.column_stack([total[:, 0], expected, matched, total]).astype(np.float64)
    package = BLEU(effective_order=effective_order)
    values = [package._compute_score_from_stats(row.astype(int).tolist()).score for row in rows]
    assert bleu_values(rows, effective_order) == pytest.approx(values, abs=1e-9)


def test_chrf_is_sacrebleus() -> None:
    predicted, matched = sums(6, 2)
    extra = np.random.default_rng(3).choice([-2, 0, 5, 800], size=(len(predicted), 1))
    expected = np.maximum(predicted + extra, matched)
    rows = np.stack([predicted, expected, matched], axis=2).reshape(len(predicted), -1)
    values = [CHRF()._compute_score_from_stats(row.tolist()).score for row in rows]
    assert chrf_values(rows.astype(np.float64)) == pytest.approx(values, abs=1e-9)
