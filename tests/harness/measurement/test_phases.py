"""Work between training steps does not count as training speed: a run slowed on purpose."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import T5Config

from harness import clock
from harness.api.plugins import GROUP, discover
from harness.backbones.nano import NanoT5
from harness.running.run import Run
from harness.spec.run_spec import RunSpec

SLEPT = 0.5
"""Seconds of a training step, on a manual clock: nothing else takes time."""
SCORING, WRITING = 2.0, 1.0
"""Seconds to score the eval split, and to write each file of weights."""


class SlowDisk:
    """Delays each file that is renamed to its final name, by Python's audit hook.

    A hook cannot be removed: ``seconds`` switches the delay on and off.
    """

    def __init__(self, suffix: str) -> None:
        self.suffix = suffix
        self.seconds = 0.0
        self.files: list[str] = []
        sys.addaudithook(self._audit)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.seconds and event == "os.rename" and str(arguments[1]).endswith(self.suffix):
            self.files.append(Path(arguments[1]).name)
            clock.sleep(self.seconds)


@pytest.fixture
def slow_disk() -> Iterator[SlowDisk]:
    disk = SlowDisk(".safetensors")
    disk.seconds = WRITING
    yield disk
    disk.seconds = 0.0


@pytest.fixture
def backbone(tmp_path: Path) -> Path:
    tokenizer = NanoT5("nano-t5").tokenizer()
    folder = tmp_path / "thin"
    T5Config(
        vocab_size=len(tokenizer),
        d_model=8,
        d_kv=4,
        d_ff=8,
        num_heads=2,
        num_layers=1,
        decoder_start_token_id=0,
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.usefixtures("known_costs", "manual_clock")
def test_slow_evaluations_and_a_slow_disk_do_not_change_the_speed(
    backbone: Path, slow_disk: SlowDisk, tmp_path: Path
) -> None:
    spec = RunSpec.model_validate(
        {
            "backbone": str(backbone),
            "recipe": f"costly:seconds={SLEPT}",
            "task": "slow-to-score",
            "task_options": {"seconds": SCORING},
            "weights": "random",
            "device": "cpu",
            "train": {
                "batch_size": 2,
                "max_steps": 2,
                "eval_every_epochs": 0.5,
                "precision": "float32",
                "engine": "padded",
            },
            "greedy": {"beams": 1, "max_new_tokens": 2},
            "test": {"beams": 1, "max_new_tokens": 2},
            "probe": {
                "baseline": "off",
                "warmup_steps": 1,
                "steps": 1,
                "rounds": 2,
                "inference": False,
            },
        }
    )
    plugins = discover(importlib.metadata.entry_points(group=GROUP))
    report, _ = Run(spec, plugins, tmp_path / "results").execute()
    assert report.status == "ok", report.failure
    assert report.training
    # It was slow: two evaluations, each with a saved training state, and the weights of at least
    # the first.
    assert slow_disk.files.count("weights.safetensors") >= 1
    assert len(slow_disk.files) >= 3
    assert report.training.seconds == 2 * SLEPT + 2 * SCORING + len(slow_disk.files) * WRITING
    assert report.speed
    assert report.speed.samples_per_s == pytest.approx(2 / SLEPT)
    assert report.speed.parts
    assert report.speed.parts.forward == pytest.approx(SLEPT)
