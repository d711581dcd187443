"""Answers of every route, and every reason to refuse a request."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from openapi_spec_validator import validate

from harness.generation.text_model import TextModel
from harness.serving.schemas import GenerateRequest
from harness.spec.decoding import DecodingSettings

if TYPE_CHECKING:
    from tests.harness.serving.conftest import Running, WatchedModel

Serve = Callable[..., "Running"]
Wait = Callable[[Callable[[], bool]], None]


def refusal(running: Running, status: int, **body: Any) -> dict[str, str]:
    # Unlike httpx's own, this encoding has a form for every string.
    content, headers = json.dumps(body), {"Content-Type": "application/json"}
    answer = running.client.post("/generate", content=content, headers=headers)
    assert answer.status_code == status, answer.text
    error: dict[str, str] = answer.json()["error"]
    return error


def test_predictions_are_the_models_own(
    running: Running, expected: list[str], texts: list[str]
) -> None:
    assert running.generate(texts) == expected
    answer = running.client.post("/generate", json={"inputs": texts[0]}).json()
    assert answer["model"] == "nano-t5"
    (output,) = answer["outputs"]
    assert output["source_tokens"] > 5
    assert 0 < output["prediction_tokens"] <= 8
    assert not output["truncated"]


def test_many_clients_share_batches_and_get_what_each_would_alone(
    serve: Serve, watched: WatchedModel, expected: list[str], texts: list[str], wait_for: Wait
) -> None:
    running = serve(watched)
    watched.gate.clear()
    with ThreadPoolExecutor(24) as pool:
        first = pool.submit(running.generate, texts[0])
        assert watched.entered.acquire(timeout=30)
        others = [pool.submit(running.generate, texts[i % 6]) for i in range(1, 24)]
        wait_for(lambda: running.service.open_requests == 24)
        wait_for(lambda: running.queue_length() == 23)
        watched.gate.set()
        answers = [future.result() for future in (first, *others)]
    assert answers == [[expected[i % 6]] for i in range(24)]
    assert watched.calls == [(1, None), (23, None)]


def test_options_of_a_request_are_those_of_the_search(
    running: Running, text_model: TextModel, texts: list[str]
) -> None:
    options = {"beams": 3, "max_new_tokens": 5, "length_penalty": 2.0}
    settings = DecodingSettings.model_validate(
        {**text_model.usage.settings.model_dump(), **options}
    )
    sources, _ = text_model.encode(texts)
    assert running.generate(texts, **options) == text_model.predict(sources, settings)
    assert running.generate(texts, max_new_tokens=2) != running.generate(texts)


def test_every_option_of_the_search_can_be_requested() -> None:
    missing = DecodingSettings.model_fields.keys() - GenerateRequest.model_fields.keys()
    assert missing == {"batch_size"}


def test_adapters_are_chosen_by_name(
    serve: Serve, watched: WatchedModel, text_model: TextModel, texts: list[str]
) -> None:
    running = serve(watched)
    sources, _ = text_model.encode(texts)
    answers = {}
    for name in (None, "one", "two", "one", None):
        answers[name] = running.generate(texts, adapter=name)
        assert answers[name] == text_model.predict(sources, adapter=name)
    assert len({tuple(texts) for texts in answers.values()}) == 3
    assert {adapter for _, adapter in watched.calls} == {None, "one", "two"}
    error = refusal(running, 404, inputs="a", adapter="on")
    assert error["type"] == "unknown_adapter"
    assert "Did you mean 'one'" in error["message"]


def test_blank_texts_have_empty_predictions_and_are_not_decoded(
    serve: Serve, watched: WatchedModel, expected: list[str], texts: list[str]
) -> None:
    running = serve(watched)
    assert running.generate([" \n", texts[2], ""]) == ["", expected[2], ""]
    assert running.generate("") == [""]
    assert watched.calls == [(1, None)]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "inputs: Field required"),
        ({"inputs": 3}, "valid string"),
        ({"inputs": []}, "at least one text"),
        ({"inputs": ["a", None]}, "valid string"),
        ({"inputs": "\ud800"}, "surrogate"),
        ({"inputs": "a", "temperature": 1}, "temperature: Extra inputs are not permitted"),
        ({"inputs": "a", "beams": 0}, "beams=0 is not valid"),
        ({"inputs": "a", "beams": 17}, "beams is at most 16"),
        ({"inputs": "a", "max_new_tokens": 513}, "max_new_tokens is at most 512"),
        ({"inputs": "a", "min_new_tokens": 9}, "more than max_new_tokens"),
        ({"inputs": "a", "early_stopping": "soon"}, "early_stopping"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_with_its_reason(
    running: Running, body: dict[str, Any], says: str
) -> None:
    assert says in refusal(running, 422, **body)["message"]


def test_a_body_that_is_no_json_is_refused(running: Running) -> None:
    headers = {"Content-Type": "application/json"}
    answer = running.client.post("/generate", content=b'{"inputs": secret', headers=headers)
    assert answer.status_code == 422
    assert "no JSON" in answer.json()["error"]["message"]
    assert "secret" not in answer.text


def test_requests_that_are_too_large_are_refused(serve: Serve, texts: list[str]) -> None:
    running = serve(max_texts=2, max_characters=3000)
    assert "at most 2 texts" in refusal(running, 413, inputs=["a"] * 3)["message"]
    assert "4,000 characters" in refusal(running, 413, inputs="a" * 4000)["message"]
    error = refusal(running, 413, inputs=["a", "a b " * 400])
    assert error["message"].startswith("Text 2 has more than 512 tokens.")
    answer = running.client.post("/generate", json={"inputs": "a b " * 400, "truncate": True})
    assert answer.json()["outputs"][0]["truncated"]
    assert answer.json()["outputs"][0]["source_tokens"] == 512


def test_a_body_that_is_too_large_is_refused_before_it_is_read(serve: Serve) -> None:
    running = serve(max_characters=10)
    large = b'{"inputs": "' + b"a" * 100_000 + b'"}'
    headers = {"Content-Type": "application/json"}
    answer = running.client.post("/generate", content=large, headers=headers)
    assert (answer.status_code, "bytes" in answer.text) == (413, True)
    # Without a length, the server counts what arrives.
    answer = running.client.post("/generate", content=iter([large]), headers=headers)
    assert (answer.status_code, "bytes" in answer.text) == (413, True)


def test_a_full_queue_refuses_and_says_when_to_come_back(
    serve: Serve, watched: WatchedModel, texts: list[str], wait_for: Wait
) -> None:
    running = serve(watched, max_queue=2)
    watched.gate.clear()
    with ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(running.generate, texts[0])]
        assert watched.entered.acquire(timeout=30)
        futures.append(pool.submit(running.generate, texts[:2]))
        wait_for(lambda: running.queue_length() == 2)
        answer = running.client.post("/generate", json={"inputs": "one more"})
        watched.gate.set()
        for future in futures:
            future.result()
    assert answer.status_code == 429
    assert answer.json()["error"]["type"] == "queue_full"
    assert int(answer.headers["Retry-After"]) >= 1
    assert running.generate("one more")


def test_a_request_whose_time_is_up_is_answered_and_dropped(
    serve: Serve, watched: WatchedModel, texts: list[str], wait_for: Wait
) -> None:
    running = serve(watched, timeout=0.5)
    watched.gate.clear()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(running.client.post, "/generate", json={"inputs": texts[0]})
        assert watched.entered.acquire(timeout=30)
        second = pool.submit(running.client.post, "/generate", json={"inputs": texts[1]})
        answers = [first.result(), second.result()]
    assert [answer.status_code for answer in answers] == [503, 503]
    assert all(answer.json()["error"]["type"] == "timeout" for answer in answers)
    assert all(int(answer.headers["Retry-After"]) >= 1 for answer in answers)
    watched.gate.set()
    wait_for(lambda: running.service.idle)
    # The one that still waited was never decoded.
    assert watched.calls == [(1, None)]
    assert running.metric("harness_dropped_texts_total") == 1


def test_a_client_that_leaves_takes_its_texts_out_of_the_queue(
    serve: Serve, watched: WatchedModel, expected: list[str], texts: list[str], wait_for: Wait
) -> None:
    running = serve(watched)
    watched.gate.clear()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(running.generate, texts[0])
        assert watched.entered.acquire(timeout=30)
        last = pool.submit(running.generate, texts[1])
        wait_for(lambda: running.queue_length() == 1)
        leave_after_asking(running, wait_for, [texts[2], texts[3]])
        wait_for(lambda: running.metric("harness_dropped_texts_total") == 2)
        watched.gate.set()
        assert [first.result(), last.result()] == [[expected[0]], [expected[1]]]
    assert watched.calls == [(1, None), (1, None)]


def leave_after_asking(running: Running, wait_for: Wait, texts: list[str]) -> None:
    """Send a request, and close the connection once the server has queued its texts."""
    before = running.queue_length()
    body = json.dumps({"inputs": texts}).encode()
    head = (
        "POST /generate HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    host, port = running.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head.encode() + body)
        wait_for(lambda: running.queue_length() == before + len(texts))


def test_an_error_of_one_batch_is_answered_to_its_own_requests_alone(
    serve: Serve, watched: WatchedModel, expected: list[str], texts: list[str]
) -> None:
    running = serve(watched)

    def fail(sources: Any) -> None:
        if any(len(source) > 15 for source in sources):
            raise RuntimeError("a shape is wrong")

    watched.fail = fail
    error = refusal(running, 500, inputs=texts[1])
    assert error["type"] == "model_failed"
    assert "shape" not in error["message"]
    assert running.generate(texts[0]) == [expected[0]]


def test_a_batch_that_runs_out_of_memory_is_split_until_it_fits(
    serve: Serve, watched: WatchedModel, expected: list[str], texts: list[str]
) -> None:
    running = serve(watched)

    def fail(sources: Any) -> None:
        if len(sources) > 2:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB.")

    watched.fail = fail
    assert running.generate(texts) == expected
    assert [count for count, _ in watched.calls] == [6, 3, 1, 2, 3, 1, 2]
    watched.fail = lambda sources: fail([0, 0, 0])
    assert "Memory runs out" in refusal(running, 500, inputs="a")["message"]


def test_health_and_the_description_of_the_model(running: Running, text_model: TextModel) -> None:
    assert running.client.get("/health").json() == {"status": "ready"}
    model = running.client.get("/model").json()
    assert model["adapters"] == ["one", "two"]
    assert model["settings"]["beams"] == 2
    assert model["limits"]["max_queue"] == 512


def test_metrics_count_requests_texts_and_tokens(running: Running, texts: list[str]) -> None:
    running.generate(texts[:3])
    refusal(running, 422, inputs=[])
    text = running.client.get("/metrics").text
    assert 'harness_requests_total{route="/generate",status="200"} 1.0' in text
    assert 'harness_requests_total{route="/generate",status="422"} 1.0' in text
    assert running.metric("harness_batch_texts_sum") == 3
    assert running.metric("harness_source_tokens_total") > 20
    assert running.metric("harness_prediction_tokens_total") > 3
    assert running.metric("harness_queue_seconds_count") == 3


def test_the_description_of_the_routes_is_valid_and_its_examples_work(running: Running) -> None:
    description = running.client.get("/openapi.json").json()
    validate(description)
    assert {"/generate", "/v1/completions", "/health", "/metrics"} <= description["paths"].keys()
    schemas = description["components"]["schemas"]
    for path, name in (("/generate", "GenerateRequest"), ("/v1/completions", "CompletionRequest")):
        for example in schemas[name]["examples"]:
            assert running.client.post(path, json=example).status_code == 200
        undocumented = [
            field
            for field, schema in schemas[name]["properties"].items()
            if not schema.get("description")
        ]
        assert not undocumented


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/nothing"])
def test_there_is_no_page_that_loads_scripts_from_elsewhere(running: Running, path: str) -> None:
    answer = running.client.get(path)
    assert answer.status_code == 404
    assert answer.json()["error"]["message"] == "Not Found"
