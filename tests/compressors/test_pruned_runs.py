"""A run of pruned, healed layers is measured, trained and exported as one model."""

from __future__ import annotations

from pathlib import Path

import pytest

import harness
from harness.api.backbone import STACKS
from harness.api.plugins import installed
from harness.model.composition import count_parameters
from harness.training.trained_run import open_run

RECIPE = (
    "lora_ff+lprun:select=importance,heal=linear,examples=4"
    "+prune_ffn:keep=0.5,examples=4+prune_heads:keep=0.5,examples=4"
)


@pytest.mark.slow
def test_a_pruned_run_is_exported_as_it_was_trained(
    tiny_settings: dict[str, object], tmp_path: Path
) -> None:
    results, folder = tmp_path / "results", tmp_path / "merged"
    run = harness.run(compressor=RECIPE, settings=tiny_settings, results=results, progress=False)
    report = run.report
    assert report.status == "ok", report.failure
    assert report.parameters
    assert report.layers_kept
    [plan] = harness.plan("nano-t5", RECIPE)
    assert plan.parameters.total == report.parameters.total
    for stack in STACKS:
        kept = getattr(report.layers_kept, stack)
        assert len(kept) == len(getattr(plan.layers_kept, stack))
    model = open_run(run.folder, installed()).load()
    assert count_parameters(model).total == report.parameters.total
    assert (model.config.d_ff, model.config.num_heads) == (256, 2)
    # The export compares its logits and predictions with those of the run.
    harness.export_run(run.folder, folder)
    assert (folder / "model.safetensors").exists()
