"""Loss curves of engines: what the benchmark demands, and its comparisons themselves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from scipy import stats
from torch import nn

Import = Callable[[str], ModuleType]


@pytest.fixture
def curves(module: Import) -> ModuleType:
    return module("loss_curves")


def fails(reason: str) -> Any:
    return pytest.raises(SystemExit, match=f"degenerate: .*{reason}")


def test_a_curve_must_fall(curves: ModuleType) -> None:
    curves.check_falls([3.0] * 20 + [2.0] * 20)
    with fails("does not fall: 3.000 at first, 2.900 at last"):
        curves.check_falls([3.0] * 20 + [2.9] * 20)


def test_each_trained_weight_must_change(curves: ModuleType) -> None:
    trained = {name: nn.Parameter(torch.ones(2)) for name in ("a", "b")}
    before = {name: weight.detach().clone() for name, weight in trained.items()}
    trained["a"].data += 1
    with fails("1 trained weights did not change, such as b"):
        curves.check_trained(before, SimpleNamespace(trained=trained))
    trained["b"].data += 1
    curves.check_trained(before, SimpleNamespace(trained=trained))
    with fails("nothing is trained"):
        curves.check_trained({}, SimpleNamespace(trained={}))


def test_the_interval_is_that_of_a_test_of_two_means(curves: ModuleType) -> None:
    one, other = [1.0, 1.2, 0.9], [1.5, 1.4, 1.9]
    interval = stats.ttest_ind(other, one).confidence_interval(curves.CONFIDENCE)
    expected = (interval.high - interval.low) / 2
    assert curves.half_width(one, other) == pytest.approx(expected)


def test_the_largest_difference_is_relative_to_padded_batches(curves: ModuleType) -> None:
    assert curves.difference([4.0, 2.0, 1.0], [4.0, 2.1, 0.98]) == pytest.approx(0.05)


def test_finished_cases_are_not_repeated(
    curves: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []

    def compare_values(case: Any) -> dict[str, Any]:
        calls.append(case)
        return {"plain_last": 1.5, "equal": True}

    monkeypatch.setattr(curves, "compare_values", compare_values)
    monkeypatch.setattr(curves, "compare_distributions", lambda case, plain: {"plain": plain})
    case = curves.Case("t5", "full", dropout=True)
    for _ in range(2):
        assert curves.compare(case, tmp_path)["plain"] == 1.5
        assert curves.compare(case._replace(dropout=False), tmp_path)["plain_last"] == 1.5
    assert calls == [case._replace(dropout=False)]


def test_there_are_all_recipes_of_all_families(curves: ModuleType) -> None:
    assert len(curves.CASES) == len({case.file for case in curves.CASES}) == 36


RECIPES = ["full", "lprun", "lora_qv", "lora_ff", "lora_qv+lprun", "lora_ff+lprun"]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("family", ["t5", "gated-t5", "bart"])
def test_engines_have_equal_curves(
    curves: ModuleType, family: str, recipe: str, tmp_path: Path
) -> None:
    plain = curves.compare(curves.Case(family, recipe, dropout=False), tmp_path)
    assert plain["equal"], plain
    dropped = curves.compare(curves.Case(family, recipe, dropout=True), tmp_path)
    assert dropped["equal"], dropped
