"""Recipes with alternatives: their points, their names, and texts that cannot be read."""

from __future__ import annotations

import pytest

from harness.api.plugins import installed
from harness.errors import HarnessError
from harness.searching.space import TEMPLATES, read_space, split_templates


def test_a_template_stands_for_every_combination_of_its_alternatives() -> None:
    space = read_space(["lora_ff:r={8|16}{+lprun|}"], 1)
    assert [point.recipe for point in space.points()] == [
        "lora_ff:r=8+lprun",
        "lora_ff:r=8",
        "lora_ff:r=16+lprun",
        "lora_ff:r=16",
    ]


def test_every_recipe_has_the_same_learning_rates() -> None:
    space = read_space(["full", "lprun:select={alternate|loss}"], 5)
    assert space.size == 3 * 5
    by_recipe: dict[str, list[int]] = {}
    for point in space.points():
        by_recipe.setdefault(point.recipe, []).append(point.octave)
    assert set(map(tuple, by_recipe.values())) == {(-2, -1, 0, 1, 2)}


def test_templates_share_the_names_of_equal_texts_only() -> None:
    space = read_space(["lora:r={8|16}+lprun", "lora:r={8|16}", "lora:r={8|32}"], 1)
    names = [[choice.name for choice in template.choices] for template in space.templates]
    assert names[0] == names[1] == ["lora:r={8|16}"]
    assert names[2] == ["lora:r={8|32}"]


def test_a_point_is_found_again_from_its_parameters() -> None:
    space = read_space(["lora:r={8|16},targets={qv|ffn}+lprun", "lprun"], 3)
    for point in space.points():
        values = point.parameters
        (template,) = [t for t in space.templates if t.text == values["template"]]
        chosen = [str(values[choice.name]) for choice in template.choices]
        assert template.point(chosen, int(values["octave"])) == point
    near, far = space.first
    assert near.distance(near) == 0
    assert near.distance(far) > 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lora:r={8|16},alpha=4,lprun", ["lora:r={8|16},alpha=4", "lprun"]),
        (
            "{lprun:encoder_keep=2,decoder_keep=3|lprun}+lora_ff,full",
            ["{lprun:encoder_keep=2,decoder_keep=3|lprun}+lora_ff", "full"],
        ),
    ],
)
def test_commas_inside_braces_do_not_separate_templates(text: str, expected: list[str]) -> None:
    assert split_templates(text) == expected


@pytest.mark.parametrize(
    ("texts", "rates", "message"),
    [
        (["lora:r={8|16"], 3, "do not match"),
        (["lora:r=8}"], 3, "do not match"),
        (["lora:r={8}"], 3, "single alternative"),
        ([], 3, "no recipes"),
        (["full"], 2, "no middle"),
    ],
)
def test_a_space_that_cannot_be_read_is_an_error(
    texts: list[str], rates: int, message: str
) -> None:
    with pytest.raises(HarnessError, match=message):
        read_space(texts, rates)


def test_every_recipe_of_the_default_space_can_be_read() -> None:
    recipes = {point.recipe for point in read_space(TEMPLATES, 1).points()}
    assert len(recipes) > 50
    plugins = installed()
    assert len({str(plugins.recipe(recipe)) for recipe in recipes}) == len(recipes)
