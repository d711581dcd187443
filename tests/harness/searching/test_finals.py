"""Finals: who is in them, and what they do not show."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from harness import load_reports, recommend
from harness.reporting.scores import read_scores
from harness.searching.candidates import Candidate, EvalMetric
from harness.searching.finals import promising
from harness.searching.needs import Needs
from harness.searching.outlook import outlook
from harness.searching.racing import Track
from harness.statistics.separation import separation

TRACK = Track([10, 20], EvalMetric("rouge1", True), [20.0, 40.0], 0.9)


def test_the_best_and_the_fastest_come_first_each_with_its_best_learning_rate() -> None:
    costs = {"best": (1.1, 0.9), "fast": (3.0, 0.3), "middle": (2.0, 0.5), "poor": (9.0, 0.1)}
    values = {
        Candidate("best", 0): 39.0,
        Candidate("best", 1): 41.0,
        Candidate("fast", 0): 36.5,
        Candidate("middle", -1): 38.0,
        Candidate("middle", 0): 12.0,
        Candidate("poor", 0): 20.0,
    }
    order = promising(
        {candidate: [10.0, value] for candidate, value in values.items()},
        TRACK,
        {candidate: costs[candidate.recipe] for candidate in values},
    )
    assert order == [
        Candidate("best", 1),
        Candidate("fast", 0),
        Candidate("middle", -1),
        Candidate("poor", 0),
    ]
    assert promising({}, TRACK, {}) == []


@pytest.fixture
def finals(tmp_path: Path, write_run: Callable[..., Path]) -> Path:
    """Runs of three seeds: the spread among seeds hides which of two recipes is better."""
    difficulty = np.random.default_rng(0).normal(0, 8, 80)
    effects = {
        "full": [0.0, 0.0, 0.0],
        "lprun": [-0.2, 0.3, -0.9],
        "lora_ff+lprun": [-1.0, 0.1, -1.3],
    }
    for recipe, by_seed in effects.items():
        for seed, effect in enumerate(by_seed, start=1):
            noise = np.random.default_rng(len(recipe) + seed).normal(0, 0.3, 80)
            scores = 40 + difficulty + effect + noise - noise.mean()
            write_run(tmp_path, {"rouge1": list(scores)}, recipe=recipe, seed=seed)
    return tmp_path


def sentences(finals: Path, needs: Needs) -> list[str]:
    reports = load_reports(finals)
    summary = reports.summarize()
    (recommended,) = recommend(summary, min_quality=needs.min_quality)
    return list(outlook(summary.groups[0], recommended, list(reports), needs))


def test_the_seeds_that_would_separate_the_two_best_are_named(finals: Path) -> None:
    (sentence,) = sentences(finals, Needs(min_quality=0.5))
    scores = {
        recipe: [
            read_scores(run.folder, run.report, ["rouge1"]).scores["rouge1"]
            for run in load_reports(finals)
            if run.report.recipe == recipe
        ]
        for recipe in ("lprun", "lora_ff+lprun")
    }
    found = separation(scores["lprun"], scores["lora_ff+lprun"])
    assert not found.is_shown
    assert sentence == (
        "The finals do not separate the two best in R-1, lprun and lora_ff+lprun. A difference of "
        f"{found.difference.value:.2g} would take about {found.seeds} seeds to show."
    )


def test_a_share_that_the_interval_does_not_decide_is_named(finals: Path) -> None:
    _, sentence = sentences(finals, Needs(min_quality=0.96))
    assert sentence.startswith("lprun keeps more than 96 % of full fine-tuning's R-1 by its mean")
    assert "its interval holds both" in sentence
    _, sentence = sentences(finals, Needs(min_quality=0.9999))
    assert sentence.startswith("lprun keeps less than 99.99 %")


def test_one_seed_separates_nothing(tmp_path: Path, write_run: Callable[..., Path]) -> None:
    for number, recipe in enumerate(("full", "lprun", "lora_ff")):
        scores = list(np.random.default_rng(number).normal(40, 3, 20))
        write_run(tmp_path, {"rouge1": scores}, recipe=recipe, seed=1)
    said = sentences(tmp_path, Needs(min_quality=0.1))
    assert said[0].startswith("One seed cannot separate the two best in R-1")
