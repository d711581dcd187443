"""Predictions for the test split, and their scores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from harness.evaluation.ctranslate import translate, translate_signature
from harness.evaluation.decoding import generate, signature
from harness.evaluation.partial_predictions import PartialPredictions
from harness.evaluation.predictions import read_predictions
from harness.evaluation.scoring import score
from harness.records.atomic import write_lines
from harness.records.reasons import explain_nulls
from harness.records.report import Report
from harness.running.inputs import Inputs
from harness.spec.setting_groups import ScoringSettings


def predict_and_score(
    inputs: Inputs,
    model: PreTrainedModel,
    dtype: torch.dtype,
    settings: ScoringSettings,
    *,
    partial_predictions: PartialPredictions,
    path: Path,
    report: Report,
    on_progress: Callable[[int], None],
) -> None:
    """Predict the test split, write the predictions, score what was written, and report it.

    Args:
        inputs: the run's inputs.
        model: the trained model.
        dtype: the data type of matrix products.
        settings: the settings of the search.
        partial_predictions: the predictions of earlier starts of the run; gets the new ones.
        path: the file of predictions.
        report: gets the scores.
        on_progress: is called with the number of examples predicted so far.
    """
    predictions, decoding = _predict(
        inputs, model, dtype, settings, partial_predictions, on_progress
    )
    lines = [
        {**_texts(row), "prediction": prediction}
        for row, prediction in zip(inputs.test_rows, predictions, strict=True)
    ]
    # Written before scoring, which may fail and can be repeated from the file alone.
    write_lines(path, lines)
    scores = score(inputs.metrics, read_predictions(path))
    report.decoding = decoding
    report.quality = scores.values()
    report.not_computed = scores.not_computed
    intervals = (f"quality.{name}.ci" for name in report.quality)
    explain_nulls(report, "there is only one test example", *intervals)
    write_lines(path, ({**line, "scores": scores.of_example(i)} for i, line in enumerate(lines)))


def _predict(
    inputs: Inputs,
    model: PreTrainedModel,
    dtype: torch.dtype,
    settings: ScoringSettings,
    partial_predictions: PartialPredictions,
    on_progress: Callable[[int], None],
) -> tuple[list[str], str]:
    """Return the predictions of the test split, and the signature of the search."""
    earlier = partial_predictions.known

    def on_batch(batch: dict[int, str]) -> None:
        partial_predictions.add(batch)
        on_progress(len(partial_predictions.known))

    if earlier:
        on_progress(len(earlier))
    tokenizer = inputs.tokenizer
    sources = [example.source for example in inputs.test.examples]
    if settings.decoder == "ctranslate2":
        decoding = translate_signature(model, settings, dtype)
        return translate(
            model, tokenizer, sources, settings, dtype=dtype, known=earlier, on_batch=on_batch
        ), decoding
    predictions = generate(
        model,
        tokenizer,
        sources,
        settings,
        shared_beams=inputs.run.backbone.shared_beams,
        dtype=dtype,
        known=earlier,
        on_batch=on_batch,
    )
    return predictions, signature(settings, dtype)


def _texts(row: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a line of predictions that describe its example."""
    references = row.get("references") or [row["target"]]
    texts = {
        "id": row["id"],
        "source": row["source"],
        "reference": references if len(references) > 1 else references[0],
    }
    return {**texts, "cluster": row["cluster"]} if "cluster" in row else texts
