"""Predictions for the test split, and their scores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.evaluation.ctranslate import translate, translate_signature
from harness.evaluation.decoding import signature
from harness.evaluation.partial_predictions import PartialPredictions
from harness.evaluation.predictions import read_predictions
from harness.evaluation.scoring import score
from harness.records.atomic import write_lines
from harness.records.reasons import explain_nulls
from harness.records.report import Report
from harness.running.setup import Setup
from harness.running.shared_predictions import predict_test_split
from harness.training.trainer import Trainer


def predict_and_score(
    setup: Setup,
    trainer: Trainer,
    *,
    partial_predictions: PartialPredictions,
    path: Path,
    report: Report,
    on_progress: Callable[[int], None],
) -> None:
    """Predict the test split, write the predictions, score what was written, and report it.

    Args:
        setup: the data and the settings.
        trainer: holds the trained model, without the engine's patches.
        partial_predictions: the predictions of earlier starts of the run; gets the new ones.
        path: the file of predictions.
        report: gets the scores.
        on_progress: is called with the number of examples predicted so far.
    """
    inputs = setup.inputs
    predictions, decoding = _predict(setup, trainer, partial_predictions, on_progress)
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
    setup: Setup,
    trainer: Trainer,
    partial_predictions: PartialPredictions,
    on_progress: Callable[[int], None],
) -> tuple[list[str], str]:
    """Return the predictions of the test split, and the signature of the search."""
    earlier, settings = partial_predictions.predictions, setup.run.spec.test

    def on_batch(batch: dict[int, str]) -> None:
        partial_predictions.add(batch)
        on_progress(len(partial_predictions.predictions))

    if earlier:
        on_progress(len(earlier))
    if settings.decoder == "harness":
        predictions = predict_test_split(setup, trainer, earlier, on_batch)
        return predictions, signature(settings, trainer.dtype)
    predictions = translate(
        trainer.model,
        setup.inputs.tokenizer,
        [example.source for example in setup.inputs.test.examples],
        settings,
        dtype=trainer.dtype,
        earlier=earlier,
        on_batch=on_batch,
    )
    return predictions, translate_signature(trainer.model, settings, trainer.dtype)


def _texts(row: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a line of predictions that describe its example."""
    references = row.get("references") or [row["target"]]
    texts = {
        "id": row["id"],
        "source": row["source"],
        "reference": references if len(references) > 1 else references[0],
    }
    return {**texts, "cluster": row["cluster"]} if "cluster" in row else texts
