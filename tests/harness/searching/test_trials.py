"""Trials: what is asked is the same after a stop, rejected by its plan, and never twice."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from harness.api.plugins import installed
from harness.searching.candidates import Candidate, EvalMetric
from harness.searching.needs import Needs
from harness.searching.racing import Raced, Track
from harness.searching.screen import Screen, Screened
from harness.searching.space import Space, read_space
from harness.searching.study import Study
from harness.searching.trials import Trials

pytest.importorskip("optuna")


@pytest.fixture(autouse=True)
def _quick_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave it to the system when files reach the disk; Optuna waits for it after each line."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


SPACE = read_space(["lora_ff:r={8|16|32}{+lprun|}", "lprun:select={alternate|loss}"], 3)
TRACK = Track([10, 20], EvalMetric("rouge1", True), [20.0, 40.0], 0.9)


class Table(Screen):
    """Costs from a table: recipes with lprun are fast, rank 32 is too expensive."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def costs(self, recipe: str) -> Screened:
        self.asked.append(recipe)
        speed = 2.0 if "lprun" in recipe else 1.3
        if "r=32" in recipe:
            return Screened(1.0, 2.0, 10, (0.0, 1.0), "it is planned to take 200 %")
        return Screened(speed, 0.5, 10, (-0.1, -0.1))


def trials(folder: Path, space: Space = SPACE, seed: int = 0) -> Trials:
    return Trials(Study(folder, space, seed), space, Table(), installed(), seed)


def value(candidate: Candidate) -> float:
    return 36.0 + candidate.octave + 2 * ("lprun" not in candidate.recipe)


def answered(searched: Trials, candidates: list[Candidate]) -> None:
    """Answer a round: every other candidate was trained to the end."""
    raced = Raced({c: [value(c) / 2, value(c)] for c in candidates}, {}, candidates[::2])
    for candidate in candidates[1::2]:
        raced.scores[candidate].pop()
    searched.answer(raced, TRACK)


def ask(searched: Trials, count: int) -> list[Candidate]:
    return list(islice(searched.ask(), count))


def test_a_search_that_is_stopped_asks_what_one_without_a_stop_asks(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "stopped").mkdir()
    whole = trials(tmp_path / "whole")
    rounds = []
    for _ in range(3):
        rounds.append(ask(whole, 3))
        answered(whole, rounds[-1])
    resumed = []
    for _ in range(3):
        resumed.append(ask(trials(tmp_path / "stopped"), 3))
        again = trials(tmp_path / "stopped")
        assert again.waiting() == resumed[-1]
        answered(again, resumed[-1])
        assert trials(tmp_path / "stopped").waiting() == []
    assert resumed == rounds
    other = tmp_path / "other seed"
    other.mkdir()
    assert ask(trials(other, seed=1), 8) != ask(trials(tmp_path / "stopped"), 8)


def test_every_template_is_asked_first_with_its_first_alternatives(tmp_path: Path) -> None:
    first = ask(trials(tmp_path), 2)
    assert first == [Candidate("lora_ff:r=8+lprun"), Candidate("lprun")]


def test_all_points_are_asked_once_and_the_expensive_ones_rejected(tmp_path: Path) -> None:
    searched = trials(tmp_path)
    seen = ask(searched, 1000)
    assert len(seen) == len(set(seen))
    names = {(c.recipe, c.octave) for c in seen}
    recipes = {"lora_ff:r=8+lprun", "lora_ff+lprun", "lora_ff:r=8", "lora_ff", "lprun"}
    recipes.add("lprun:select=loss")
    assert names == {(recipe, octave) for recipe in recipes for octave in (-1, 0, 1)}
    assert set(searched.rejections()) == {"lora_ff:r=32+lprun", "lora_ff:r=32"}
    assert len(searched.looked_at) == SPACE.size
    assert searched.trained == seen


def test_a_recipe_that_cannot_be_read_is_rejected_with_its_reason(tmp_path: Path) -> None:
    space = read_space(["full{+lprun|}", "prune_ffn:keep={0.5|1.5}"], 1)
    searched = trials(tmp_path, space)
    assert {c.recipe for c in ask(searched, 9)} == {"full", "prune_ffn"}
    reasons = searched.rejections()
    assert "cannot be combined" in reasons["full+lprun"]
    assert "keep" in reasons["prune_ffn:keep=1.5"]


def test_a_trial_that_was_being_asked_at_a_stop_is_forgotten(tmp_path: Path) -> None:
    study = Study(tmp_path, SPACE, 0)
    study.ask()
    searched = trials(tmp_path)
    assert searched.waiting() == []
    assert searched.looked_at == []
    assert len(ask(searched, 3)) == 3


def test_the_sampler_learns_which_values_are_good(tmp_path: Path) -> None:
    """One rank among four is good: of its 12 candidates among 48, most are among the first 25."""
    alphas = "|".join(str(alpha) for alpha in range(1, 13))
    space = read_space([f"lora_ff:r={{1|2|3|4}},alpha={{{alphas}}}"], 1)
    searched = trials(tmp_path, space)
    found: list[Candidate] = []
    for _ in range(5):
        candidates = ask(searched, 5)
        scores: dict[Candidate, list[float | None]] = {
            c: [0.0, 40.0 if "r=3" in c.recipe else 20.0] for c in candidates
        }
        searched.answer(Raced(scores, {}, candidates), TRACK)
        found += candidates
    assert sum("r=3" in c.recipe for c in found) >= 10  # By chance 6.


def test_limits_are_shares_of_full_fine_tuning() -> None:
    needs = Needs(min_speed=2.0, max_memory=0.5)
    assert needs.excess(2.0, 0.5, 0.0) == pytest.approx((0, 0))
    assert needs.why_too_expensive(1.9, 0.52, 0.1) is None
    reason = needs.why_too_expensive(1.5, 0.7, 0.1)
    assert reason
    assert "1.50 times" in reason
    assert "70 %" in reason
    assert needs.why_too_expensive(2.0, None, 0.1) is None
    assert Needs().why_too_expensive(0.1, 9.0, 0.0) is None


def test_a_learning_rate_is_the_recipes_own_times_a_power_of_two() -> None:
    from harness.spec.run_spec import resolve

    base = resolve({"recipe": "full"}, "quick")
    plugins: Any = installed()
    rates = {n: Candidate("lora_ff+lprun", n).learning_rate(base, plugins) for n in (-1, 0, 1)}
    assert rates == {-1: 0.01, 0: 0.02, 1: 0.04}
    assert Candidate("full", 1).learning_rate(base, plugins) == 6e-3
    own, changed = (Candidate("full", n).spec(base, plugins, 7) for n in (0, 1))
    assert (own.seed, own.train.tuned_learning_rate) == (7, None)
    assert changed.train.tuned_learning_rate == 6e-3
    assert own.settings_digest() == changed.settings_digest() == base.settings_digest()
