"""The comparison of servers fails on input that is too easy, and on answers that are wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

Import = Callable[[str], ModuleType]


def fails(reason: str) -> Any:
    return pytest.raises(SystemExit, match=f"degenerate: .*{reason}")


def test_texts_have_different_lengths_and_different_predictions(module: Import) -> None:
    serving = module("serving")
    words = "one two three four five six"
    good = {f"{n} " + "word " * n: f"{words} {n}" for n in (3, 9, 30)}
    serving.check_texts(good, longest=32)
    with fails("of much the same length"):
        serving.check_texts({"a b": f"{words} 1", "a c": f"{words} 2"}, longest=32)
    with fails("predictions have 1.0 words"):
        serving.check_texts({text: str(n) for n, text in enumerate(good)}, longest=32)
    with fails("33% of the predictions are different"):
        serving.check_texts(dict.fromkeys(good, words), longest=32)


def test_the_texts_are_paragraphs_of_different_lengths(module: Import) -> None:
    serving = module("serving")
    texts = serving._sources(96)
    assert len(set(texts)) == 96
    serving.demand_spread([len(text) for text in texts], "texts")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"wrong": 1}, "1 of 3 answers are wrong"),
        ({"hung": 2}, "2 requests hang"),
        ({"statuses": Counter({200: 3, 500: 1})}, "1 answers are errors"),
        ({"without_retry_after": 1}, "does not say when to come back"),
        ({"statuses": Counter({200: 2})}, "2 of 3 are answered"),
    ],
)
def test_answers_must_be_right_and_complete(
    module: Import, changes: dict[str, Any], reason: str
) -> None:
    answers = module("load_client").Answers
    check = module("mistreatment").check_answers
    good = {"statuses": Counter({200: 3})}
    check(answers(**good), "test", 3)
    with fails(reason):
        check(answers(**{**good, **changes}), "test", 3)


def test_percentiles_are_values_that_were_measured(module: Import) -> None:
    percentile = module("load_client").percentile
    values = list(range(1, 101))
    assert [percentile(values, share) for share in (0.5, 0.95, 0.99)] == [50, 95, 99]
    assert percentile([7.0], 0.99) == 7.0
    assert percentile([1.0, 2.0], 0.5) == 1.0
