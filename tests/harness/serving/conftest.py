"""A small model with two adapters, behind a real server on a free port."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from harness.generation.loading import load_text_model
from harness.generation.text_model import TextModel
from harness.serving.app import create_app
from harness.serving.limits import Limits
from harness.serving.server import Server, bind
from harness.serving.service import Service
from harness.spec.decoding import DecodingSettings

SETTINGS = {"beams": 2, "max_new_tokens": 8}
_TEXTS = [
    "There is a nodule in the left lung.",
    "The liver is normal and the spleen is enlarged, as it was in the earlier examination.",
    "No fracture.",
    "A cyst in the kidney; the heart is of normal size.",
    "The file is written by the program when it ends.",
    "Unchanged.",
]


def _wait_for(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds, for a minute at most."""
    pause = threading.Event()
    for _ in range(6000):
        if condition():
            return
        pause.wait(0.01)
    raise AssertionError("the condition never holds")


class Running(NamedTuple):
    """A server that runs in a thread.

    Attributes:
        url: its address.
        client: a client of it, with the API key if it needs one.
        service: its service.
        server: the server.
        thread: the thread; it ends with the server.
    """

    url: str
    client: httpx.Client
    service: Service
    server: Server
    thread: threading.Thread

    def generate(self, inputs: str | Sequence[str], **options: Any) -> list[str]:
        """Return the predictions of texts."""
        answer = self.client.post("/generate", json={"inputs": inputs, **options})
        assert answer.status_code == 200, answer.text
        return [output["text"] for output in answer.json()["outputs"]]

    def metric(self, name: str) -> float:
        """Return a metric without labels."""
        lines = self.client.get("/metrics").text.splitlines()
        (line,) = (line for line in lines if line.startswith(f"{name} "))
        return float(line.split()[-1])

    def queue_length(self) -> float:
        """Return the number of waiting texts."""
        return self.metric("harness_queue_texts")


class WatchedModel(TextModel):
    """A model that notes its batches, waits for a gate, and fails where a test wants it to.

    Attributes:
        gate: a batch waits until it is set.
        entered: is released once for each batch that has come to the gate.
        calls: (number of texts, adapter) of each batch.
        fail: is called with the sources of each batch, and may raise.
    """

    def __init__(self, model: TextModel) -> None:
        super().__init__(model.tokenizer, model.usage)
        self.adapters = model.adapters
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)
        self.calls: list[tuple[int, str | None]] = []
        self.fail: Callable[[Sequence[Sequence[int]]], None] = lambda sources: None
        self._model = model

    def predict(
        self,
        sources: Sequence[Sequence[int]],
        settings: DecodingSettings | None = None,
        adapter: str | None = None,
    ) -> list[str]:
        self.calls.append((len(sources), adapter))
        self.entered.release()
        assert self.gate.wait(60)
        self.fail(sources)
        return self._model.predict(sources, settings, adapter)

    def close(self) -> None:
        self._model.close()


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """Six sources of different lengths."""
    return _TEXTS


@pytest.fixture(scope="session")
def wait_for() -> Callable[[Callable[[], bool]], None]:
    """Return a function that waits until a condition holds, for a minute at most."""
    return _wait_for


@pytest.fixture(scope="session")
def expected(text_model: TextModel, texts: list[str]) -> list[str]:
    """The prediction of each text, one by one and without a server."""
    sources, _ = text_model.encode(texts)
    predictions = [text_model.predict([source])[0] for source in sources]
    assert len(set(predictions)) > 3
    return predictions


@pytest.fixture(scope="session")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two adapters for PEFT that change what nano-t5 predicts."""
    import torch
    from peft import LoraConfig, get_peft_model

    from harness.backbones.nano import NanoT5

    folders = {}
    for seed, name in enumerate(("one", "two")):
        torch.manual_seed(seed)
        config = LoraConfig(target_modules=["q", "v"], r=4, lora_alpha=64, init_lora_weights=False)
        model = get_peft_model(NanoT5("nano-t5").load("pretrained"), config)
        folders[name] = tmp_path_factory.mktemp("adapters") / name
        model.save_pretrained(folders[name])
    return folders


@pytest.fixture(scope="session")
def text_model(adapters: dict[str, Path]) -> TextModel:
    """nano-t5 with two adapters; its predictions are those of a trained model."""
    return load_text_model("nano-t5", device="cpu", adapters=adapters, settings=SETTINGS)


@pytest.fixture
def watched(text_model: TextModel) -> WatchedModel:
    return WatchedModel(text_model)


@pytest.fixture
def serve(text_model: TextModel) -> Iterator[Callable[..., Running]]:
    """Return a function that starts a server; keywords are limits."""
    with contextlib.ExitStack() as stack:

        def start(model: TextModel | None = None, key: str | None = None, **limits: Any) -> Running:
            service = stack.enter_context(Service(model or text_model, Limits(**limits)))
            server = Server(create_app(service, key), service)
            bound = bind("127.0.0.1", 0)
            url = f"http://127.0.0.1:{bound.getsockname()[1]}"
            thread = threading.Thread(target=server.run, args=([bound],), daemon=True)
            thread.start()
            headers = {} if key is None else {"Authorization": f"Bearer {key}"}
            # Clients of tests wait for a connection while the server starts to listen.
            transport = httpx.HTTPTransport(retries=8)
            client = httpx.Client(
                base_url=url,
                headers=headers,
                timeout=60,
                transport=transport,
                trust_env=False,
            )
            stack.enter_context(client)

            def stop() -> None:
                server.should_exit = True
                thread.join(20)
                assert not thread.is_alive()

            stack.callback(stop)
            return Running(url, client, service, server, thread)

        yield start


@pytest.fixture
def running(serve: Callable[..., Running]) -> Running:
    """A server with the limits that a user gets."""
    return serve()
