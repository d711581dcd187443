"""The size of a measurement of decoding, and its sources."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from harness.data.examples import Example
from harness.measurement.decoding_work import (
    MOST_EXAMPLES,
    MOST_SECONDS,
    SHARE,
    choose_windows,
    freeze_decoding,
    run_budget,
    sources_hash,
)
from harness.measurement.probe import freeze
from harness.spec.setting_groups import ProbeSettings, ScoringSettings
from harness.training.schedule import Schedule

SECONDS = st.floats(1e-3, 100)
SIZES = {
    "budget": st.floats(-10, 1000),
    "example": SECONDS,
    "batch": SECONDS,
    "most_rounds": st.integers(2, 6),
    "most_examples": st.integers(1, 40),
}


@given(**SIZES)
def test_the_windows_fit_the_budget_unless_they_are_the_fewest(
    budget: float, example: float, batch: float, most_rounds: int, most_examples: int
) -> None:
    chosen = choose_windows(budget, example, batch, most_rounds, most_examples)
    assert 2 <= chosen.rounds <= most_rounds
    assert 1 <= chosen.examples <= most_examples
    cost = chosen.rounds * (chosen.examples * example + chosen.batch * batch)
    assert cost <= budget * (1 + 1e-9) or chosen == (2, 1, False)


@given(**SIZES)
def test_one_more_round_or_example_would_not_fit(
    budget: float, example: float, batch: float, most_rounds: int, most_examples: int
) -> None:
    rounds, examples, with_batch = choose_windows(
        budget, example, batch, most_rounds, most_examples
    )
    others = with_batch * batch
    if examples < most_examples:
        assert rounds * ((examples + 1) * example + others) > budget * (1 - 1e-9)
    if rounds < most_rounds:
        assert (rounds + 1) * (example + batch) > budget * (1 - 1e-9)
    if not with_batch:
        assert 2 * (example + batch) > budget * (1 - 1e-9)


@given(**SIZES, more=st.floats(0, 100))
def test_more_time_is_never_spent_on_less(
    budget: float,
    example: float,
    batch: float,
    most_rounds: int,
    most_examples: int,
    more: float,
) -> None:
    first, second = (
        choose_windows(seconds, example, batch, most_rounds, most_examples)
        for seconds in (budget, budget + more)
    )
    assert (second.batch, second.rounds) >= (first.batch, first.rounds)
    if (second.batch, second.rounds) == (first.batch, first.rounds):
        assert second.examples >= first.examples


def test_a_measurement_that_takes_no_time_is_as_large_as_it_may_be() -> None:
    # A manual clock may stand still.
    assert choose_windows(10, 0, 0, 3, 8) == (3, 8, True)


@given(st.floats(0, 1e5), st.floats(0, 1e5), st.floats(0, 1e5))
def test_the_budget_is_a_share_of_the_run(elapsed: float, training: float, later: float) -> None:
    budget = run_budget(elapsed, training)
    assert 0 <= budget <= MOST_SECONDS
    run = elapsed + training + budget + later
    assert budget <= SHARE * run * (1 + 1e-9)


def test_examples_generate_as_many_tokens_as_targets_have() -> None:
    examples = [Example([20 + n, 5, 1], [n, 7, 7, 1]) for n in range(3, 11)]
    frozen = freeze(
        Schedule(examples, 2, 1, seed=0), ProbeSettings(warmup_steps=1, steps=1, rounds=2)
    )
    settings = ScoringSettings(batch_size=5, beams=3, length_penalty=2.0)
    work = freeze_decoding(frozen, settings)
    assert (work.settings.max_new_tokens, work.settings.min_new_tokens) == (4, 4)
    assert (work.settings.beams, work.settings.length_penalty) == (3, 2.0)
    assert work.first_token.max_new_tokens == 1
    # Six sources are in the steps; they are repeated.
    first = [e.source for step in frozen.steps for batch in step.micro_batches for e in batch]
    assert len(first) == 6
    assert list(work.sources) == (first * MOST_EXAMPLES)[:MOST_EXAMPLES]
    assert list(work.batch) == first[:5]
    assert len(work.longest) == 5
    short = freeze_decoding(frozen, ScoringSettings(max_new_tokens=2))
    assert short.settings.min_new_tokens == 2
    assert sources_hash(work.sources, work.batch) != sources_hash(work.batch, work.sources)
