"""The Pareto front against its definition, and with ties."""

import random

from hypothesis import given
from hypothesis import strategies as st

from harness.reporting.pareto import pareto_front
from harness.reporting.summary import Estimate

exact = st.lists(st.tuples(*[st.integers(0, 4).map(float)] * 3), min_size=1, max_size=8)


def estimate(value: float, half: float = 0.0) -> Estimate:
    return Estimate(value=value, low=value - half, high=value + half)


def front_of(points: list[tuple[float, ...]], half: float = 0.0) -> set[str]:
    return pareto_front({str(i): [estimate(v, half) for v in p] for i, p in enumerate(points)})


@given(exact)
def test_without_intervals_it_is_the_classic_front(points: list[tuple[float, ...]]) -> None:
    def dominated(p: tuple[float, ...]) -> bool:
        return any(q != p and all(a >= b for a, b in zip(q, p, strict=True)) for q in points)

    assert front_of(points) == {str(i) for i, p in enumerate(points) if not dominated(p)}


@given(exact, st.floats(0, 2))
def test_every_point_off_the_front_is_dominated_by_one_on_it(
    points: list[tuple[float, ...]], half: float
) -> None:
    front = front_of(points, half)
    assert front
    for i, p in enumerate(points):
        if str(i) not in front:
            assert any(
                all(q[k] - p[k] >= -2 * half for k in range(3))
                and any(q[k] - half > p[k] + half for k in range(3))
                for q in (points[int(j)] for j in front)
            )


@given(exact, st.floats(0, 2), st.randoms(use_true_random=False))
def test_the_order_of_the_points_does_not_matter(
    points: list[tuple[float, ...]], half: float, rng: random.Random
) -> None:
    named = {str(i): [estimate(v, half) for v in p] for i, p in enumerate(points)}
    shuffled = list(named)
    rng.shuffle(shuffled)
    assert pareto_front(named) == pareto_front({name: named[name] for name in shuffled})


def test_a_tie_in_quality_leaves_the_decision_to_speed() -> None:
    points = {
        "full": [estimate(1.0), estimate(0.0)],
        "faster and tied": [estimate(1.5), estimate(-0.5, 1.0)],
        "fastest and worse": [estimate(2.0), estimate(-3.0, 1.0)],
        "slower and tied with the fastest": [estimate(1.8), estimate(-2.5, 1.0)],
    }
    assert pareto_front(points) == {"faster and tied", "fastest and worse"}


def test_a_chain_of_ties_does_not_take_the_best_quality_off_the_front() -> None:
    points = {
        "full": [estimate(1.0), estimate(0.0)],
        "tied with both": [estimate(1.5), estimate(-1.0, 1.2)],
        "worse than full": [estimate(2.0), estimate(-2.0, 1.2)],
    }
    assert pareto_front(points) == {"full", "worse than full"}


def test_points_that_dominate_each_other_in_a_circle_stay() -> None:
    # Two steps apart is a difference; one step is a tie.
    points: list[tuple[float, ...]] = [(0.0, 2.0, 1.0), (1.0, 0.0, 2.0), (2.0, 1.0, 0.0)]
    assert front_of(points, half=0.75) == {"0", "1", "2"}
