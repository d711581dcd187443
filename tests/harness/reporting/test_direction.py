"""A metric where less is better: tables, significance stars, Pareto front and advice."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import Result

from harness.records.run_folder import read_runs
from harness.reporting.aggregation import summarize
from harness.reporting.page.charts import tradeoff
from harness.reporting.paired_comparison import Comparisons
from harness.reporting.summary import Group, RecipeRow

Harness = Callable[..., Result]

ERRORS = {"full": 20.0, "lprun": 20.5, "lora_ff": 30.0, "lora_qv": 12.0}
SPEEDS = {"full": 1.0, "lprun": 1.5, "lora_ff": 1.5, "lora_qv": 1.2}


@pytest.fixture
def results(tmp_path: Path, write_run: Callable[..., Path]) -> Path:
    difficulty = np.random.default_rng(0).gamma(2, 3, 80)
    difficulty -= difficulty.mean()
    for number, (recipe, error) in enumerate(ERRORS.items()):
        for seed in range(3):
            noise = np.random.default_rng([number, seed]).normal(0, 1, 80)
            speed: dict[str, Any] = {
                "tokens_per_s": 500.0,
                "samples_per_s": 25.0,
                "relative": SPEEDS[recipe] * (1 + seed / 100),
                "relative_ci": [SPEEDS[recipe], SPEEDS[recipe] * 1.02],
                "baseline": "probe",
                "engine": "packed",
                "schedule_sha256": "cd" * 32,
                "window_seconds": [1.0],
            }
            scores = {"error_rate": [round(v, 4) for v in error + difficulty + noise]}
            options = {"recipe": recipe, "seed": seed, "speed": speed}
            write_run(tmp_path, scores, lower_is_better=["error_rate"], **options)
    return tmp_path


@pytest.fixture
def group(results: Path) -> Group:
    (group,) = summarize(read_runs(results)[0], Comparisons(None)).groups
    return group


def rows(group: Group) -> dict[str, RecipeRow]:
    return {row.recipe: row for row in group.rows}


def test_retention_is_higher_where_the_error_is_lower(group: Group) -> None:
    retention = {}
    for recipe, row in rows(group).items():
        if recipe != "full":
            quality = row.quality["error_rate"]
            assert quality.difference
            assert quality.difference.value == pytest.approx(ERRORS[recipe] - 20, abs=0.5)
            assert quality.retention
            retention[recipe] = quality.retention.value
    expected = {"lprun": 20 / 20.5, "lora_ff": 20 / 30, "lora_qv": 20 / 12}
    assert retention == pytest.approx(expected, rel=0.03)


def test_stars_mark_both_the_better_and_the_worse(group: Group) -> None:
    marked = {r for r, row in rows(group).items() if row.quality["error_rate"].significant}
    assert {"lora_ff", "lora_qv"} <= marked


def test_the_front_keeps_the_least_error(group: Group) -> None:
    # lora_ff is as fast as lprun and errs more; lora_qv errs least; full is slow and errs more.
    assert {r for r, row in rows(group).items() if row.on_front} == {"lprun", "lora_qv"}


@pytest.mark.parametrize(
    ("needed", "chosen"),
    [("90%", "lprun"), ("60%", "lora_ff"), ("110%", "lora_qv"), ("200%", None)],
)
def test_the_advice_keeps_errors_low(
    harness: Harness, results: Path, needed: str, chosen: str | None
) -> None:
    result = harness("recommend", str(results), "--json", "--min-quality", needed)
    (advice,) = json.loads(result.stdout)
    if needed == "60%":  # Both are equally fast.
        assert advice["chosen"] in ("lora_ff", "lprun")
    else:
        assert advice["chosen"] == chosen


def test_without_errors_there_is_no_ratio_but_the_recipe_qualifies(
    harness: Harness, tmp_path: Path, write_run: Callable[..., Path]
) -> None:
    for recipe, errors in (("full", [5.0, 4.0, 6.0, 5.0]), ("lprun", [0.0] * 4)):
        write_run(tmp_path, {"errors": errors}, lower_is_better=["errors"], recipe=recipe)
    shown = harness("report", str(tmp_path), columns=200).stdout
    assert "Quality kept: no errors (its value is not clearly above zero)." in shown
    result = harness("recommend", str(tmp_path), "--json", "--by", "parameters")
    verdicts = {v["recipe"]: v for v in json.loads(result.stdout)[0]["verdicts"]}
    assert verdicts["lprun"]["qualifies"]
    assert verdicts["lprun"]["retention"] is None
    text = harness("recommend", str(tmp_path), "--by", "parameters").stdout
    assert "full" in text
    assert "lprun" in text


@pytest.mark.parametrize("form", ["table", "md", "latex", "html"])
def test_the_direction_is_shown(harness: Harness, results: Path, form: str) -> None:
    if form == "html":
        pytest.importorskip("vl_convert")
    shown = harness("report", str(results), "--format", form, columns=200).stdout
    mark = r"error\_rate$\downarrow$" if form == "latex" else "error_rate↓"
    assert mark in shown.replace("\\_", "_" if form == "md" else "\\_")
    assert "less is better" in shown


def test_the_chart_shows_the_direction(group: Group) -> None:
    pytest.importorskip("altair")
    spec = tradeoff(group, "error_rate", "speed")
    assert "error_rate, less is better" in json.dumps(spec)
