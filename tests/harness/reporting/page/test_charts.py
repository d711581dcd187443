"""The data that the charts draw."""

from typing import Any

import pytest

from harness.reporting.page.charts import tradeoff
from harness.reporting.summary import Estimate, Group, Quality, RecipeRow


def group_of(points: dict[str, tuple[float, float]]) -> Group:
    """Return a group with rows from a dictionary: recipe -> speed and score."""
    rows = [
        RecipeRow(
            recipe=recipe,
            status="ok",
            seeds=[0],
            runs=[recipe],
            speed=Estimate(value=speed),
            quality={
                "rouge1": Quality(
                    value=Estimate(value=score, low=score - 4, high=score + 4),
                    signature="rouge1",
                    higher_is_better=True,
                )
            },
        )
        for recipe, (speed, score) in points.items()
    ]
    return Group(backbone="tiny", task="notes", settings=None, test_examples=[6], rows=rows)


def points_of(spec: Any) -> dict[str, Any]:
    values = next(iter(spec["datasets"].values())) if "datasets" in spec else spec["data"]["values"]
    return {row["recipe"]: row for row in values}


def test_a_name_is_below_its_point_where_it_would_cover_another() -> None:
    apart = {"full": (1.0, 40.0), "lprun": (1.5, 39.0), "lora_qv+lprun": (1.65, 30.0)}
    close = {"lora_ff": (1.11, 34.4), "lora_qv": (1.1, 34.1)}
    spec = tradeoff(group_of(apart | close), "rouge1", "speed")
    below = [recipe for recipe, row in points_of(spec).items() if row["name_dy"] > 0]
    assert below == ["lora_qv"]


@pytest.mark.parametrize("points", [{"full": (1.0, 40.0)}, {"a": (1.0, 2.0), "b": (1.0, 2.0)}])
def test_one_point_and_equal_points_are_drawn(points: dict[str, tuple[float, float]]) -> None:
    spec = tradeoff(group_of(points), "rouge1", "speed")
    assert points_of(spec).keys() == points.keys()
    assert points_of(spec)[min(points)]["y"] == points[min(points)][1]
