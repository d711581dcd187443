"""Activation checkpointing is switched on only where the estimated peak does not fit."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from harness.api.plugins import installed
from harness.api.recipe import parse
from harness.backbones.t5 import T5
from harness.costs import fit
from harness.costs.fit import free_bytes, resolve_checkpointing, total_bytes
from harness.data.examples import Example
from harness.records.measurements import MemoryParts
from harness.records.profile import MemoryEstimate
from harness.spec.run_spec import RunSpec
from harness.training.resolved_run import resolve_run
from harness.training.schedule import Step

PREDICTED = MemoryEstimate(
    peak_bytes=1,
    tensor_bytes=1,
    process_bytes=None,
    parts=MemoryParts(weights=1, gradients=0, optimizer=0, activations=0, logits=0, other=0),
    engine="packed",
    dtype="bfloat16",
    batch_size=8,
    source_tokens=1,
    target_tokens=1,
)
LONGEST = Step(((Example([5] * 512, [7] * 128),) * 8,))


def resolved_setting(checkpointing: str, free: int, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(fit, "free_bytes", lambda device: free)
    train = {"checkpointing": checkpointing, "precision": "float32"}
    spec = RunSpec.model_validate(
        {"backbone": "t5-small", "recipe": "lora_ff", "device": "cpu", "train": train}
    )
    recipe = parse(spec.recipe, installed().compressors)
    return resolve_checkpointing(
        resolve_run(spec, T5("t5-small"), recipe), LONGEST
    ).spec.train.checkpointing


@pytest.mark.parametrize(
    ("requested", "free", "expected"),
    [
        # The weights alone take 0.24 GB, and eight long sequences several times as much.
        ("auto", 2**38, "off"),
        ("auto", 2**28, "on"),
        ("on", 2**38, "on"),
        ("off", 2**28, "off"),
    ],
)
def test_auto_depends_on_free_memory(
    requested: str, free: int, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert resolved_setting(requested, free, monkeypatch) == expected


@pytest.mark.parametrize(("margin", "expected"), [(2**30, "on"), (2 * 2**30, "off")])
def test_on_cuda_more_must_be_free_than_the_tensors_take(
    margin: int, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Contexts and libraries also take memory, and the allocator leaves fragments unused."""
    peak = 4 * 2**30
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (peak + margin, 2**40))
    memory = PREDICTED.model_copy(update={"peak_bytes": peak})
    monkeypatch.setattr(fit, "try_to_estimate", lambda *_: (memory, None))
    spec = RunSpec.model_validate(
        {
            "backbone": "t5-small",
            "recipe": "lora_ff",
            "device": "cuda",
            "train": {"checkpointing": "auto", "precision": "float32"},
        }
    )
    recipe = parse(spec.recipe, installed().compressors)
    resolved = resolve_checkpointing(resolve_run(spec, T5("t5-small"), recipe), LONGEST)
    assert resolved.spec.train.checkpointing == expected


def test_on_cuda_a_sweep_plans_with_less_than_the_total_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    properties = SimpleNamespace(total_memory=16 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    total = total_bytes(torch.device("cuda"))
    assert total
    assert 14 * 2**30 <= total <= 15 * 2**30


def test_free_memory_is_a_number_of_bytes() -> None:
    free = free_bytes(torch.device("cpu"))
    assert free is None or 2**20 < free < 2**50
