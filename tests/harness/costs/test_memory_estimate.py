"""Estimated memory against measurements of real training steps."""

import gc
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from harness import Backbone, Compressor, Context, Options, Stage
from harness.api.plugins import installed
from harness.api.recipe import Recipe, parse
from harness.costs.batches import drawn_batches, lengths_of, profile_spec
from harness.costs.memory_estimate import estimate_memory, try_to_estimate
from harness.costs.shape_tensors import ShapesOnly, ShapeTensor
from harness.data.examples import Example
from harness.measurement.breakdown import memory_parts
from harness.measurement.memory import bytes_alive, peak_of_allocations
from harness.model.composition import compose
from harness.records.profile import MemoryEstimate
from harness.spec.run_spec import RunSpec
from harness.training.build import load_trainer
from harness.training.resolved_run import resolve_run
from harness.training.schedule import Step

RECIPES = ["full", "lprun", "lora_qv", "lora_ff", "lora_qv+lprun", "lora_ff+lprun"]
FAST = {("nano-t5", "full"), ("nano-t5", "lora_qv"), ("nano-t5", "lora_ff+lprun")}


def backbone_of(name: str) -> Backbone:
    backbone: Backbone = installed().backbone(name)
    return backbone


def longest_step(name: str, batch_size: int = 2) -> tuple[Any, Step]:
    spec = profile_spec(name, "radiology_demo", {"device": "cpu", "train.batch_size": batch_size})
    task = installed().task(spec.task, spec.task_options)
    return spec, drawn_batches(spec, backbone_of(name), task, lengths_of(task, None, None)).longest


def estimate(spec: RunSpec, backbone: Backbone, recipe: Recipe, step: Step) -> MemoryEstimate:
    return estimate_memory(
        resolve_run(spec, backbone, recipe), compose(backbone.skeleton(), backbone, recipe), step
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        pytest.param(name, text, marks=() if (name, text) in FAST else pytest.mark.slow)
        for name in ("nano-t5", "t5-small")
        for text in RECIPES
    ],
)
def test_estimated_tensor_bytes_are_within_20_percent_of_the_measured(name: str, text: str) -> None:
    spec, longest = longest_step(name)
    recipe = parse(text, installed().compressors)
    estimated = estimate(spec, backbone_of(name), recipe, longest)
    gc.collect()  # Trainers of earlier tests, which would otherwise go while this one is measured.
    before = bytes_alive()
    trainer = load_trainer(resolve_run(spec, backbone_of(name), recipe))
    trainer.model.train()

    def step() -> None:
        batches = [trainer.engine.collate(batch) for batch in longest.micro_batches]
        trainer.step(batches, longest.target_tokens)

    step()
    measured = bytes_alive() - before + peak_of_allocations(step)
    trainer.engine.unpatch(trainer.model)
    assert estimated.tensor_bytes == pytest.approx(measured, rel=0.2)
    assert estimated.parts.total == estimated.tensor_bytes
    assert estimated.engine == trainer.engine.name
    weights = sum(p.nbytes for p in trainer.model.parameters())
    assert estimated.parts.weights <= 1.6 * weights


@pytest.mark.slow
def test_the_check_compares_whole_processes_and_fails_where_they_differ(tmp_path: Path) -> None:
    """The shortest form of `make check-prediction`; it also estimates resident memory."""
    script = Path(__file__).parents[3] / "benchmarks" / "prediction.py"
    command = [sys.executable, str(script), "--backbones", "nano-t5", "--batch", "2"]
    command += ["--recipes", "lora_ff+lprun", "--out", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, check=False, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    record = json.loads((tmp_path / "prediction.json").read_text())
    (row,) = record["rows"]
    assert row["peak_bytes"]["measured"] > row["tensor_bytes"]["measured"] > 0
    assert 0 < record["worst"] <= 0.2


@pytest.mark.parametrize("engine", ["packed", "padded"])
@pytest.mark.parametrize("text", ["full", "lora_ff:r=2+lprun"])
@pytest.mark.fast_on("gated-t5", "bart")
def test_parts_are_those_of_a_real_step(backbone: Backbone, text: str, engine: str) -> None:
    spec, _ = longest_step("nano-t5")
    spec = spec.model_copy(
        update={"train": spec.train.model_copy(update={"engine": engine, "precision": "float32"})}
    )
    examples = [[5, 6, 7, 8, 9, 1], [4, 5, 1], [7, 1]]
    step = Step((tuple(Example(ids, ids[1:]) for ids in examples),))
    recipe = parse(text, installed().compressors)
    if engine == "padded" and "bart" in backbone.name:
        # BART reads the values of its mask.
        model = compose(backbone.skeleton(), backbone, recipe)
        estimated, reason = try_to_estimate(resolve_run(spec, backbone, recipe), model, step)
        assert estimated is None
        assert reason
        assert "item() cannot be called on meta tensors" in reason
        return
    estimated = estimate(spec, backbone, recipe, step)
    trainer = load_trainer(resolve_run(spec, backbone, recipe))
    batches = [trainer.engine.collate(batch) for batch in step.micro_batches]
    trainer.step(batches, step.target_tokens)
    real = memory_parts(trainer, batches)
    trainer.engine.unpatch(trainer.model)
    assert estimated.parts.weights == real.weights
    assert estimated.parts.optimizer == real.optimizer
    assert estimated.parts.total == pytest.approx(real.total, rel=0.1)


@pytest.mark.parametrize("optimizer", ["adafactor", "adamw_8bit"])
@pytest.mark.usefixtures("eight_bits")
def test_the_state_of_every_optimizer_is_estimated(optimizer: str) -> None:
    spec, longest = longest_step("nano-t5")
    train = spec.train.model_copy(update={"optimizer": optimizer})
    spec = spec.model_copy(update={"train": train})
    # Of this rank, because bitsandbytes stores the state of small tensors in 32 bits.
    recipe = parse("lora_ff:r=64+lprun", installed().compressors)
    estimated = estimate(spec, backbone_of("nano-t5"), recipe, longest)
    trainer = load_trainer(resolve_run(spec, backbone_of("nano-t5"), recipe))
    batches = [trainer.engine.collate(batch) for batch in longest.micro_batches]
    trainer.step(batches, longest.target_tokens)
    real = memory_parts(trainer, batches)
    trainer.engine.unpatch(trainer.model)
    assert 0 < real.optimizer < 8 * trainer.parameters.trainable
    assert estimated.parts.optimizer == real.optimizer


class ReadsValues(Compressor[Options]):
    """Reads the values of weights, as magnitude pruning does."""

    stage = Stage.STRUCTURE
    Options = Options

    def apply(self, model: Any, backbone: Backbone, context: Context) -> Any:
        weight = model.get_input_embeddings().weight

        def look(*_: Any) -> None:
            assert weight.detach().abs().max().item() >= 0

        model.register_forward_pre_hook(look)
        return model


def test_a_recipe_that_reads_values_has_no_estimate_but_a_reason() -> None:
    spec, longest = longest_step("nano-t5")
    recipe = Recipe((ReadsValues("looking", Options()),))
    backbone = backbone_of("nano-t5")
    estimated, reason = try_to_estimate(
        resolve_run(spec, backbone, recipe), compose(backbone.skeleton(), backbone, recipe), longest
    )
    assert estimated is None
    assert reason
    assert "meta" in reason


PEAK = """
import re, sys
from harness.cli.main import main
try:
    main()
finally:
    # This peak counts from the start of the program; ru_maxrss includes the parent's at the fork.
    status = open("/proc/self/status").read()
    print(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1], file=sys.stderr)
"""


@pytest.mark.slow
def test_a_plan_of_the_largest_model_allocates_no_weights() -> None:
    command = [sys.executable, "-c", PEAK, "plan", "--backbone", "t5-11b", "--json"]
    result = subprocess.run(
        [*command, "--compressor", "lora_ff+lprun"], capture_output=True, check=True, text=True
    )
    # The weights alone would take thirteen times as much.
    assert int(result.stderr.split()[-1]) < 2**20  # KiB
    memory = json.loads(result.stdout)["memory"]
    # About 6.5 billion frozen weights remain, in bfloat16 or in float32.
    assert memory["parts"]["weights"] > 12 * 2**30
    assert memory["parts"]["optimizer"] < 2**30
    assert sum(memory["parts"].values()) == memory["tensor_bytes"]
    assert memory["peak_bytes"] == memory["tensor_bytes"] + (memory["process_bytes"] or 0)


def test_shapes_follow_autocast_views_and_gradients() -> None:
    with torch.device("meta"):
        model = nn.Linear(6, 5)
    mode = ShapesOnly(torch.device("cpu"))
    mode.adopt(model)
    with mode, torch.autocast("cpu", torch.bfloat16):
        result = model(torch.ones(3, 6))
        assert (result.dtype, result.shape, result.device.type) == (torch.bfloat16, (3, 5), "cpu")
        result.view(5, 3).float().sum().backward()
        grad = model.weight.grad
        assert isinstance(grad, ShapeTensor)
        assert (grad.dtype, grad.shape) == (torch.float32, (5, 6))
        with pytest.raises(RuntimeError):
            float(result.sum())


def test_tied_weights_stay_tied(backbone: Backbone) -> None:
    model = compose(backbone.skeleton(), backbone, Recipe(()))
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    ShapesOnly(torch.device("cpu")).adopt(model)
    parameters: dict[str, Tensor] = dict(model.named_parameters())
    assert all(isinstance(p, ShapeTensor) for p in parameters.values())
    still_tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert still_tied == tied
