"""Corpus BLEU and chrF from sums of statistics, for thousands of sums at once.

The formulas are those of sacreBLEU, which computes one sum at a time; a bootstrap would spend most
of its time there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness import FloatArray

_ORDERS = 4
_NO_PRECISION = -9999999999.0
"""sacreBLEU's logarithm of zero."""


def bleu_values(sums: FloatArray, effective_order: bool = False) -> FloatArray:
    """Return BLEU in percent, with exponential smoothing.

    Args:
        sums: of shape (sums, 10): predicted length, reference length, 4 counts of matched and 4 of
            predicted n-grams.
        effective_order: whether to use only the orders that the predictions are long enough for.
    """
    import numpy as np

    predicted, expected = sums[:, 0], sums[:, 1]
    matched, total = sums[:, 2 : 2 + _ORDERS], sums[:, 2 + _ORDERS :]
    # After the first order without n-grams, no order counts.
    present = np.logical_and.accumulate(total > 0, axis=1)
    halvings = np.cumsum(present & (matched == 0), axis=1)
    smoothed = np.where(matched == 0, 0.5**halvings, matched)
    precisions = np.where(present, 100 * smoothed / np.where(present, total, 1), 1)
    logs = np.where(present, np.log(precisions), 0 if effective_order else _NO_PRECISION)
    orders = np.maximum(present.sum(axis=1), 1) if effective_order else _ORDERS
    length = np.where(predicted > 0, predicted, 1)
    brevity = np.where(predicted < expected, np.exp(1 - expected / length), 1.0)
    any_match = (matched > 0).any(axis=1) & (predicted > 0)
    values: FloatArray = np.where(any_match, brevity * np.exp(logs.sum(axis=1) / orders), 0.0)
    return values


def chrf_values(sums: FloatArray, beta: float = 2) -> FloatArray:
    """Return chrF in percent, without epsilon smoothing.

    Args:
        sums: of shape (sums, 3 * orders): for each order the numbers of predicted, expected and
            matched n-grams.
        beta: the weight of recall.
    """
    import numpy as np

    predicted, expected, matched = sums[:, 0::3], sums[:, 1::3], sums[:, 2::3]
    both = (predicted > 0) & (expected > 0)
    orders = np.maximum(both.sum(axis=1), 1)
    precision = (np.where(both, matched, 0) / np.where(both, predicted, 1)).sum(axis=1) / orders
    recall = (np.where(both, matched, 0) / np.where(both, expected, 1)).sum(axis=1) / orders
    weighed = beta**2 * precision + recall
    above = 100 * (1 + beta**2) * precision * recall
    values: FloatArray = np.where(weighed > 0, above / np.where(weighed > 0, weighed, 1), 0.0)
    return values
