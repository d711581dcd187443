"""Recomputation is switched on where the predicted peak does not fit, and only there."""

from __future__ import annotations

import pytest
import torch

from harness.backbones.t5 import T5
from harness.measurement import fit
from harness.measurement.fit import free_bytes, settle_checkpointing
from harness.plugins import installed
from harness.recipe import parse
from harness.spec import RunSpec
from harness.training.examples import Example
from harness.training.schedule import Step

LONGEST = Step(((Example([5] * 512, [7] * 128),) * 8,))


def settled(checkpointing: str, free: int, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(fit, "free_bytes", lambda device: free)
    train = {"checkpointing": checkpointing, "precision": "float32"}
    spec = RunSpec.model_validate(
        {"backbone": "t5-small", "recipe": "lora_ff", "device": "cpu", "train": train}
    )
    recipe = parse(spec.recipe, installed().compressors)
    return settle_checkpointing(spec, T5("t5-small"), recipe, LONGEST).train.checkpointing


@pytest.mark.parametrize(
    ("asked", "free", "expected"),
    [
        # Its weights alone are 0.24 GB, eight long sequences several times that.
        ("auto", 2**38, "off"),
        ("auto", 2**28, "on"),
        ("on", 2**38, "on"),
        ("off", 2**28, "off"),
    ],
)
def test_auto_depends_on_what_fits(
    asked: str, free: int, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert settled(asked, free, monkeypatch) == expected


def test_free_memory_is_a_number_of_bytes() -> None:
    free = free_bytes(torch.device("cpu"))
    assert free is None or 2**20 < free < 2**50
