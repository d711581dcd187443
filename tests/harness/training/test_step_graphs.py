"""Steps that are recorded and replayed, against steps that are taken one by one.

A recording on the CPU runs the recorded function again: as a CUDA graph it only sees what is
written into the tensors that it was recorded with. Attention is that of an accelerator, which
reads the offsets of sequences from a tensor; that of the CPU loops over their lengths.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from compressors.lprun import LayerPruning
from harness import STACKS, Backbone, HarnessError
from harness.api.compressor import Compressor
from harness.api.plugins import installed
from harness.api.recipe import parse
from harness.data.examples import Example, Examples, Tokens
from harness.records.report import StructureChange
from harness.spec.run_spec import RunSpec
from harness.training.build import load_trainer
from harness.training.engines import attention
from harness.training.engines.fused_attention import fused_attention
from harness.training.engines.packed import PackedEngine
from harness.training.graph_obstacle import graph_obstacle
from harness.training.learning_rate import learning_rate_schedule
from harness.training.recording import plan_shapes, record_steps
from harness.training.resolved_run import ResolvedRun, resolve_run
from harness.training.restructure import restructure
from harness.training.schedule import Schedule, prefetch, step_sizes
from harness.training.stored_encoder import with_stored_encoder
from harness.training.trainer import Trainer

STORED = "cache_encoder+freeze:encoder_top=0"
RECIPES = ["full", "lora_ff+lprun", STORED]
STEPS = 12


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))


@pytest.fixture(autouse=True)
def _attention_of_an_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention._PerSequence, "apply", fused_attention)


class Rerun:
    """Records a function by keeping it."""

    def __init__(self, function: Callable[[], None]) -> None:
        self.replay = function


def examples() -> list[Example]:
    draw = random.Random(0)

    def text(longest: int) -> list[int]:
        return [*draw.choices(range(3, 48), k=draw.randint(1, longest)), 1]

    return [Example(text(30), text(12)) for _ in range(16)]


def run_of(backbone: Backbone, recipe: str, **train: object) -> ResolvedRun:
    settings = {"precision": "float32", "warmup_steps": 4, "learning_rate": 1e-3, **train}
    spec = RunSpec.model_validate(
        {"recipe": recipe, "weights": "random", "device": "cpu", "train": settings}
    )
    run = resolve_run(spec, backbone, parse(recipe, installed().compressors))
    sources, targets = ([getattr(e, side) for e in examples()] for side in ("source", "target"))
    return with_stored_encoder(run, Examples(Tokens.of(sources), Tokens.of(targets)))


def new_trainer(backbone: Backbone, recipe: str, **train: object) -> Trainer:
    trainer = load_trainer(run_of(backbone, recipe, **train))
    for module in trainer.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name in ("dropout", "activation_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    trainer.model.train()
    return trainer


def train(
    trainer: Trainer,
    interrupt: Callable[[int], None] = lambda step: None,
    accumulation: int = 1,
) -> list[float]:
    schedule = Schedule(examples(), 4 // accumulation, accumulation, seed=0)
    settings = run_of(installed().backbone("nano-t5"), "full").spec.train
    rates = learning_rate_schedule(trainer.optimizer, settings, STEPS)
    steps = list(schedule.steps(0, STEPS))
    plan_shapes(trainer, step_sizes(steps), 40)
    losses = []
    for number, (step, batches) in enumerate(prefetch(steps, trainer.engine.collate)):
        interrupt(number)
        losses.append(float(trainer.step(batches, step.target_tokens, check=number == 0)))
        rates.step()
    return losses


def weights_of(trainer: Trainer) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in trainer.trained.items()}


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name, weight in expected.items():
        # Keys that are shifted alike change no probability: this gradient is rounding, and Adam
        # makes whole steps of it.
        if not name.endswith("k_proj.bias"):
            torch.testing.assert_close(found[name], weight, rtol=1e-3, atol=2e-5, msg=name)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.fast_on("t5", "bart")
def test_replayed_steps_train_as_steps_that_are_taken_one_by_one(
    backbone: Backbone, recipe: str
) -> None:
    plain, recorded = (new_trainer(backbone, recipe) for _ in range(2))
    record_steps(recorded, Rerun)
    expected = train(plain)
    assert train(recorded) == pytest.approx(expected, rel=1e-4)
    assert recorded.graphs
    assert recorded.graphs.obstacle is None
    assert recorded.graphs.replays >= STEPS // 2
    assert_close(weights_of(recorded), weights_of(plain))
    assert isinstance(recorded.optimizer.param_groups[0]["lr"], float)


@pytest.mark.parametrize("recipe", [pytest.param("full", marks=pytest.mark.slow), "lora_ff+lprun"])
@pytest.mark.fast_on("gated-t5")
def test_replayed_passes_of_accumulated_gradients_train_as_passes_that_are_taken_one_by_one(
    backbone: Backbone, recipe: str
) -> None:
    plain, recorded = (new_trainer(backbone, recipe) for _ in range(2))
    record_steps(recorded, Rerun)
    expected = train(plain, accumulation=2)
    # Also a step that is taken in another way leaves the recordings right.
    found = train(recorded, lambda step: recorded.model.train(step != STEPS - 2), accumulation=2)
    assert found == pytest.approx(expected, rel=1e-4)
    assert recorded.graphs
    assert recorded.graphs.obstacle is None
    assert recorded.graphs.replays >= STEPS // 3
    assert_close(weights_of(recorded), weights_of(plain))
    assert all(p.grad is None for p in recorded.trained.values())


@pytest.mark.parametrize("backbone", ["t5"], indirect=True)
def test_a_pass_that_cannot_be_recorded_changes_nothing(backbone: Backbone) -> None:
    recorded_before = 0

    def fails_second(function: Callable[[], None]) -> Any:
        nonlocal recorded_before
        recorded_before += 1
        if recorded_before > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return Rerun(function)

    plain, failing = (new_trainer(backbone, "lora_ff") for _ in range(2))
    record_steps(failing, fails_second)
    expected = train(plain, accumulation=2)
    assert train(failing, accumulation=2) == pytest.approx(expected, rel=1e-4)
    assert failing.graphs
    assert failing.graphs.obstacle == "OutOfMemoryError: CUDA out of memory"
    assert failing.graphs.replays == 0
    assert_close(weights_of(failing), weights_of(plain))


@pytest.mark.fast_on("t5")
def test_recordings_of_an_old_structure_are_dropped(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drop_second(self: Any, model: Any, backbone: Backbone, change: Any) -> None:
        for stack in STACKS:
            depth = len(backbone.layers(model, stack))
            backbone.keep_layers(model, stack, [1, *range(3, depth + 1)])

    monkeypatch.setattr(LayerPruning, "make_change", drop_second)
    change = StructureChange(step=6, compressor="lprun", change={})
    plain, recorded = (new_trainer(backbone, "lora_ff+lprun") for _ in range(2))
    record_steps(recorded, Rerun)
    before = recorded.graphs

    def train_and_change(trainer: Trainer) -> list[float]:
        return train(trainer, lambda step: restructure(trainer, [change]) if step == 6 else None)

    assert train_and_change(recorded) == pytest.approx(train_and_change(plain), rel=1e-4)
    assert recorded.graphs
    assert recorded.graphs is not before
    assert recorded.graphs.replays
    assert_close(weights_of(recorded), weights_of(plain))


@pytest.mark.fast_on("bart")
def test_a_step_that_cannot_be_recorded_is_taken_and_the_reason_is_kept(
    backbone: Backbone,
) -> None:
    def fails(function: Callable[[], None]) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    plain, failing = (new_trainer(backbone, "lora_ff") for _ in range(2))
    record_steps(failing, fails)
    assert train(failing) == pytest.approx(train(plain), rel=1e-4)
    assert failing.graphs
    assert failing.graphs.obstacle == (
        "RuntimeError: operation not permitted when stream is capturing"
    )
    assert failing.graphs.replays == 0
    assert not failing.uses_graphs
    assert_close(weights_of(failing), weights_of(plain))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_stored_weights_stay_where_they_are_while_a_model_is_not_patched(
    backbone: Backbone, dtype: str
) -> None:
    trainer = new_trainer(backbone, "lora_ff+lprun", precision=dtype)
    record_steps(trainer, Rerun)

    def addresses() -> dict[str, int]:
        return {name: p.data_ptr() for name, p in trainer.model.named_parameters()}

    before, values = addresses(), {n: p.clone() for n, p in trainer.model.named_parameters()}
    assert isinstance(trainer.engine, PackedEngine)
    head = None if trainer.engine._head_weight is None else trainer.engine._head_weight.data_ptr()
    with trainer.unpatched() as model:
        assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert addresses() == before
    assert dtype == "float32" or torch.bfloat16 in {p.dtype for p in values.values()}
    for name, parameter in trainer.model.named_parameters():
        assert torch.equal(parameter, values[name])
    assert trainer.engine._head_weight is None or trainer.engine._head_weight.data_ptr() == head


@pytest.mark.fast_on("gated-t5")
def test_predictions_between_replays_change_nothing(backbone: Backbone) -> None:
    plain, recorded = (new_trainer(backbone, "lora_ff") for _ in range(2))
    record_steps(recorded, Rerun)

    def look(step: int) -> None:
        if step % 5 == 4:
            with recorded.unpatched() as model:
                model.eval()
                model(input_ids=torch.ones(1, 3).long(), decoder_input_ids=torch.ones(1, 2).long())
            recorded.model.train()

    assert train(recorded, look) == pytest.approx(train(plain), rel=1e-4)


@pytest.mark.fast_on("t5")
def test_steps_outside_training_are_not_replayed(backbone: Backbone) -> None:
    trainer = new_trainer(backbone, "lora_ff")
    record_steps(trainer, Rerun)
    trainer.model.eval()
    train(trainer)
    assert trainer.graphs
    assert trainer.graphs.replays == 0


def test_on_a_cpu_no_step_is_recorded(backbone: Backbone) -> None:
    trainer = new_trainer(backbone, "lora_ff")
    assert trainer.graphs is None
    assert trainer.graph_obstacle == "the device is not a GPU"
    assert trainer.engine_name == "packed"


def obstacle_on_cuda(backbone: Backbone, recipe: str, **train: object) -> str | None:
    """Return the obstacle that a GPU would have."""
    on_cpu = run_of(backbone, recipe, **{**train, "engine": "auto"})
    trainer = load_trainer(on_cpu)
    run = ResolvedRun(
        run_of(backbone, recipe, **train).spec,
        backbone,
        on_cpu.recipe,
        torch.device("cuda"),
        torch.bfloat16,
    )
    return graph_obstacle(run, trainer.model, trainer.engine, trainer.objective)


@pytest.mark.parametrize(
    ("settings", "obstacle"),
    [
        ({}, None),
        ({"engine": "packed"}, "train.engine=packed"),
        ({"engine": "padded"}, "train.engine=padded"),
        ({"accumulation": 2}, None),
        ({"optimizer": "adafactor"}, "adafactor"),
        ({"checkpointing": "on"}, "checkpointing"),
    ],
)
@pytest.mark.fast_on("bart")
def test_obstacles_are_named(
    backbone: Backbone, settings: dict[str, object], obstacle: str | None
) -> None:
    for recipe in RECIPES:
        found = obstacle_on_cuda(backbone, recipe, **settings)
        assert found is None if obstacle is None else obstacle in str(found)


def test_graphs_that_are_demanded_and_impossible_are_an_error(backbone: Backbone) -> None:
    with pytest.raises(HarnessError, match="adafactor") as raised:
        obstacle_on_cuda(backbone, "full", optimizer="adafactor", engine="graph")
    assert "train.engine=graph" in str(raised.value.hint)


def test_a_compressor_is_not_believed_to_be_safe_in_a_graph(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    lora = type(parse("lora_ff", installed().compressors).compressors[0])
    monkeypatch.setattr(lora, "graph_safe", Compressor.graph_safe)
    assert "lora_ff does not declare" in str(obstacle_on_cuda(backbone, "lora_ff"))


def test_a_compressor_that_acts_after_each_step_needs_its_gradients(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    lora = type(parse("lora_ff", installed().compressors).compressors[0])
    monkeypatch.setattr(lora, "on_step", lambda self, model, step: None)
    assert "acts after each step" in str(obstacle_on_cuda(backbone, "lora_ff"))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.fast_on("t5")
def test_a_filler_changes_neither_loss_nor_gradients(
    backbone: Backbone, recipe: str, smoothing: float
) -> None:
    results = []
    for fills in (False, True):
        trainer = new_trainer(backbone, recipe, label_smoothing=smoothing)
        (step,) = Schedule(examples()[:4], 4, 1, seed=0).steps(0, 1)
        if fills:
            record_steps(trainer, Rerun)
            plan_shapes(trainer, step_sizes([step]), 100)
        batch = trainer.engine.collate(step.micro_batches[0])
        assert isinstance(trainer.engine, PackedEngine)
        assert len(batch.tensors["source_offsets"]) == 5 + fills
        assert batch.source_tokens == step.source_tokens
        loss = trainer.backward([batch], step.target_tokens)
        gradients = {n: p.grad for n, p in trainer.trained.items() if p.grad is not None}
        results.append((loss, gradients))
    (loss, expected), (filled_loss, found) = results
    torch.testing.assert_close(filled_loss, loss, rtol=1e-5, atol=0)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-6, msg=name)
