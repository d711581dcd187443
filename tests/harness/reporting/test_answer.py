"""The answer above the table: the recipes it names; it states only what was measured."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from typer.testing import Result

from harness.records.run_folder import read_runs
from harness.reporting.aggregation import summarize
from harness.reporting.answer import answer
from harness.reporting.documents import latex, markdown, notebook_html
from harness.reporting.paired_comparison import Comparisons
from harness.reporting.summary import Estimate, Group, Quality, RecipeRow, Summary
from harness.reporting.table import table

CAVEAT = "With one seed the spread between seeds is not known."


def estimate(value: float, half: float, seeds: int = 3) -> Estimate:
    return Estimate(value=value, low=value - half, high=value + half, seeds=seeds)


def quality(value: float, difference: float | Estimate | None = None, **changes: Any) -> Quality:
    """Return a score and its difference from full fine-tuning, significant by default."""
    if isinstance(difference, float | int):
        difference = estimate(difference, 1)
    fields: dict[str, Any] = {
        "value": Estimate(value=value),
        "signature": "rouge1",
        "higher_is_better": True,
        "difference": difference,
        "p_value": None if difference is None else 0.01,
    }
    return Quality(**{**fields, **changes})


def row(recipe: str, score: Quality | None = None, **changes: Any) -> RecipeRow:
    fields: dict[str, Any] = {
        "recipe": recipe,
        "status": "ok",
        "seeds": [0, 1, 2],
        "runs": ["a", "b", "c"],
        "quality": {"rouge1": score} if score else {},
    }
    return RecipeRow(**{**fields, **changes})


def answer_to(*rows: RecipeRow, metric: str = "rouge1", **changes: Any) -> list[str]:
    fields: dict[str, Any] = {
        "backbone": "b",
        "task": "t",
        "settings": None,
        "test_examples": [100],
        "rows": list(rows),
    }
    return answer(Group(**{**fields, **changes}), [metric])


FULL = row("full", quality(40.0), speed=estimate(1, 0.1), memory_relative=1.0, on_front=True)


def test_the_fastest_and_the_best_recipe_of_the_front_are_named() -> None:
    rows = [
        FULL,
        row("fast", quality(30, -10), speed=estimate(1.5, 0.1), memory_relative=0.7, on_front=True),
        row("mid", quality(35, -5), speed=estimate(1.4, 0.1), memory_relative=0.8, on_front=True),
        row("good", quality(39, -1), speed=estimate(1.2, 0.1), memory_relative=0.9, on_front=True),
        row("beaten", quality(20, -9), speed=estimate(1.6, 0.5), on_front=False),
    ]
    assert answer_to(*rows, front_metric="rouge1") == [
        "fast trains 1.50 times as fast as full fine-tuning (1.40 to 1.60) with 70 % of the "
        "memory; R-1 is lower by 10.0 (9.0 to 11.0), which three seeds show.",
        "good trains 1.20 times as fast as full fine-tuning (1.10 to 1.30) with 90 % of the "
        "memory; R-1 is lower by 1.0 (0.0 to 2.0), which three seeds show.",
    ]


def test_a_recipe_that_is_both_is_named_once() -> None:
    rows = [
        row("one", quality(40, 2), speed=estimate(1.5, 0.1), on_front=True),
        row("two", quality(30, -8), speed=estimate(1.2, 0.1), on_front=True),
    ]
    (sentence,) = answer_to(FULL, *rows)
    assert sentence == (
        "one trains 1.50 times as fast as full fine-tuning (1.40 to 1.60); R-1 is higher by 2.0 "
        "(1.0 to 3.0), which three seeds show."
    )


def test_without_significance_no_difference_is_claimed() -> None:
    score = quality(39, estimate(-1, 2.5), p_value=0.4)
    (sentence,) = answer_to(FULL, row("lora", score, on_front=True))
    assert sentence == "lora: no difference in R-1 was shown by three seeds (-3.5 to 1.5)."


def test_one_seed_is_mentioned() -> None:
    score = quality(30, estimate(-10, 1, seeds=1))
    first, caveat = answer_to(FULL, row("lora", score, seeds=[0], on_front=True))
    assert first == "lora: R-1 is lower by 10.0 (9.0 to 11.0), which one seed shows."
    assert caveat == CAVEAT


def test_a_speed_within_the_interval_or_the_noise_is_no_difference() -> None:
    within = row("lora", speed=estimate(1.05, 0.1), memory_relative=0.88)
    (sentence,) = answer_to(FULL, within)
    assert sentence == (
        "lora trains with 88 % of full fine-tuning's memory; no difference in speed was shown "
        "(0.95 to 1.15)."
    )
    noisy = row("lora", speed=estimate(1.2, 0.1))
    assert answer_to(FULL, noisy, noise_floor=1.22) == [
        "lora: no difference in speed was shown (1.10 to 1.30)."
    ]
    assert answer_to(FULL, noisy, noise_floor=1.1)[0].startswith("lora trains 1.20 times")
    slow = row("lora", speed=estimate(0.5, 0.1))
    assert answer_to(FULL, slow, noise_floor=1.1)[0].startswith("lora trains 0.50 times as fast")


def test_the_direction_of_a_metric_decides_which_recipe_is_best() -> None:
    error: dict[str, Any] = {"higher_is_better": False}
    rows = [
        row("worse", quality(50, 12, **error), on_front=True),
        row("near", quality(39, 1, **error), on_front=True),
    ]
    (sentence,) = answer_to(FULL, *rows)
    assert sentence == (
        "near: R-1 (less is better) is higher by 1.0 (0.0 to 2.0), which three seeds show."
    )


def test_small_numbers_keep_two_digits() -> None:
    score = quality(0.4, estimate(-0.034, 0.01))
    (sentence,) = answer_to(FULL, row("lora", score))
    assert "lower by 0.034 (0.024 to 0.044)" in sentence


def test_without_a_comparison_the_score_stands_alone() -> None:
    (sentence,) = answer_to(row("lora", quality(34.62), speed=estimate(1.5, 0.1)))
    assert sentence.endswith("; its R-1 of 34.62 is not compared with full fine-tuning's.")


def test_what_was_not_measured_is_not_mentioned() -> None:
    assert answer_to(FULL, row("lora")) == []
    assert answer_to(FULL, row("lora", memory_relative=0.7)) == [
        "lora trains with 70 % of full fine-tuning's memory."
    ]


def test_where_only_full_fine_tuning_is_on_the_front() -> None:
    (sentence,) = answer_to(FULL, row("lora", quality(30, -9), on_front=False))
    assert sentence == (
        "No recipe was shown to train faster than full fine-tuning, to need less memory or to "
        "have a better R-1."
    )


def test_failed_and_single_runs() -> None:
    failed = row("lora", status="oom", seeds=[], runs=[])
    assert answer_to(failed) == ["No run ended well."]
    alone = ["Only full fine-tuning ended well here, so nothing is compared with it."]
    assert answer_to(FULL) == answer_to(FULL, failed) == alone


@pytest.fixture
def summary(tmp_path: Path, write_run: Callable[..., Path]) -> Summary:
    rng = np.random.default_rng(0)
    hard = rng.normal(0, 10, 40)
    for recipe, mean in (("full", 40), ("lora_ff", 30)):
        for seed in range(2):
            scores = list((mean + hard + rng.normal(0, 1, 40)).round(4))
            write_run(tmp_path, {"rouge1": scores}, recipe=recipe, seed=seed)
    return summarize(read_runs(tmp_path)[0], Comparisons(None))


def test_every_format_for_readers_begins_with_it(summary: Summary) -> None:
    (sentence,) = summary.groups[0].answer
    assert sentence.startswith("lora_ff: R-1 is lower by ")
    assert sentence.endswith(", which two seeds show.")
    after = sentence.partition(": ")[2]
    shown = " ".join(click.unstyle(table(summary)).split())
    assert shown.index(after) < shown.index("recipe ")
    for text, start in (
        (markdown(summary), "| recipe"),
        (latex(summary), r"\begin{tabular}"),
        (notebook_html(summary), "<table>"),
    ):
        assert text.index(after) < text.index(start)


def test_the_page_begins_with_it(
    summary: Summary, tmp_path: Path, harness: Callable[..., Result]
) -> None:
    pytest.importorskip("vl_convert")
    page = harness("report", str(tmp_path), "--format", "html").stdout
    after = summary.groups[0].answer[0].partition(": ")[2]
    assert page.index(after) < page.index("<table")
