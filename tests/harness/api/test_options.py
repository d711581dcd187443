"""Options: types, descriptions, and errors that explain wrong ones."""

from typing import Literal

import pytest
from pydantic import Field

from harness import HarnessError, Options
from harness.api.options import describe, validate


class Inner(Options):
    steps: int = 3
    """How many."""


class Example(Options):
    rank: int = Field(16, ge=1)
    """Rank of
    the ``update``."""
    scale: float = Field(0.5, gt=0, lt=1)
    bias: bool = True
    strategy: Literal["top", "bottom"] = "top"
    drop: int | None = None
    name: str
    inner: Inner = Field(default_factory=Inner)


def test_options_are_described_as_a_user_writes_them() -> None:
    assert describe(Example)[:6] == [
        ("rank", "int, >= 1", "16", "Rank of the update."),
        ("scale", "float, > 0, < 1", "0.5", ""),
        ("bias", "bool", "true", ""),
        ("strategy", "top | bottom", "top", ""),
        ("drop", "int", "none", ""),
        ("name", "str", "required", ""),
    ]


def test_text_becomes_the_type_of_the_field() -> None:
    text = {"rank": "4", "scale": "1e-1", "bias": "false", "drop": "2", "name": "x"}
    options = validate(Example, text, "it")
    assert (options.rank, options.scale, options.bias, options.drop) == (4, 0.1, False, 2)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"rnk": 4}, "it has no option 'rnk'.\nDid you mean 'rank'?"),
        ({"inner": {"step": 4}}, "it has no option 'inner.step'.\nDid you mean 'steps'?"),
        ({"rank": "four"}, "it: option rank='four' is not valid: Input should be a valid integer"),
        ({"rank": 0}, "it: option rank=0 is not valid: Input should be greater than or equal to 1"),
        ({"strategy": "up"}, "it: option strategy='up' is not valid: Input should be 'top' or"),
        ({"scale": "inf"}, "it: option scale='inf' is not valid"),
    ],
)
def test_wrong_options_are_explained(values: dict[str, object], complaint: str) -> None:
    with pytest.raises(HarnessError) as raised:
        validate(Example, {"name": "x", **values}, "it")
    assert str(raised.value).startswith(complaint)


def test_options_cannot_be_changed_afterwards() -> None:
    with pytest.raises(ValueError, match="frozen"):
        validate(Inner, {}, "it").steps = 4  # type: ignore[misc]
