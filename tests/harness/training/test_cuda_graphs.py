"""Recorded steps on CUDA, against steps that are launched kernel by kernel."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from harness import Backbone
from harness.api.plugins import installed
from harness.api.recipe import parse
from harness.data.examples import Example
from harness.spec.run_spec import RunSpec
from harness.spec.setting_groups import TrainSettings
from harness.training.build import load_trainer
from harness.training.engine_check import check_engine
from harness.training.engine_name import fallback_notes
from harness.training.recording import plan_shapes, record_ahead
from harness.training.resolved_run import resolve_run
from harness.training.schedule import Schedule, prefetch, step_sizes
from harness.training.state import Progress, load_state, save_state
from harness.training.trainer import Trainer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]
STEPS = 16


def examples() -> list[Example]:
    draw = random.Random(0)

    def text(longest: int) -> list[int]:
        return [*draw.choices(range(3, 48), k=draw.randint(1, longest)), 1]

    return [Example(text(30), text(12)) for _ in range(16)]


def new_trainer(
    backbone: Backbone, recipe: str, engine: str, precision: str = "float32", dropout: bool = False
) -> Trainer:
    train = {"precision": precision, "engine": engine, "batch_size": 4}
    spec = RunSpec.model_validate(
        {"recipe": recipe, "weights": "random", "device": "cuda", "train": train}
    )
    run = resolve_run(spec, backbone, parse(recipe, installed().compressors))
    trainer = load_trainer(run)
    for module in [] if dropout else list(trainer.model.modules()):
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name in ("dropout", "activation_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    trainer.model.train()
    return trainer


def train(trainer: Trainer, evaluates: bool = False, accumulation: int = 1) -> list[float]:
    schedule = Schedule(examples(), 4 // accumulation, accumulation, seed=0)
    steps = list(schedule.steps(0, STEPS))
    plan_shapes(trainer, step_sizes(steps), 40)
    losses = []
    for number, (step, batches) in enumerate(prefetch(steps, trainer.engine.collate)):
        for group in trainer.optimizer.param_groups:
            group["lr"] = 1e-3 * (1 + number)
        if evaluates and number == STEPS // 2:
            with trainer.unpatched() as model, torch.no_grad():
                ids = torch.ones(1, 3, dtype=torch.long, device="cuda")
                model(input_ids=ids, decoder_input_ids=ids)
        losses.append(trainer.step(batches, step.target_tokens, check=number == 0))
    return [float(loss) for loss in losses]


@pytest.mark.parametrize("recipe", ["full", "lora_ff+lprun"])
@pytest.mark.parametrize(("precision", "close"), [("float32", 1e-3), ("bfloat16", 3e-2)])
def test_replayed_steps_train_as_launched_ones(
    backbone: Backbone, recipe: str, precision: str, close: float
) -> None:
    launched = train(new_trainer(backbone, recipe, "packed", precision))
    trainer = new_trainer(backbone, recipe, "graph", precision)
    replayed = train(trainer, evaluates=True)
    assert trainer.graphs is not None
    assert trainer.graphs.obstacle is None
    assert trainer.graphs.replays >= STEPS // 2
    assert trainer.engine_name == "packed, CUDA graphs"
    assert replayed == pytest.approx(launched, rel=close)


@pytest.mark.parametrize("recipe", ["full", "lora_ff+lprun"])
def test_accumulated_gradients_are_replayed(backbone: Backbone, recipe: str) -> None:
    launched = train(new_trainer(backbone, recipe, "packed"), accumulation=2)
    trainer = new_trainer(backbone, recipe, "graph")
    replayed = train(trainer, evaluates=True, accumulation=2)
    assert trainer.graphs is not None
    assert trainer.graphs.obstacle is None
    assert trainer.graphs.replays >= STEPS // 3
    assert replayed == pytest.approx(launched, rel=1e-3)


@pytest.mark.parametrize("recipe", ["full", "lora_ff+lprun"])
@pytest.mark.parametrize(("precision", "close"), [("float32", 1e-3), ("bfloat16", 3e-2)])
def test_a_check_of_the_engine_passes_and_changes_nothing(
    backbone: Backbone, recipe: str, precision: str, close: float
) -> None:
    losses = []
    for asked in (False, True):
        trainer = new_trainer(backbone, recipe, "graph", precision)
        before = [p.detach().clone() for p in trainer.model.parameters()]
        if asked:
            (step,) = Schedule(examples()[:4], 4, 1, seed=0).steps(0, 1)
            check_engine(trainer, TrainSettings(), step)
        assert fallback_notes(trainer) == []
        assert trainer.uses_graphs
        for parameter, values in zip(trainer.model.parameters(), before, strict=True):
            assert torch.equal(parameter, values)
        losses.append(train(trainer))
        assert trainer.graphs is not None
        assert trainer.graphs.replays >= STEPS // 2
    assert losses[1] == pytest.approx(losses[0], rel=close)


def test_each_replay_drops_other_activations(backbone: Backbone) -> None:
    trainer = new_trainer(backbone, "lora_ff", "graph", dropout=True)
    (step,) = Schedule(examples()[:4], 4, 1, seed=0).steps(0, 1)
    plan_shapes(trainer, step_sizes([step]), 40)
    for group in trainer.optimizer.param_groups:
        group["lr"] = group["weight_decay"] = 0.0
    record_ahead(trainer, [step])
    batch = trainer.engine.collate(step.micro_batches[0])
    losses = [float(trainer.step([batch], step.target_tokens)) for _ in range(6)]
    assert trainer.graphs is not None
    assert trainer.graphs.replays >= 6
    assert len(set(losses)) > 3


def test_a_replay_never_waits_for_the_device(backbone: Backbone) -> None:
    trainer = new_trainer(backbone, "lora_ff+lprun", "graph", "bfloat16", dropout=True)
    steps = list(Schedule(examples(), 4, 1, seed=0).steps(0, 4))
    plan_shapes(trainer, step_sizes(steps), 20)
    record_ahead(trainer, steps)
    batches = [(trainer.engine.collate(s.micro_batches[0]), s.target_tokens) for s in steps]
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        losses = [trainer.step([batch], tokens) for batch, tokens in batches]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(torch.stack(losses).isfinite().tolist())


def test_a_saved_state_goes_on_with_graphs_as_without(backbone: Backbone, tmp_path: Path) -> None:
    losses = []
    for engine in ("packed", "graph"):
        first = new_trainer(backbone, "lora_ff", engine)
        train(first)
        scheduler = torch.optim.lr_scheduler.ConstantLR(first.optimizer)
        folder = tmp_path / engine
        folder.mkdir()
        save_state(folder, first, scheduler, Progress())
        second = new_trainer(backbone, "lora_ff", engine)
        load_state(folder, second, torch.optim.lr_scheduler.ConstantLR(second.optimizer))
        losses.append(train(second))
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


def test_steps_are_recorded_again_after_all_were_forgotten(backbone: Backbone) -> None:
    trainer = new_trainer(backbone, "full", "graph", "bfloat16")
    for _ in range(3):
        train(trainer)
        assert trainer.graphs is not None
        assert trainer.graphs.obstacle is None
        assert trainer.graphs.recorded
        trainer.graphs.forget()


def test_recording_takes_little_more_memory_than_launching(backbone: Backbone) -> None:
    peaks = []
    for engine in ("packed", "graph"):
        trainer = new_trainer(backbone, "full", engine)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        train(trainer)
        torch.cuda.synchronize()
        peaks.append(torch.cuda.max_memory_allocated() - before)
        del trainer
    assert peaks[1] < 1.5 * peaks[0] + 2**22
