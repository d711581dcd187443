"""The embedded task: sizes, determinism, and how far one gets without a model."""

import hashlib
import re
from collections.abc import Iterator
from statistics import mean, median
from typing import Any

import pytest
from rouge_score.rouge_scorer import RougeScorer

from harness import HarnessError, Splits
from harness.api.options import validate
from tasks.radiology_demo.report import write_impression, write_reports
from tasks.radiology_demo.task import RadiologyDemo, RadiologyDemoOptions


def make(**options: Any) -> RadiologyDemo:
    return RadiologyDemo("radiology_demo", RadiologyDemoOptions(**options))


@pytest.fixture(scope="module")
def splits() -> Splits:
    return make().splits(seed=0)


def test_default_sizes_columns_and_distinct_sources(splits: Splits) -> None:
    assert (len(splits.train), len(splits.eval), len(splits.test)) == (4000, 400, 800)
    rows = [row for split in (splits.train, splits.eval, splits.test) for row in split]
    assert set(rows[0]) == {"id", "source", "target"}
    assert len({row["source"] for row in rows}) == len({row["id"] for row in rows}) == 5200
    assert splits.skipped == {}


def test_lengths_are_those_of_short_reports(splits: Splits) -> None:
    words = {c: [len(text.split()) for text in splits.train[c]] for c in ("source", "target")}
    assert 60 <= median(words["source"]) <= 110
    assert 8 <= median(words["target"]) <= 25
    # A subword tokenizer of a few thousand pieces needs about 1.6 tokens for a word of this text.
    assert 1.6 * max(words["source"]) < RadiologyDemo.max_source_length
    assert 1.6 * max(words["target"]) < RadiologyDemo.max_target_length


def test_the_run_seed_changes_nothing_and_the_data_seed_all() -> None:
    small = {"train": 20, "eval": 5, "test": 10}
    first = make(**small).splits(seed=0)
    assert make(**small).splits(seed=7).test.to_dict() == first.test.to_dict()
    other = make(seed=1, **small).splits(seed=0)
    assert not set(other.test["source"]) & set(first.test["source"])


def test_the_test_split_does_not_depend_on_other_sizes(splits: Splits) -> None:
    smaller = make(train=10, eval=3).splits(seed=0)
    assert smaller.test.to_dict() == splits.test.to_dict()
    assert smaller.train.to_dict() == splits.train.select(range(10)).to_dict()


def test_the_data_are_the_same_everywhere(splits: Splits) -> None:
    # A change of this value is a change of the benchmark: results before and after are not
    # comparable.
    text = "\n".join(row["source"] + row["target"] for row in splits.test)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "cf012621ed547c4c"


def test_wrong_sizes_are_errors() -> None:
    with pytest.raises(HarnessError, match="train"):
        validate(RadiologyDemoOptions, {"train": "0"}, "task 'radiology_demo'")


def test_the_suite_holds_the_primary_metric() -> None:
    assert any(RadiologyDemo.primary_metric in metric.names for metric in make().metrics())


def baselines(source: str) -> Iterator[tuple[str, str]]:
    """All that can be copied without a model: the first, the last, and all sentences."""
    findings = re.split(r"(?<=\.) ", source.partition("FINDINGS: ")[2])
    positive = [s for s in findings if not re.match(r"No |There is no ", s)]
    yield "copy", source
    for name, pool in (
        ("report", re.split(r"(?<=\.) ", source)),
        ("findings", findings),
        ("findings not denied", positive),
    ):
        for k in (1, 2, 3, 4, 5):
            yield f"lead-{k} of {name}", " ".join(pool[:k])
            yield f"last-{k} of {name}", " ".join(pool[-k:])
    for k in (10, 15, 20, 30):
        yield f"lead-{k} words", " ".join(source.split()[:k])


def test_copying_scores_far_below_the_facts() -> None:
    scorer = RougeScorer(["rouge1"], use_stemmer=True)
    scores: dict[str, list[float]] = {}
    for report in write_reports("test", 200, seed=0, seen=set()):
        oracle = scorer.score(report.target, write_impression(report.study))
        assert oracle["rouge1"].fmeasure == 1
        for name, prediction in baselines(report.source):
            value = scorer.score(report.target, prediction)["rouge1"].fmeasure
            scores.setdefault(name, []).append(100 * value)
    means = {name: mean(values) for name, values in scores.items()}
    assert max(means.values()) < 45, means
