"""The study of cheaper recipes: what is compared, and what its page claims."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from harness import HarnessError, load_reports
from harness.api.plugins import installed
from harness.reporting.summary import Estimate, Group, RecipeRow

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
Import = Callable[[str], ModuleType]
CHEAP = "lora_ff+lprun"


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> Import:
    """Return a function that imports a module of the study."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return lambda name: importlib.import_module(f"study.{name}")


def test_all_recipes_can_be_built_and_the_first_are_what_others_are_compared_with(
    study: Import,
) -> None:
    plugins = installed()
    cheaper = study("studies").CHEAPER
    recipes = cheaper.recipes(plugins)
    assert recipes[:2] == ["full", CHEAP]
    assert len(recipes) == len(set(recipes))
    assert [str(plugins.recipe(recipe)) for recipe in recipes] == recipes
    planned = cheaper.planned(recipes, 3, plugins)
    assert len(planned) == 3 * len(recipes)
    assert {recipe for recipe, _ in planned} == set(recipes)


@pytest.fixture
def task(tmp_path: Path, write_run: Callable[..., Path]) -> Path:
    """Three seeds of four recipes: one is better than the paper's, one is worse, one is equal."""
    difficulty = np.random.default_rng(0).normal(0, 8, 60)
    means = {"full": 44, CHEAP: 40, "better": 43, "worse": 30, "equal": 40}
    for number, (recipe, mean) in enumerate(means.items()):
        for seed in range(3):
            noise = np.random.default_rng(10 * number + seed).normal(0, 1, 60)
            scores = mean + difficulty + noise - noise.mean()
            write_run(
                tmp_path / "results" / "t", {"rouge1": list(scores)}, recipe=recipe, seed=seed
            )
    return tmp_path / "results"


def test_the_page_names_what_is_better_and_says_what_was_not_measured(
    study: Import, task: Path, tmp_path: Path
) -> None:
    study("cheaper_page").write(task, tmp_path)
    text = (tmp_path / "study-cheaper.md").read_text()
    assert f"a higher R-1 than `{CHEAP}`: `better`, `full`; a lower one: `worse`." in text
    assert "Of 1 others no difference was shown." in text
    assert "Speed and memory were not measured yet" in text
    (line,) = [line for line in text.splitlines() if line.startswith("| `better` |")]
    assert "| 43.62 |" in line
    assert "+3.00* (" in line
    assert "runs, 6 test examples each" in text


def rows(group: Group, **changes: Any) -> dict[str, RecipeRow]:
    for row in group.rows:
        row.speed = Estimate(value=1.5, low=1.4, high=1.6, seeds=3)
        row.memory_relative = 0.7
    for recipe, (speed, memory) in changes.items():
        (row,) = [row for row in group.rows if row.recipe == recipe]
        row.speed = Estimate(value=speed, low=speed - 0.05, high=speed + 0.05, seeds=3)
        row.memory_relative = memory
    return {row.recipe: row for row in group.rows}


@pytest.mark.parametrize(
    ("speed", "memory", "named"),
    [(1.45, 0.7, True), (1.2, 0.7, False), (1.5, 0.8, False), (1.5, 0.705, True)],
)
def test_a_better_recipe_must_be_no_slower_and_need_no_more_memory(
    study: Import, task: Path, speed: float, memory: float, named: bool
) -> None:
    reports = load_reports(task / "t")
    (against,) = reports.summarize(["rouge1"], baseline=CHEAP).groups
    (full,) = reports.summarize(["rouge1"]).groups
    measured = {"better": (speed, memory), "full": (1.0, 1.0)}
    rows(against, **measured)
    rows(full, **measured)
    _, cheap, fastest = study("cheaper_page").findings(against, full)
    assert ("`better`" in cheap) == named
    assert "`full`" not in cheap
    # 43 of 44 is 98 %: better is fast enough, and all others keep less.
    assert "`better`, which keeps 98 %" in fastest


def test_without_runs_there_is_no_page(study: Import, tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="no finished runs"):
        study("cheaper_page").write(tmp_path / "none", tmp_path)
