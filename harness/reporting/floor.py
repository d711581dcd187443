"""The floor under quality: what the lead of the source scores, which no training is needed for.

A share of full fine-tuning's value flatters where any text scores well. What is kept above the
floor says how much of what training adds is kept.
"""

from __future__ import annotations

from harness.metric import Score
from harness.reporting.folder import StoredRun
from harness.reporting.scores import (
    RunScores,
    by_cluster,
    metric_named,
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


def lead(source: str, reference: str) -> str:
    """Return the first words of the source, as many as the reference has."""
    return " ".join(source.split()[: len(reference.split())])


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
    firsts = [each[0] if isinstance(each, list) else each for each in references]
    leads = list(map(lead, sources, firsts))
    made: dict[str, Score] = {}
    for name, value in run.report.quality.items():
        if name not in _CHEAP:
            floor.missing[name] = "the lead is not scored by metrics that may take a model"
            continue
        if name not in made:
            metric = metric_named(name)
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
