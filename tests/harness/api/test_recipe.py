"""The grammar of recipes: canonical text, any order, and errors that suggest corrections."""

import math
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import Compressor, HarnessError, Options, Stage
from harness.api.parts import split_parts
from harness.api.plugins import installed
from harness.api.recipe import Recipe, parse
from harness.api.registry import Origin, Register, Registry

BOOLEANS = st.sampled_from(["true", "false"])
KEEP = st.sampled_from(["all", "top", "every", "1-3.5.7", "2"])
LORA = {
    "r": st.integers(1, 512).map(str),
    "alpha": st.floats(1e-30, 1e30).map(lambda x: str(x).replace("+", "")),
    "dropout": st.floats(0, 1, exclude_max=True).map(str),
    "bias": BOOLEANS,
    "paper_compat": BOOLEANS,
}
OPTIONS = {
    "lora_ff": LORA,
    "lora_qv": LORA,
    "lprun": {"strategy": st.sampled_from(["top", "bottom", "every"]), "encoder": KEEP},
}


@st.composite
def parts(draw: st.DrawFn) -> list[tuple[str, list[str]]]:
    """Draw compressors with some of their options, in any order."""
    names = draw(st.lists(st.sampled_from(sorted(OPTIONS)), min_size=1, unique=True))
    return [
        (
            name,
            [
                f"{key}={draw(OPTIONS[name][key])}"
                for key in draw(st.lists(st.sampled_from(sorted(OPTIONS[name])), unique=True))
            ],
        )
        for name in names
    ]


def write(recipe: list[tuple[str, list[str]]]) -> str:
    return "+".join(f"{name}:{','.join(given)}" if given else name for name, given in recipe)


def read(text: str) -> Recipe:
    return parse(text, installed().compressors)


def content(recipe: Recipe) -> list[tuple[str, Any]]:
    return [(compressor.name, compressor.options) for compressor in recipe.compressors]


@given(parts())
def test_the_canonical_text_reads_back_as_the_same_recipe(recipe: list[Any]) -> None:
    parsed = read(write(recipe))
    again = read(str(parsed))
    assert content(again) == content(parsed)
    assert str(again) == str(parsed)


@given(parts(), st.randoms())
def test_order_never_matters(recipe: list[Any], random: Any) -> None:
    shuffled = [(name, random.sample(given, len(given))) for name, given in recipe]
    random.shuffle(shuffled)
    assert content(read(write(shuffled))) == content(read(write(recipe)))
    assert str(read(write(shuffled))) == str(read(write(recipe)))


@given(st.lists(parts().map(write), min_size=1))
def test_commas_between_recipes_and_between_options_are_distinguished(recipes: list[str]) -> None:
    assert split_parts(",".join(recipes)) == recipes


def test_stages_decide_the_order_of_work() -> None:
    recipe = read("lora_qv+lprun+lora_ff")
    assert [c.name for c in recipe.compressors] == ["lprun", "lora_ff", "lora_qv"]
    assert recipe.stages == {Stage.STRUCTURE, Stage.ADAPTER}


def test_defaults_are_left_out_of_the_canonical_text() -> None:
    assert str(read("lprun + lora_ff:r=16,alpha=32.0,bias=yes")) == "lora_ff+lprun"
    assert str(read("lora_ff:dropout=0,r=8")) == "lora_ff:dropout=0.0,r=8"


def test_options_reach_the_compressor_as_numbers() -> None:
    options = read("lora_ff:r=8,alpha=1e3").compressors[0].options
    assert (options.r, options.alpha) == (8, math.pow(10, 3))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "cannot be read at ''"),
        ("lora_ff+", "cannot be read at ''"),
        ("lora ff", "cannot be read at 'lora ff'"),
        ("lora_ff:", "cannot be read at 'lora_ff:'"),
        ("lora_ff:r", "cannot be read at 'lora_ff:r': 'r'"),
        ("lora_ff:=8", "cannot be read at 'lora_ff:=8'"),
        ("lora_ff:r=8,r=9", "gives the option 'r' twice"),
        ("lora_ff+lora_ff:r=8", "names 'lora_ff' twice"),
        ("lora_fff", "Unknown compressor 'lora_fff'.\nDid you mean 'lora_ff'"),
        ("lora_ff:rank=8", "compressor 'lora_ff' has no option 'rank'"),
        ("lora_ff:r=0", "option r='0' is not valid"),
        ("lora_ff:alpha=inf", "option alpha='inf' is not valid"),
        (
            "lprun:encoder=1;2",
            "write one of alternating, top, middle, bottom, every, all, or layers",
        ),
        (
            "full+lprun",
            "'full' cannot be combined with 'lprun'.\nLeave one out, for example: lprun",
        ),
        ("lora_ff:r=8+full", "'full' cannot be combined with 'lora_ff'."),
    ],
)
def test_mistakes_are_explained(text: str, complaint: str) -> None:
    with pytest.raises(HarnessError) as raised:
        read(text)
    assert complaint in str(raised.value)


class Dated(Compressor[Any]):
    """A compressor as the first version of the API had them."""

    stage: ClassVar[Stage] = Stage.STRUCTURE
    Options = Options

    def apply(self, model: Any, backbone: Any) -> Any:  # type: ignore[override]
        return model


def test_a_compressor_of_the_first_api_version_is_refused_with_the_edit_that_mends_it() -> None:
    registry = Registry("compressor")
    Register(registry, Origin("their-package", "1.4"))("dated", Dated, "of old")
    with pytest.raises(HarnessError, match=r"'dated' of their-package 1\.4 .* version 1") as raised:
        parse("dated", registry)
    assert "def apply(self, model, backbone, context)" in str(raised.value.hint)
