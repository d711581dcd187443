"""Reference of an export's check: what the model of the run computes, on some test examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from harness.data.examples import encode
from harness.evaluation.decoding import pad_sources
from harness.evaluation.library_search import library_search
from harness.evaluation.predictions import PredictionRow, read_predictions
from harness.records.run_folder import PREDICTIONS
from harness.training.trained_run import TrainedRun

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from harness.spec.decoding import DecodingSettings

EXAMPLES = 20
TARGET_TOKENS = 64
"""Longest target in tokens whose logits are compared."""


@dataclass(frozen=True)
class Reference:
    """Logits and predictions of the run's model, in float32 with unmerged adapters, on the CPU.

    Attributes:
        run: the run.
        rows: the test examples, with the predictions that the run stored.
        sources: token ids of the sources.
        targets: token ids of the references.
        logits: example -> logits of the target tokens.
        predictions: predictions of transformers' search with the settings of the run.
        greedy: predictions of greedy search; empty unless they were requested.
    """

    run: TrainedRun
    rows: Sequence[PredictionRow]
    sources: Sequence[Sequence[int]]
    targets: Sequence[Sequence[int]]
    logits: Sequence[Tensor]
    predictions: Sequence[str]
    greedy: Sequence[str] = ()

    @property
    def source_texts(self) -> list[str]:
        """Sources without the prefix."""
        return [row.source or "" for row in self.rows]

    @property
    def target_texts(self) -> list[str]:
        """First reference of each example."""
        return [_first(row) for row in self.rows]

    @property
    def stored(self) -> list[str]:
        """Predictions that the run stored."""
        return [row.prediction for row in self.rows]

    @property
    def longest_target(self) -> int:
        """Limit of the targets in tokens."""
        return min(TARGET_TOKENS, self.run.max_target_length)

    @property
    def must_equal_stored(self) -> bool:
        """Return whether the stored predictions were computed as the reference is.

        They were not in another precision, by another decoder or on another device, whose rounding
        can change a prediction.
        """
        decoding = self.run.report.decoding or ""
        fingerprint = self.run.report.fingerprint
        on_cpu = fingerprint is not None and fingerprint.device == "cpu"
        return on_cpu and decoding.startswith("beam_search|") and "|float32|" in decoding


def compute_reference(
    run: TrainedRun, model: PreTrainedModel, *, greedy: bool = False
) -> Reference:
    """Compute the reference of a check.

    Args:
        run: the run.
        model: its trained model, with its adapters; it is not changed.
        greedy: also predict by greedy search.

    Raises:
        HarnessError: the run has no predictions.
    """
    rows = [row for row in read_predictions(run.folder / PREDICTIONS) if row.source is not None]
    rows = rows[:EXAMPLES]
    tokenizer = run.tokenizer
    sources, _ = encode(
        [run.prefix + (row.source or "") for row in rows], tokenizer, run.max_source_length
    )
    longest = min(TARGET_TOKENS, run.max_target_length)
    targets, _ = encode([_first(row) for row in rows], tokenizer, longest)
    logits = []
    with torch.inference_mode():
        for source, target in zip(sources, targets, strict=True):
            output = model(input_ids=torch.tensor([source]), labels=torch.tensor([target]))
            logits.append(output.logits[0].float())
        predictions = _predict(run, model, sources, run.spec.test)
        one_beam = run.spec.test.model_copy(update={"beams": 1})
        greedily = _predict(run, model, sources, one_beam) if greedy else ()
    return Reference(run, rows, sources, targets, logits, predictions, greedily)


def _predict(
    run: TrainedRun,
    model: PreTrainedModel,
    sources: Sequence[Sequence[int]],
    settings: DecodingSettings,
) -> list[str]:
    predictions: list[str] = []
    for start in range(0, len(sources), settings.batch_size):
        batch = sources[start : start + settings.batch_size]
        ids, lengths = pad_sources(batch, model.config.pad_token_id)
        best = library_search(model, ids, lengths, settings)
        texts = run.tokenizer.batch_decode(best, skip_special_tokens=True)
        predictions += [text.strip() for text in texts]
    return predictions


def _first(row: PredictionRow) -> str:
    return row.reference if isinstance(row.reference, str) else row.reference[0]
