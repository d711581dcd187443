"""The floor under quality: what the lead of the source scores, which no training is needed for.

A share of full fine-tuning's value flatters where any text scores well. What is kept above the
floor says how much of what training adds is kept.
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
"""What takes seconds; others may ask a model for every example."""
_LONGEST_WORD = 20
"""Characters, on average, that are still taken for a word."""


def lead(source: str, references: Sequence[str]) -> str:
    """Return the beginning of the source, as long as the mean of an example's references.

    Length is in words, or in characters where white space divides a reference into pieces that are
    no words: of more than twenty characters on average, as in Chinese or Thai.
    """
    characters = sum(map(len, references))
    words = sum(len(reference.split()) for reference in references)
    if characters > _LONGEST_WORD * words:
        return source[: round(characters / len(references))]
    return " ".join(source.split()[: round(words / len(references))])


def score_floor(run: StoredRun) -> RunScores:
    """Score the leads of a run's test sources by the metrics that the run was scored with.

    Raises:
        HarnessError: the predictions are missing or damaged.
    """
    rows = read_prediction_rows(run.folder)
    floor = RunScores([str(row["id"]) for row in rows], {}, {})
    if not all("source" in row and "reference" in row for row in rows):
        floor.missing.update(dict.fromkeys(run.report.quality, "the sources are not stored"))
        return floor
    sources, references = [str(row["source"]) for row in rows], references_in(rows)
    several = [each if isinstance(each, list) else [each] for each in references]
    leads = list(map(lead, sources, several))
    made: dict[str, Score] = {}
    for name, value in run.report.quality.items():
        if name not in _CHEAP:
            floor.missing[name] = "the lead is not scored by metrics that may take a model"
            continue
        if name not in made:
            metric = metric_for(name, value)
            if isinstance(metric, str):
                floor.missing[name] = metric
                continue
            made |= by_cluster(metric.score(sources, leads, references), rows)
        if made[name].signature == value.signature:
            floor.scores[name] = made[name]
        else:
            floor.missing[name] = (
                f"the runs were scored as {value.signature}, the lead would be as "
                f"{made[name].signature}"
            )
    return floor
