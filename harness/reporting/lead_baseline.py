"""The lead baseline (Lead-N): the first words of the source, which need no training.

A share of full fine-tuning's value is high wherever any text scores well. The share above the lead
baseline tells how much of the gain from training a recipe keeps.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.api.metric import Score
from harness.records.run_folder import StoredRun
from harness.reporting.scores import (
    RunScores,
    by_cluster,
    metric_for,
    read_prediction_rows,
    references_in,
)

_CHEAP = (
    "rouge1",
    "rouge2",
    "rougeL",
    "rougeLsum",
    "bleu",
    "bleu1_precision",
    "bleu4_precision",
    "chrf",
)
"""Metrics that take seconds; any other may run a model on every example."""
_LONGEST_WORD = 20
"""Largest mean number of characters between white space that counts as words."""


def lead(source: str, references: Sequence[str]) -> str:
    """Return the beginning of the source, as long as the mean of an example's references.

    The length is counted in words. It is counted in characters if the pieces between white space
    are longer than 20 characters on average, as in Chinese or Thai.

    Args:
        source: the source text.
        references: the references of the example.
    """
    characters = sum(map(len, references))
    words = sum(len(reference.split()) for reference in references)
    if characters > _LONGEST_WORD * words:
        return source[: round(characters / len(references))]
    return " ".join(source.split()[: round(words / len(references))])


def score_lead_baseline(run: StoredRun) -> RunScores:
    """Score the lead baseline on a run's test examples, by the run's own metrics.

    Args:
        run: a run whose predictions hold the sources.

    Returns:
        A score for each metric, or the reason why it is missing.

    Raises:
        HarnessError: the predictions are missing or damaged.
    """
    rows = read_prediction_rows(run.folder)
    lead_scores = RunScores([str(row["id"]) for row in rows], {}, {})
    if not all("source" in row and "reference" in row for row in rows):
        lead_scores.missing.update(dict.fromkeys(run.report.quality, "the sources are not stored"))
        return lead_scores
    sources, references = [str(row["source"]) for row in rows], references_in(rows)
    several = [texts if isinstance(texts, list) else [texts] for texts in references]
    leads = list(map(lead, sources, several))
    scores: dict[str, Score] = {}
    for name, value in run.report.quality.items():
        if name not in _CHEAP:
            lead_scores.missing[name] = (
                "the lead baseline is not scored by metrics that may take a model"
            )
            continue
        if name not in scores:
            metric = metric_for(name, value)
            if isinstance(metric, str):
                lead_scores.missing[name] = metric
                continue
            scores |= by_cluster(metric.score(sources, leads, references), rows)
        if scores[name].signature == value.signature:
            lead_scores.scores[name] = scores[name]
        else:
            lead_scores.missing[name] = (
                f"the runs were scored as {value.signature}, the lead baseline would be scored as "
                f"{scores[name].signature}"
            )
    return lead_scores
