"""The examples of compressors do what their page says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import harness
from harness import Backbone
from harness.api.plugins import Plugins
from harness.data.calibration import CalibrationData
from harness.data.examples import Example
from harness.export.trained_run import open_run
from harness.measurement.probe import measured_process
from harness.model.composition import compose, kept_layers, layers
from harness.records.run_folder import SPEC
from harness.running.inputs import read_inputs
from harness.running.setup import set_up
from harness.spec.run_spec import RunSpec, read_toml, resolve
from harness.training.resolved_run import resolve_run
from harness.training.run_context import run_context


def test_influence_drops_the_layer_that_changes_nothing(
    plugins: Plugins, backbone: Backbone, make_model: Callable[[], Any]
) -> None:
    if backbone.name == "tiny-bart":
        pytest.skip("a layer of BART ends in a norm, and always changes its input")
    model = make_model()
    with torch.no_grad():
        for stack, number in (("encoder", 5), ("decoder", 3)):
            for module in backbone.layers(model, stack)[number - 1].modules():  # type: ignore[arg-type]
                if isinstance(module, torch.nn.Linear) and not module.weight.shape[0] % 16:
                    module.weight.zero_()
    before = layers(model, backbone)
    recipe = plugins.recipe("influence:drop=1,examples=4")
    run = resolve_run(RunSpec(weights="random", device="cpu"), backbone, recipe)
    examples = (Example([5, 6, 7, 1], [8, 1]), Example([9, 1], [4, 3, 1]))
    context = run_context(replace(run, calibration=CalibrationData(examples)))
    model = compose(model, backbone, recipe, context)
    assert kept_layers(before, layers(model, backbone)) == {
        "encoder": [1, 2, 3, 4, 6, 7, 8],
        "decoder": [1, 2, 4, 5, 6, 7],
    }


def test_a_run_and_its_probe_drop_the_same_layers(
    plugins: Plugins, tiny_settings: dict[str, object], tmp_path: Path
) -> None:
    run = harness.run(
        compressor="influence:drop=2", settings=tiny_settings, results=tmp_path, progress=False
    )
    assert run.report.status == "ok", run.report.failure
    kept = run.report.layers_kept
    assert kept
    setup = set_up(read_inputs(resolve(read_toml(run.folder / SPEC), "paper"), plugins))
    assert setup.frozen.calibration == setup.run.calibration
    assert not setup.frozen.calibration.synthetic
    with measured_process(setup.run.spec, setup.frozen) as process:
        assert process.layers_kept == kept
    # The same model is built again when the run is exported.
    model = open_run(run.folder, plugins).load()
    assert len(setup.run.backbone.layers(model, "encoder")) == len(kept.encoder)
