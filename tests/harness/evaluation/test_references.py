"""Several references for one example, and clusters of examples, from data to scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from harness.api.metric import Metric, Score
from harness.data.hashing import data_hash
from harness.evaluation.predictions import PredictionRow
from harness.evaluation.scoring import references_of, score
from harness.reporting.scores import by_cluster
from harness.statistics.intervals import bootstrap_interval


class Hits(Metric):
    """Scores 1 where the prediction is among the references, otherwise 0."""

    names = ("hits",)
    several_references = True

    def score(
        self, sources: Sequence[str], predictions: Sequence[str], references: Sequence[Any]
    ) -> dict[str, Score]:
        values = [
            float(text in (accepted if isinstance(accepted, list) else [accepted]))
            for text, accepted in zip(predictions, references, strict=True)
        ]
        return {"hits": Score.mean(values, "hits")}


class Single(Hits):
    names = ("single",)
    several_references = False


def test_lists_reach_a_metric_that_takes_them_and_no_other() -> None:
    rows = [PredictionRow(1, "b", ["a", "b"], None), PredictionRow(2, "a", "a", None)]
    scores = score([Hits(), Single()], rows)
    assert scores.computed["hits"].examples == [1.0, 1.0]
    assert "several references" in scores.not_computed["single"]
    plain = score([Single()], rows[1:])
    assert plain.not_computed == {}


def test_training_scores_by_the_first_where_a_metric_takes_only_one() -> None:
    examples = Dataset.from_dict({"target": ["a", "c"], "references": [["a", "b"], ["c"]]})
    assert references_of(examples, Hits()) == [["a", "b"], ["c"]]
    assert references_of(examples, Single()) == ["a", "c"]


def test_all_references_are_part_of_the_data_s_hash() -> None:
    texts = {"source": ["s", "t"], "target": ["a", "c"]}
    splits = [
        Dataset.from_dict({**texts, **more})
        for more in ({}, {"references": [["a", "b"], ["c"]]}, {"references": [["a"], ["b", "c"]]})
    ]
    assert len({data_hash(split) for split in splits}) == 3


def test_a_bootstrap_over_clusters_is_one_over_their_sums() -> None:
    values = np.random.default_rng(0).uniform(0, 100, 50)
    whole = bootstrap_interval(Score.mean([*values], "m"))
    copies = Score.mean([*np.repeat(values, 4)], "m")
    clusters = [f"dialogue {n // 4:02d}" for n in range(200)]
    clustered = bootstrap_interval(copies.clustered(clusters))
    # Four copies of an example carry no more information than one.
    assert clustered == pytest.approx(whole)
    independent = bootstrap_interval(copies)
    assert independent.high - independent.low < 0.6 * (whole.high - whole.low)


def test_clusters_of_rows_reach_the_score_and_the_report() -> None:
    rows = [PredictionRow(n, "a", "a" if n % 3 else "b", None, f"d{n // 4:02d}") for n in range(40)]
    scored = score([Hits()], rows).computed["hits"]
    assert len(scored.examples) == 40
    assert scored.statistics.shape == (10, 2)
    stored = [{"id": str(row.line), "cluster": row.cluster} for row in rows]
    values = Score.mean(scored.examples, "hits")
    again = by_cluster({"hits": values}, stored)["hits"]
    assert bootstrap_interval(again) == bootstrap_interval(scored)
