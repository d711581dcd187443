"""Runs that compute an encoder's outputs or a teacher's predictions, or read those of others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import harness
from harness.evaluation import teacher_targets
from harness.training import stored_encoder

pytestmark = pytest.mark.slow

ENCODER = "cache_encoder+lora:targets=decoder.ffn+lprun"
TARGETS = "distill:targets=teacher,weight=0,beams=2+lora_ff+lprun"


@pytest.mark.parametrize(
    ("recipe", "module", "function", "note"),
    [
        (ENCODER, stored_encoder, "_computed", "without dropout"),
        (TARGETS, teacher_targets, "_predicted", "predicted by the teacher"),
    ],
)
def test_runs_that_compute_or_read_are_equal(
    recipe: str,
    module: Any,
    function: str,
    note: str,
    notes: Path,
    tiny_settings: dict[str, object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))

    def run(name: str) -> harness.StoredRun:
        made = harness.run(
            "nano-t5",
            recipe,
            str(notes),
            settings={**tiny_settings, "probe.training": False},
            results=tmp_path / name,
            progress=False,
        )
        assert made.report.status == "ok", made.report.failure
        return made

    first = run("first")
    monkeypatch.setattr(module, function, None)
    second = run("second")
    for name in ("weights.safetensors", "history.jsonl", "predictions.jsonl"):
        assert (first.folder / name).read_bytes() == (second.folder / name).read_bytes(), name
    for report in (first.report, second.report):
        seconds = report.encoder_seconds, report.teacher_seconds
        assert seconds == (first.report.encoder_seconds, first.report.teacher_seconds)
        assert sum(seconds) > 0
        assert report.training
        assert any(note in text for text in report.training.notes)
