"""The API key, slow bodies, and logs without texts."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from harness import clock

if TYPE_CHECKING:
    from tests.harness.serving.conftest import Running, WatchedModel


Serve = Callable[..., "Running"]
SECRET = "Mrs Kowalski of Gdynia"


def test_without_the_key_there_is_no_prediction(serve: Serve, texts: list[str]) -> None:
    running = serve(key="s3cret")
    assert running.generate(texts[0])
    for value in (None, "", "s3cret", "Bearer", "Bearer s3cre", "Bearer s3crett", "Basic s3cret"):
        running.client.headers.pop("Authorization", None)
        if value is not None:
            running.client.headers["Authorization"] = value
        for path in ("/generate", "/v1/completions"):
            answer = running.client.post(path, json={"inputs": "a", "prompt": "a"})
            assert answer.status_code == 401
            assert answer.headers["WWW-Authenticate"] == "Bearer"
            assert answer.json()["error"]["type"] == "bad_key"
        assert running.client.get("/metrics").status_code == 401
        assert running.client.get("/model").status_code == 401
        assert running.client.get("/health").status_code == 200
        assert running.client.get("/").status_code == 200


def test_the_description_says_that_a_key_is_needed(serve: Serve) -> None:
    description = serve(key="s3cret").client.get("/openapi.json").json()
    assert description["paths"]["/generate"]["post"]["security"] == [{"HTTPBearer": []}]
    open_description = serve().client.get("/openapi.json").json()
    assert "security" not in open_description["paths"]["/generate"]["post"]


def test_a_body_that_never_arrives_is_given_up(serve: Serve) -> None:
    running = serve(timeout=0.3)
    running.client.get("/health")  # It listens from here on.
    host, port = running.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        head = "POST /generate HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
        connection.settimeout(30)
        assert connection.recv(100).startswith(b"HTTP/1.1 408")


def test_logs_hold_no_text(
    serve: Serve, watched: WatchedModel, caplog: pytest.LogCaptureFixture
) -> None:
    running = serve(watched, max_characters=1000)
    client = running.client
    for name in ("httpx", "httpcore"):  # The test's own client.
        caplog.set_level(logging.ERROR, name)
    caplog.set_level(logging.DEBUG)
    predicted = running.generate(SECRET)
    client.post("/generate", json={"inputs": SECRET, "beams": SECRET})
    client.post("/generate", json={"inputs": SECRET, "adapter": SECRET})
    client.post("/generate", json={"inputs": [SECRET, {SECRET: 1}], SECRET: SECRET})
    client.post("/generate", content=f"{{{SECRET}", headers={"Content-Type": "application/json"})
    client.post("/generate", json={"inputs": SECRET * 100})
    # A surrogate, which httpx itself would not send.
    surrogate = json.dumps({"inputs": "\ud800" + SECRET})
    headers = {"Content-Type": "application/json"}
    client.post(f"/generate?text={SECRET}", content=surrogate, headers=headers)
    client.get(f"/{SECRET}", params={"text": SECRET})

    def fail(_: Any) -> None:
        raise RuntimeError(f"cannot decode {SECRET}")

    watched.fail = fail
    assert client.post("/generate", json={"inputs": SECRET}).status_code == 500

    def statuses() -> list[str]:
        return [line.split()[-3] for line in caplog.messages if " /generate " in line]

    # A line is written after its answer was sent.
    deadline = clock.seconds() + 30
    while len(statuses()) < 8 and clock.seconds() < deadline:
        clock.sleep(0.01)
    assert statuses() == ["200", "422", "404", "422", "422", "413", "422", "500"]
    assert "GET (no route) 404" in caplog.text
    assert "A batch of 1 failed: RuntimeError in test_middleware.py" in caplog.text
    for word in (*SECRET.split()[1::2], *predicted):
        assert word not in caplog.text
    # Neither does the page of metrics.
    assert "Kowalski" not in client.get("/metrics").text


def test_an_unexpected_error_is_answered_and_logged_without_its_message(
    running: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise KeyError(SECRET)

    monkeypatch.setattr(running.service, "group", fail)
    answer = running.client.post("/generate", json={"inputs": "a"})
    assert answer.status_code == 500
    assert answer.json()["error"]["type"] == "error"
    assert "An unexpected error: KeyError in test_middleware.py" in caplog.text
    assert "Kowalski" not in answer.text + caplog.text
    assert running.client.get("/health").status_code == 200
