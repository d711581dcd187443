"""The interval of the speed of several runs: simulated coverage, and ties on the front."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from harness.records.run_folder import read_runs
from harness.reporting.aggregation import summarize
from harness.reporting.mean_speed import Ratio, mean_speed, t_quantile
from harness.reporting.paired_comparison import Comparisons
from harness.reporting.summary import Group

WriteRun = Callable[..., Path]

WINDOWS = 6
QUANTILE = float(stats.t.ppf(0.975, WINDOWS - 1))
TRUTH = 0.3


def covers(rng: np.random.Generator, runs: int, between: float, within: list[float]) -> bool:
    """Return whether the interval over runs of six windows each covers the true ratio."""
    measured: list[Ratio] = []
    for run in range(runs):
        logs = rng.normal(TRUTH + rng.normal(0, between), within[run % len(within)], WINDOWS)
        half = QUANTILE * logs.std(ddof=1) / math.sqrt(WINDOWS)
        bounds = math.exp(logs.mean() - half), math.exp(logs.mean() + half)
        measured.append((math.exp(logs.mean()), bounds))
    speed = mean_speed(measured)
    assert speed
    assert speed.low is not None
    assert speed.high is not None
    assert speed.seeds == runs
    return speed.low <= math.exp(TRUTH) <= speed.high


@pytest.mark.parametrize("runs", [2, 3, 4, 5])
@pytest.mark.parametrize("ratio", [0, 1, 3, 100])
@pytest.mark.parametrize("within", [[0.05], [0.02, 0.2]], ids=["alike", "unlike"])
def test_coverage_at_any_ratio_of_between_to_within(
    runs: int, ratio: int, within: list[float]
) -> None:
    rng = np.random.default_rng([runs, ratio, len(within)])
    between = ratio * min(within) / math.sqrt(WINDOWS)
    hits = sum(covers(rng, runs, between, within) for _ in range(400))
    assert hits / 400 >= 0.93


def test_it_is_the_t_interval_of_the_logarithms_where_runs_disagree() -> None:
    ratios = [1.2, 1.8, 1.5]
    speed = mean_speed([(ratio, (ratio / 1.01, ratio * 1.01)) for ratio in ratios])
    expected = stats.ttest_1samp(np.log(ratios), 0).confidence_interval(0.95)
    assert speed
    assert speed.value == pytest.approx(stats.gmean(ratios))
    assert (speed.low, speed.high) == pytest.approx(
        (math.exp(expected.low), math.exp(expected.high))
    )
    # Without an interval of each run it is the same: the spread between runs decides.
    assert mean_speed([(ratio, None) for ratio in ratios]) == speed


def test_runs_that_agree_by_chance_keep_the_interval_of_their_windows() -> None:
    speed = mean_speed([(1.5, (1.5 / 1.05, 1.5 * 1.05))] * 2)
    assert speed
    assert speed.high
    assert math.log(speed.high / speed.value) == pytest.approx(math.log(1.05) / math.sqrt(2))


def test_one_run_has_its_own_interval_and_no_run_has_no_speed() -> None:
    speed = mean_speed([(1.5, (1.4, 1.6)), (None, None)])
    assert speed
    assert (speed.low, speed.high) == pytest.approx((1.4, 1.6), rel=0.01)
    assert speed.seeds == 1
    alone = mean_speed([(1.5, None)])
    assert alone
    assert (alone.low, alone.seeds) == (None, None)
    assert mean_speed([(None, None)]) is None


@pytest.mark.parametrize("freedom", range(1, 12))
def test_quantiles_are_those_of_students_t(freedom: int) -> None:
    assert t_quantile(freedom) == pytest.approx(stats.t.ppf(0.975, freedom))


def two_runs_each(results: Path, write_run: WriteRun, ratios: dict[str, list[float]]) -> Group:
    for recipe, relatives in ratios.items():
        for seed, relative in enumerate(relatives):
            speed: dict[str, Any] = {
                "tokens_per_s": 500.0,
                "samples_per_s": 25.0,
                "relative": relative,
                "relative_ci": [relative / 1.02, relative * 1.02],
                "baseline": "probe",
                "engine": "packed",
                "schedule_sha256": "cd" * 32,
                "window_seconds": [1.0],
            }
            write_run(results, {"rouge1": [1.0, 2.0]}, recipe=recipe, seed=seed, speed=speed)
    (group,) = summarize(read_runs(results)[0], Comparisons(None)).groups
    return group


def test_it_decides_ties_on_the_front(tmp_path: Path, write_run: WriteRun) -> None:
    agree = two_runs_each(tmp_path / "a", write_run, {"full": [1, 1], "lprun": [1.5, 1.51]})
    differ = two_runs_each(tmp_path / "b", write_run, {"full": [1, 1], "lprun": [1.3, 1.73]})
    assert [row.on_front for row in agree.rows] == [False, True]
    # The mean is as fast, but two such runs do not show that it differs from full.
    assert [row.on_front for row in differ.rows] == [True, True]


def test_two_runs_with_a_wide_interval_are_shown_and_a_third_is_advised(
    tmp_path: Path, write_run: WriteRun
) -> None:
    group = two_runs_each(tmp_path, write_run, {"full": [1, 1], "lprun": [1.3, 1.73]})
    speed = group.rows[1].speed
    assert speed
    assert speed.low is not None
    assert speed.low < 0.5
    (note,) = [note for note in group.notes if "third" in note]
    assert note.startswith("Speed of lprun:")
    assert "harness sweep --seeds 3" in note
