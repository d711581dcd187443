"""Natural language inference between the sentences of a source and of a prediction."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tasks.metrics.checkpoint import Checkpoint
from tasks.metrics.sentences import split_sentences

if TYPE_CHECKING:
    from harness import FloatArray

# The limits of the summac package.
_MAX_SOURCE_SENTENCES = 100
_MIN_CHARACTERS = 11
_MAX_TOKENS = 500

_WINDOW = 256
"""Examples whose sentence pairs are sorted by length together, and held at once."""


class Entailment:
    """An NLI model that classifies each source sentence with each predicted sentence.

    Args:
        checkpoint: sequence classifier with labels for entailment and contradiction.
        device: device of the model; by default a GPU if there is one.
        batch_size: number of sentence pairs that are classified at once, across examples.
    """

    def __init__(
        self, checkpoint: Checkpoint, device: str | None = None, batch_size: int = 64
    ) -> None:
        self.checkpoint = checkpoint
        self.device = device
        self.batch_size = batch_size
        self._last: tuple[list[str], list[str], list[FloatArray]] | None = None

    def missing(self) -> str | None:
        """Return why the model cannot be used, with the remedy, or ``None``."""
        if missing := self.checkpoint.missing():
            return missing
        assert self.checkpoint.folder is not None
        config = json.loads((self.checkpoint.folder / "config.json").read_text())
        labels = {int(index): label for index, label in config.get("id2label", {}).items()}
        if _columns(labels) is None:
            return (
                f"{self.checkpoint.name!r} is not a supported NLI model: its labels are "
                f"{sorted(labels.values())}. Name entailment, contradiction and neutral under "
                f"id2label in its config.json, or set {self.checkpoint.setting} to another model."
            )
        return None

    def images(self, sources: Sequence[str], predictions: Sequence[str]) -> list[FloatArray]:
        """Return the probabilities of every example's sentence pairs.

        Sentences with at most ten characters are left out, and so are sentences of a source after
        the first hundred. The last result is cached, so several metrics need one pass.

        Returns:
            For each example an array of shape (3, source sentences, predicted sentences):
            entailment, contradiction, neutral. If source or prediction has no sentence, zeros of
            shape (3, 1, 1).
        """
        texts = (list(sources), list(predictions))
        if self._last is None or self._last[:2] != texts:
            self._last = (*texts, self._compute(*texts))
        return self._last[2]

    def _compute(self, sources: list[str], predictions: list[str]) -> list[FloatArray]:
        import numpy as np

        model, tokenizer, device = self._load()
        images: list[FloatArray] = []
        for start in range(0, len(sources), _WINDOW):
            window = slice(start, start + _WINDOW)
            pairs = []
            for source, prediction in zip(sources[window], predictions[window], strict=True):
                premises = _sentences(source)[:_MAX_SOURCE_SENTENCES]
                hypotheses = _sentences(prediction)
                image = np.zeros((3, len(premises) or 1, len(hypotheses) or 1))
                images.append(image)
                pairs += [
                    (premise, hypothesis, image[:, i, j])
                    for i, premise in enumerate(premises)
                    for j, hypothesis in enumerate(hypotheses)
                ]
            # Pairs of similar length need little padding.
            pairs.sort(key=lambda pair: len(pair[0]) + len(pair[1]), reverse=True)
            for first in range(0, len(pairs), self.batch_size):
                batch = pairs[first : first + self.batch_size]
                probabilities = _classify(model, tokenizer, device, batch)
                for (_, _, cell), values in zip(batch, probabilities, strict=True):
                    cell[:] = values
        return images

    def _load(self) -> tuple[Any, Any, str]:
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        folder = str(self.checkpoint.folder)
        model = AutoModelForSequenceClassification.from_pretrained(folder).to(device).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder)
        positions = getattr(model.config, "max_position_embeddings", None) or _MAX_TOKENS + 2
        # RoBERTa's positions begin after two that stand for padding.
        tokenizer.model_max_length = min(
            _MAX_TOKENS, tokenizer.model_max_length, max(positions - 2, 1)
        )
        return model, tokenizer, device


def _sentences(text: str) -> list[str]:
    return [sentence for sentence in split_sentences(text) if len(sentence) >= _MIN_CHARACTERS]


def _classify(
    model: Any, tokenizer: Any, device: str, pairs: Sequence[tuple[str, str, FloatArray]]
) -> FloatArray:
    """Return the probabilities of entailment, contradiction and neutral, shape (pairs, 3)."""
    import torch

    inputs = tokenizer(
        [premise for premise, _, _ in pairs],
        [hypothesis for _, hypothesis, _ in pairs],
        padding=True,
        truncation="longest_first",
        return_tensors="pt",
    )
    columns = _columns(model.config.id2label)
    assert columns is not None
    with torch.inference_mode():
        probabilities = model(**inputs.to(device)).logits.float().softmax(dim=-1)
    chosen: FloatArray = probabilities[:, list(columns)].double().cpu().numpy()
    return chosen


def _columns(labels: Mapping[int, str]) -> tuple[int, int, int] | None:
    """Return the outputs for entailment, contradiction and neutral."""
    names = {index: label.lower() for index, label in labels.items()}
    entailment = [i for i, name in names.items() if name.startswith(("entail", "support"))]
    contradiction = [i for i, name in names.items() if name.startswith(("contradict", "refute"))]
    neutral = [i for i in names if i not in (*entailment, *contradiction)]
    if len(entailment) == len(contradiction) == len(neutral) == 1:
        return entailment[0], contradiction[0], neutral[0]
    return None
