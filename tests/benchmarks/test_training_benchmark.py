"""The comparison of training refuses an input that handicaps the peer, and resumes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from harness.api.plugins import installed
from harness.api.recipe import parse

Import = Callable[[str], ModuleType]


def _examples(batches: list[list[Any]]) -> list[tuple[int, ...]]:
    return sorted(tuple(e.source) for batch in batches for e in batch)


def _case(work: ModuleType, steps: int = 10) -> Any:
    return work.Case("nano-t5", "lora_ff", 8, 1, steps, 1)


def test_grouping_pads_little_and_trains_the_examples_of_the_random_order(work: ModuleType) -> None:
    case = _case(work)
    case.check()
    grouped, plain = case.batches("grouped"), case.batches("random")
    assert work.real_share(grouped) >= 0.7
    assert work.real_share(plain) < 0.55
    assert _examples(grouped[:1]) == _examples(plain[:1])
    assert _examples(grouped[1:]) == _examples(plain[1:])


def test_a_budget_cuts_the_whole_pool_into_as_many_steps_with_less_padding(
    work: ModuleType,
) -> None:
    case = _case(work)
    grouped, budget = case.whole_pass("grouped"), case.whole_pass("budget")
    assert _examples(grouped) == _examples(budget)
    assert 0.97 * len(grouped) <= len(budget) <= len(grouped) == 200
    assert work.real_share(budget) > 0.9 > work.real_share(grouped)


def test_the_share_of_real_tokens_is_counted_by_hand(work: ModuleType) -> None:
    example = work.Example
    batch = [example([1] * 4, [1] * 2), example([1] * 2, [1] * 1)]
    assert work.real_share([batch]) == pytest.approx((4 + 2 + 2 + 1) / (2 * (4 + 2)))


def test_lengths_that_do_not_spread_are_refused(
    work: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    skewed = work.make_examples
    monkeypatch.setattr(work, "make_examples", lambda n, vocabulary, _: skewed(n, vocabulary, True))
    with pytest.raises(SystemExit, match="degenerate"):
        _case(work).check()


def test_a_peer_that_groups_nothing_is_refused(
    work: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        work.Case, "batches", lambda case, _: work._shuffled([work.make_examples(80, 99, False)], 8)
    )
    with pytest.raises(SystemExit, match="degenerate"):
        _case(work).check()


def test_steps_of_a_budget_that_are_smaller_than_the_others_are_refused(
    work: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = work.within_budget
    monkeypatch.setattr(work, "within_budget", lambda examples, batch: whole(examples, batch // 2))
    with pytest.raises(SystemExit, match="degenerate: a step has"):
        _case(work).check()


def test_settings_that_helped_are_tried_together(module: Import) -> None:
    contenders, trainer = module("contenders"), module("trainer")
    recipe = parse("lora_ff", installed().compressors)
    base = contenders.Contender(trainer.Settings("bfloat16", "grouped"))
    those = {c.name: c for c in contenders.variants(base, recipe)}
    assert {name.removeprefix(f"{base.name}, ") for name in those} >= {
        "Trainer + PEFT, bf16",
        "Trainer + PEFT, bf16, token budget",
        "eager",
        "unfused AdamW",
        "bf16 weights",
        "compiled",
    }
    better = [those["Trainer + PEFT, bf16, token budget"], those[f"{base.name}, eager"]]
    both = contenders.together(base, better)
    assert both.settings == trainer.Settings("bfloat16", "budget", "eager")


def test_trained_weights_are_never_rounded(module: Import) -> None:
    contenders, trainer = module("contenders"), module("trainer")
    base = contenders.Contender(trainer.Settings("bfloat16", "grouped"))
    for recipe in ("full", "lprun"):
        variants = contenders.variants(base, parse(recipe, installed().compressors))
        assert not any(c.settings.low_weights for c in variants)


def _window(module: Import, tokens: int, wall: float) -> Any:
    return module("clock").Window(tokens, wall, wall, 1, [])


def test_the_ratio_is_to_the_fastest_peer(module: Import) -> None:
    windows = {
        "slow": [_window(module, 100, 4), _window(module, 100, 4)],
        "fast": [_window(module, 100, 2), _window(module, 100, 2)],
        "ours": [_window(module, 100, 1), _window(module, 100, 1)],
    }
    summary = module("comparison").summary(windows, "ours")
    assert summary["peer"] == "fast"
    assert summary["speed_ratio"] == pytest.approx(2)


def test_a_contender_that_trains_other_tokens_is_refused(
    module: Import, monkeypatch: pytest.MonkeyPatch
) -> None:
    comparison, contenders = module("comparison"), module("contenders")
    monkeypatch.setattr(comparison, "alone", lambda *_, **__: _window(module, 7, 1))
    with pytest.raises(SystemExit, match=r"degenerate: .* 7 tokens"):
        comparison.window(contenders.DEFAULT, _case(module("work")))


def test_stored_measurements_are_not_repeated(module: Import, tmp_path: Path) -> None:
    measured = module("measured")
    file = tmp_path / "training.json"
    record = measured.start(file, {"rounds": 1})
    record["cases"].append({})

    def save() -> None:
        file.write_text(json.dumps(record))

    before = measured.Measured(record["cases"][0], save)
    before.trial("one", lambda: _window(module, 10, 1))
    before.window("one", 0, lambda: _window(module, 20, 1))
    before.skip("two", "no kernels")

    def again() -> Any:
        raise AssertionError("measured again")

    record = measured.start(file, {"rounds": 1})
    after = measured.Measured(record["cases"][0], save)
    after.trial("one", again)
    after.trial("two", again)
    after.window("one", 0, again)
    after.window("one", 1, lambda: _window(module, 30, 1))
    assert [w.tokens for w in after.windows["one"]] == [20, 30]
    assert measured.start(file, {"rounds": 2})["cases"] == []


def test_a_process_that_fails_or_takes_too_long_is_an_error(module: Import) -> None:
    solitude = module("solitude")
    with pytest.raises(solitude.NoResultError, match="ZeroDivisionError"):
        solitude.alone(divmod, 1, 0)
    import time

    with pytest.raises(solitude.NoResultError, match="not done after"):
        solitude.alone(time.sleep, 60, limit=0.2)
    assert solitude.alone(divmod, 7, 2) == (3, 1)
