"""The end of a server: it answers what it accepted, and refuses the rest."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import httpx
import pytest

from harness.errors import HarnessError
from harness.serving.server import bind

if TYPE_CHECKING:
    from tests.harness.serving.conftest import Running, WatchedModel

Serve = Callable[..., "Running"]
Wait = Callable[[Callable[[], bool]], None]


def test_at_its_end_it_answers_all_accepted_requests_and_refuses_new_ones(
    serve: Serve, watched: WatchedModel, texts: list[str], expected: list[str], wait_for: Wait
) -> None:
    running = serve(watched, batch_tokens=40)  # Two texts in a batch.
    watched.gate.clear()
    with ThreadPoolExecutor(12) as pool:
        accepted = [pool.submit(running.generate, texts[i % 6]) for i in range(12)]
        wait_for(lambda: running.service.open_requests == 12)
        wait_for(lambda: running.queue_length() + watched.calls[0][0] == 12)
        running.server.handle_exit(signal.SIGTERM, None)
        refused = running.client.post("/generate", json={"inputs": "too late"})
        health = running.client.get("/health")
        watched.gate.set()
        answers = [future.result() for future in accepted]
    assert answers == [[expected[i % 6]] for i in range(12)]
    assert len(watched.calls) > 3
    assert refused.status_code == 503
    assert refused.json()["error"]["type"] == "draining"
    assert int(refused.headers["Retry-After"]) >= 1
    assert (health.status_code, health.json()) == (503, {"status": "draining"})
    running.thread.join(20)
    assert not running.thread.is_alive()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{running.url}/health", trust_env=False)


def test_a_client_that_holds_its_connection_does_not_delay_the_end(running: Running) -> None:
    running.client.get("/health")
    host, port = running.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
        running.server.handle_exit(signal.SIGTERM, None)
        running.thread.join(20)
        assert not running.thread.is_alive()


def test_a_second_signal_ends_it_at_once(
    serve: Serve, watched: WatchedModel, texts: list[str]
) -> None:
    running = serve(watched)
    watched.gate.clear()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(running.client.post, "/generate", json={"inputs": texts[0]})
        assert watched.entered.acquire(timeout=30)
        for _ in range(2):
            running.server.handle_exit(signal.SIGINT, None)
        running.thread.join(20)
        assert not running.thread.is_alive()
        watched.gate.set()
        # The connection is closed, or the answer is an error; it is no wrong prediction.
        with contextlib.suppress(httpx.TransportError):
            assert future.result().status_code >= 500


def test_an_address_that_cannot_be_used_is_an_error_with_a_way_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(HarnessError, match=f"cannot use 127.0.0.1:{port}: .*in use"):
            bind("127.0.0.1", port)
    with pytest.raises(HarnessError, match=r"cannot use no such host:1"):
        bind("no such host", 1)
