"""A server as one writes it in an hour: FastAPI around transformers' generate, one text at a time.

It is the peer of ``serving.py``, with the same model, search and threads. Requests wait for a lock,
since two calls at once take as long as one after the other and more memory.
"""

import argparse
import threading
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, PreTrainedModel


class Request(BaseModel):
    """A text to predict."""

    inputs: str


class PlainModel:
    """transformers' own search with fixed settings.

    Args:
        folder: a folder of ``save_pretrained`` with model and tokenizer.
        settings: arguments of ``generate``.
    """

    def __init__(self, folder: str, settings: dict[str, Any]) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = AutoModelForSeq2SeqLM.from_pretrained(folder, local_files_only=True)
        self._model: PreTrainedModel = model.eval()
        self._settings = settings
        self._lock = threading.Lock()

    def __call__(self, text: str) -> str:
        """Return the prediction of a text."""
        batch = self._tokenizer([text], return_tensors="pt")
        with self._lock, torch.inference_mode():
            rows = self._model.generate(**batch, **self._settings)
        found: str = self._tokenizer.batch_decode(rows, skip_special_tokens=True)[0]
        return found.strip()


def create_app(predict: PlainModel) -> FastAPI:
    """Return the application."""
    app = FastAPI()

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ready"}

    # A plain function, which FastAPI calls in a thread, so that others can connect meanwhile.
    @app.post("/generate")
    def generate(body: Request) -> dict[str, list[dict[str, str]]]:
        return {"outputs": [{"text": predict(body.inputs)}]}

    return app


def main() -> None:
    """Serve until a signal comes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--beams", type=int, required=True)
    parser.add_argument("--max-new-tokens", type=int, required=True)
    parser.add_argument("--no-repeat-ngram", type=int, required=True)
    options = parser.parse_args()
    settings = {
        "num_beams": options.beams,
        "max_new_tokens": options.max_new_tokens,
        "no_repeat_ngram_size": options.no_repeat_ngram,
        "early_stopping": False,
        "length_penalty": 1.0,
    }
    app = create_app(PlainModel(options.folder, settings))
    uvicorn.run(app, host="127.0.0.1", port=options.port, log_level="warning")


if __name__ == "__main__":
    main()
