"""The examples of compressors do what their page says."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import harness
from harness import Backbone
from harness.api.plugins import Plugins
from harness.data.calibration import CalibrationData
from harness.data.examples import Example
from harness.measurement.probe import measured_process
from harness.model.composition import compose, kept_layers, layers
from harness.records.run_folder import SPEC, read_report
from harness.running.inputs import read_inputs
from harness.running.setup import set_up
from harness.spec.run_spec import RunSpec, read_toml, resolve
from harness.training.build import load_trainer
from harness.training.resolved_run import resolve_run
from harness.training.run_context import run_context
from harness.training.trained_run import open_run


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


@pytest.mark.slow
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


RUN = """
import os, signal, sys
from harness.api.hookspecs import hookimpl
from harness.api.plugins import installed
from harness.cli.main import app

class Death:
    @hookimpl
    def phase_started(self, event):
        self.phase = event.phase

    @hookimpl
    def step_done(self, event):
        if (self.phase, event.step) == ("train", int(sys.argv[1])):
            os.kill(os.getpid(), signal.SIGKILL)

installed().manager.register(Death())
app(sys.argv[2:])
"""


@pytest.mark.slow
@pytest.mark.usefixtures("plugins")
def test_gradual_pruning_goes_on_after_a_kill(
    tiny_settings: dict[str, object], tmp_path: Path
) -> None:
    settings = {**tiny_settings, "train.max_steps": 9, "train.precision": "float32"}
    chosen = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    recipe = "sparsity:final=0.6,every=2,learning_rate=0.001"

    def start(folder: str, death: int) -> int:
        command = ["run", "--compressor", recipe, *chosen, "--snapshot-every", "0"]
        arguments = [str(death), *command, "--out", str(tmp_path / folder)]
        return subprocess.run([sys.executable, "-c", RUN, *arguments], check=False).returncode

    assert start("whole", 0) == 0
    assert start("killed", 5) == -signal.SIGKILL
    assert start("killed", 0) == 0
    (whole,), (killed,) = ((tmp_path / name).iterdir() for name in ("whole", "killed"))
    for name in ("weights.safetensors", "history.jsonl", "predictions.jsonl"):
        assert (whole / name).read_bytes() == (killed / name).read_bytes(), name
    assert read_report(killed).resumed
    training = read_report(killed).training
    assert training
    # Nine steps of a warm-up of one, then linear: the first step after it has the peak.
    assert training.learning_rates == {"sparsity.matrices": pytest.approx(0.001)}
    assert sparsity_of(killed / "weights.safetensors") == pytest.approx(0.6, abs=0.03)  # Ties.


def sparsity_of(file: Path) -> float:
    """Return the share of zeros in the matrices of attention and feed-forward layers."""
    tensors = [
        t for name, t in load_file(file).items() if "DenseReluDense" in name or "Attention" in name
    ]
    matrices = [t for t in tensors if t.dim() == 2 and t.shape[0] > 32]
    return sum(int((t == 0).sum()) for t in matrices) / sum(t.numel() for t in matrices)


def test_gradual_pruning_follows_its_schedule(plugins: Plugins, backbone: Backbone) -> None:
    recipe = plugins.recipe("sparsity:final=0.5,every=2")
    trainer = load_trainer(resolve_run(RunSpec(weights="random", device="cpu"), backbone, recipe))
    trainer.events.begin(trainer.model, 9)
    (compressor,) = recipe.compressors
    shares = []
    for _ in range(9):
        batch = trainer.engine.collate([Example([5, 6, 7, 1], [8, 1])])
        trainer.step([batch], batch.target_tokens)
        weights = [weight for _, weight in compressor.matrices(trainer.model)]  # type: ignore[attr-defined]
        zeros = sum(int((weight == 0).sum()) for weight in weights)
        shares.append(zeros / sum(weight.numel() for weight in weights))
    # After 2, 4 and 6 of 6 steps: 0.5 x (1 - (1 - n / 6)^3).
    expected = [0, 0.352, 0.352, 0.481, 0.481, 0.5, 0.5, 0.5, 0.5]
    assert shares == pytest.approx(expected, abs=0.01)


@pytest.mark.slow
@pytest.mark.usefixtures("plugins")
def test_distillation_is_measured_with_its_teacher(
    tiny_settings: dict[str, object], tmp_path: Path
) -> None:
    recipe = "distillation+lora_ff+lprun"
    run = harness.run(compressor=recipe, settings=tiny_settings, results=tmp_path, progress=False)
    assert run.report.status == "ok", run.report.failure
    assert run.report.memory
    assert run.report.memory.parts
    assert run.report.parameters
    # In float32; its embeddings are the model's own size.
    assert run.report.memory.parts.teacher == 4 * run.report.parameters.original
    [plan] = harness.plan("nano-t5", recipe, settings={**tiny_settings, "train.batch_size": 1})
    assert plan.memory
    assert plan.memory.parts.teacher == run.report.memory.parts.teacher


@pytest.mark.slow
@pytest.mark.usefixtures("plugins")
def test_a_run_that_drops_layers_in_training_is_killed_resumed_and_exported(
    plugins: Plugins, tiny_settings: dict[str, object], tmp_path: Path
) -> None:
    settings = {**tiny_settings, "train.max_steps": 7, "train.precision": "float32"}
    chosen = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]

    def start(folder: str, death: int) -> int:
        command = ["run", "--compressor", "thinning:drop=2,every=2,start=2", *chosen]
        arguments = [str(death), *command, "--snapshot-every", "0", "--out", str(tmp_path / folder)]
        return subprocess.run([sys.executable, "-c", RUN, *arguments], check=False).returncode

    assert start("whole", 0) == 0
    assert start("killed", 5) == -signal.SIGKILL
    assert start("killed", 0) == 0
    (whole,), (killed,) = ((tmp_path / name).iterdir() for name in ("whole", "killed"))
    for name in ("weights.safetensors", "history.jsonl", "predictions.jsonl"):
        assert (whole / name).read_bytes() == (killed / name).read_bytes(), name
    report = read_report(killed)
    assert report.parameters
    assert report.layers_kept
    assert report.training
    assert [change.step for change in report.training.changes] == [2, 4]
    run = open_run(killed, plugins)
    model = run.load()
    for stack, kept in (
        ("encoder", report.layers_kept.encoder),
        ("decoder", report.layers_kept.decoder),
    ):
        assert len(run.backbone.layers(model, stack)) == len(kept)  # type: ignore[arg-type]
    assert sum(p.numel() for p in model.parameters()) == report.parameters.total
    harness.export_run(killed, tmp_path / "exported")
