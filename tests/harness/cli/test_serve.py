"""``harness serve``: a process that serves and ends, and errors that say what to do."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import Result

from harness.serving.server import Server

Harness = Callable[..., Result]


@pytest.fixture
def _no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """End the command when it would begin to serve."""

    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Server, "run", interrupt)
    monkeypatch.delenv("HARNESS_API_KEY", raising=False)


@pytest.fixture
def process(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A server on a free port, whose key is in a file."""
    (tmp_path / "key").write_text("s3cret\n")
    words = [sys.executable, "-m", "harness", "serve", "nano-t5", "--port", "0"]
    words += ["--api-key-file", str(tmp_path / "key"), "--set", "max_new_tokens=8"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=environment) as server:
        yield server
        server.kill()


@pytest.mark.slow
def test_a_process_serves_and_ends_cleanly_at_sigterm(process: subprocess.Popen[str]) -> None:
    assert process.stderr
    lines = []
    for line in process.stderr:
        lines.append(line)
        if "curl" in line:
            break
    address = re.search(r"http://127\.0\.0\.1:\d+", lines[-1])
    assert address, lines
    assert '-H "Authorization: Bearer $HARNESS_API_KEY"' in lines[-1]
    body = re.search(r"-d '(.+)'", lines[-1])
    assert body
    transport = httpx.HTTPTransport(retries=8)
    with httpx.Client(base_url=address[0], transport=transport, trust_env=False) as client:
        assert client.get("/health").json() == {"status": "ready"}
        refused = client.post("/generate", json=json.loads(body[1]))
        headers = {"Authorization": "Bearer s3cret"}
        answer = client.post("/generate", json=json.loads(body[1]), headers=headers)
    assert refused.status_code == 401
    assert answer.json()["outputs"][0]["text"]
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    rest = process.stderr.read()
    assert "POST /generate 401" in rest
    assert "POST /generate 200" in rest
    assert "A source text" not in rest
    assert "s3cret" not in rest
    assert "Traceback" not in rest
    assert rest.splitlines()[-1].startswith("The server has ended")


@pytest.mark.usefixtures("_no_server")
def test_an_open_address_without_a_key_is_warned_of(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    warned = "Warning: everybody who reaches 0.0.0.0 can use this server"
    command = ("serve", "nano-t5", "--port", "0")
    result = harness(*command, "--host", "0.0.0.0")
    assert result.exit_code == 130
    assert warned in result.output
    assert warned not in harness(*command).output
    monkeypatch.setenv("HARNESS_API_KEY", "s3cret")
    result = harness(*command, "--host", "0.0.0.0")
    assert "Serving on http://0.0.0.0:" in result.output
    assert warned not in result.output
    assert "s3cret" not in result.output


def test_a_missing_package_is_named_with_the_extra(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *_: None if name == "uvicorn" else find(name)
    )
    result = harness("serve", "nano-t5")
    assert result.exit_code == 2
    assert "needs the package uvicorn" in result.output
    assert "pip install 'seq2seq-harness[serve]'" in result.output


@pytest.mark.parametrize("key", ["", " \n", "two words", "zażółć", "two\nlines"])
@pytest.mark.usefixtures("_no_server")
def test_a_key_that_no_request_can_send_is_an_error(
    harness: Harness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    (tmp_path / "key").write_text(key)
    result = harness("serve", "nano-t5", "--api-key-file", str(tmp_path / "key"))
    assert result.exit_code == 2
    assert "holds no usable API key" in result.output
    monkeypatch.setenv("HARNESS_API_KEY", key)
    result = harness("serve", "nano-t5")
    assert result.exit_code == 2
    assert "The variable HARNESS_API_KEY holds no usable API key" in result.output
    assert not key.strip() or key.strip() not in result.output


@pytest.mark.usefixtures("_no_server")
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--api-key-file", "missing"], "cannot be read from 'missing': No such file"),
        (["--adapter", "one"], "--adapter 'one' cannot be read"),
        (["--adapter", "a=x", "--adapter", "a=y"], "two adapters 'a'"),
        (["--set", "beams"], "beams"),
        (["--set", "beam=2"], "The search has no option 'beam'.\nDid you mean 'beams'"),
        (["--host", "no such host"], "cannot use no such host:8000"),
    ],
)
def test_mistakes_are_found_before_the_model_is_loaded(
    harness: Harness, words: list[str], says: str
) -> None:
    result = harness("serve", "nano-t5", *words)
    assert result.exit_code == 2
    assert says in result.output
    assert "Loading" not in result.output
