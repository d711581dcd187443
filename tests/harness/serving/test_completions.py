"""The OpenAI API: its shape, and a clear answer to what beam search cannot do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.harness.serving.conftest import Running


def test_completions_are_the_predictions(running: Running, texts: list[str]) -> None:
    body = {"model": "nano-t5", "prompt": texts[:2], "max_tokens": 5, "temperature": 0, "n": 1}
    answer = running.client.post("/v1/completions", json=body).json()
    predictions = [choice["text"] for choice in answer["choices"]]
    assert predictions == running.generate(texts[:2], max_new_tokens=5)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]
    assert answer["object"] == "text_completion"
    usage = answer["usage"]
    assert usage["prompt_tokens"] + usage["completion_tokens"] == usage["total_tokens"] > 10


def test_the_model_is_the_base_or_an_adapter(running: Running, texts: list[str]) -> None:
    names = [model["id"] for model in running.client.get("/v1/models").json()["data"]]
    assert names == ["nano-t5", "one", "two"]
    body = {"model": "two", "prompt": texts[0]}
    answer = running.client.post("/v1/completions", json=body).json()
    assert answer["model"] == "two"
    assert [answer["choices"][0]["text"]] == running.generate(texts[0], adapter="two")
    refused = running.client.post("/v1/completions", json={"model": "gpt", "prompt": "a"})
    assert refused.status_code == 404
    assert "Known: nano-t5, one, two." in refused.json()["error"]["message"]


@pytest.mark.parametrize(
    "option",
    [
        {"n": 2},
        {"temperature": 0.7},
        {"top_p": 0.9},
        {"stream": True},
        {"logprobs": 0},
        {"stop": "."},
        {"presence_penalty": 1},
        {"best_of": 3},
    ],
    ids=str,
)
def test_what_no_search_does_is_refused_by_name(running: Running, option: dict[str, Any]) -> None:
    answer = running.client.post("/v1/completions", json={"prompt": "a", **option})
    assert answer.status_code == 400
    (name,) = option
    assert answer.json()["error"]["message"].startswith(f"{name} asks for")


def test_options_that_ask_for_nothing_else_are_accepted(running: Running) -> None:
    body = {
        "prompt": "a",
        "top_p": 1.0,
        "stream": False,
        "stop": None,
        "logit_bias": {},
        "frequency_penalty": 0,
        "seed": 3,
        "user": "me",
    }
    assert running.client.post("/v1/completions", json=body).status_code == 200
