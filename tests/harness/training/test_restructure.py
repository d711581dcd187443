"""A structure that changes during training: everything that was built for the old one follows."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from harness import STACKS, Backbone, Compressor, Context, HarnessError, Options, Stage, StepDone
from harness.api.metric import Score
from harness.api.plugins import installed
from harness.api.recipe import Recipe
from harness.data.examples import Example
from harness.model.composition import count_parameters
from harness.running.merge_check import load_trained
from harness.spec.run_spec import RunSpec
from harness.spec.setting_groups import TrainSettings
from harness.training.build import load_trainer
from harness.training.learning_rate import continued_schedule, learning_rate_schedule
from harness.training.loop import Observers, train
from harness.training.processes import Processes
from harness.training.resolved_run import resolve_run
from harness.training.restructure import restructure
from harness.training.schedule import Schedule
from harness.training.trainer import Trainer

rng = random.Random(0)
EXAMPLES = [Example([*rng.choices(range(3, 48), k=6), 1], [n + 3, 1]) for n in range(24)]
STEPS = 9
CHANGES = (2, 5)
"""Steps after which a layer goes; evaluations are after the steps 3, 6 and 9."""


class Killed(BaseException):
    """Ends a training as suddenly as a test within one process can."""


class Thinning(Compressor[Any]):
    """Drops the inner layer of each stack whose weights are smallest, and freezes the first."""

    stage: ClassVar[Stage] = Stage.STRUCTURE
    Options = Options

    def apply(self, model: Any, backbone: Backbone, context: Context) -> Any:
        return model

    def change_after(self, model: Any, backbone: Backbone, step: int) -> dict[str, Any] | None:
        if step not in CHANGES:
            return None
        chosen: dict[str, Any] = {}
        for stack in STACKS:
            sizes = [
                sum(float(p.float().square().sum()) for p in layer.parameters())
                for layer in backbone.layers(model, stack)
            ]
            chosen[stack] = min(range(2, len(sizes)), key=lambda n: sizes[n - 1])
        return chosen

    def make_change(self, model: Any, backbone: Backbone, change: Mapping[str, Any]) -> None:
        for stack in STACKS:
            depth = len(backbone.layers(model, stack))
            kept = [n for n in range(1, depth + 1) if n != change[stack]]
            backbone.keep_layers(model, stack, kept)


def new_trainer(backbone: Backbone, adapter: str | None = None, **train: Any) -> Trainer:
    settings = {"precision": "float32", "warmup_steps": 2, "learning_rate": 1e-2, **train}
    adapters = installed().recipe(adapter).compressors if adapter else ()
    spec = RunSpec.model_validate({"weights": "random", "device": "cpu", "train": settings})
    recipe = Recipe((Thinning("thinning", Options()), *adapters))
    return load_trainer(resolve_run(spec, backbone, recipe))


def attempt(
    backbone: Backbone,
    folder: Path,
    last: int | None = None,
    adapter: str | None = None,
    scores: Callable[[int], float] = float,
    **changes: Any,
) -> tuple[Trainer, Any]:
    """Train for nine steps, or until a step in which the training is killed."""
    folder.mkdir(exist_ok=True)
    trainer = new_trainer(backbone, adapter, **changes)
    settings = TrainSettings(
        batch_size=4, warmup_steps=2, max_steps=STEPS, eval_every_epochs=0.5, **changes
    )
    done = 0

    def stop(event: StepDone) -> None:
        nonlocal done
        done = event.step
        if event.step == last:
            raise Killed

    report = train(
        trainer,
        Schedule(EXAMPLES, settings.batch_size, 1, 0),
        settings,
        evaluate=lambda: {"main": Score.mean([scores(done)], "step")},
        best_metric="main",
        folder=folder,
        observers=Observers(stop, lambda event: None),
        save_state_seconds=0,
    )
    return trainer, report


@pytest.mark.parametrize("adapter", [None, "lora_ff"])
@pytest.mark.fast_on("t5")
def test_a_killed_training_goes_on_to_the_same_structure_and_weights(
    backbone: Backbone, tmp_path: Path, adapter: str | None
) -> None:
    whole, report = attempt(backbone, tmp_path / "whole", adapter=adapter)
    assert [change.step for change in report.changes] == list(CHANGES)
    for last in (2, 3, 6, 8):
        with pytest.raises(Killed):
            attempt(backbone, tmp_path / "killed", last, adapter)
    resumed, again = attempt(backbone, tmp_path / "killed", adapter=adapter)
    assert again.changes == report.changes
    assert resumed.layers_kept == whole.layers_kept
    for name in ("history.jsonl", "weights.safetensors"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.fast_on("gated-t5", "bart")
def test_layers_and_parameters_are_those_of_the_last_structure(
    backbone: Backbone, tmp_path: Path
) -> None:
    before = new_trainer(backbone)
    trainer, report = attempt(backbone, tmp_path)
    assert len(trainer.layers_kept.encoder) == len(before.layers_kept.encoder) - 2
    assert len(trainer.layers_kept.decoder) == len(before.layers_kept.decoder) - 2
    assert {1, len(before.layers_kept.encoder)} <= {*trainer.layers_kept.encoder}
    counted = count_parameters(trainer.model)
    assert (trainer.parameters.total, trainer.parameters.trainable) == (
        counted.total,
        counted.trainable,
    )
    assert trainer.parameters.total < before.parameters.total == trainer.parameters.original
    assert "changed after steps 2, 5" in report.notes[0]
    optimized = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    assert optimized == {id(p) for p in trainer.model.parameters()}


@pytest.mark.fast_on("gated-t5")
def test_saved_weights_are_those_of_a_model_that_is_changed_again(
    backbone: Backbone, tmp_path: Path
) -> None:
    trainer, _ = attempt(backbone, tmp_path, adapter="lora_ff")
    trainer.engine.unpatch(trainer.model)
    loaded = load_trained(trainer.run, trainer.trained, trainer.changes)
    expected = trainer.model.state_dict()
    assert loaded.state_dict().keys() == expected.keys()
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, expected[name]), name


@pytest.mark.fast_on("bart")
def test_best_weights_are_of_the_last_structure(backbone: Backbone, tmp_path: Path) -> None:
    # The best score is that of step 3, which had one more layer.
    _, report = attempt(backbone, tmp_path, scores=lambda step: 100.0 - step)
    assert report.best_step == 6
    assert report.best_value == 94


def test_weights_that_stay_keep_their_state_in_the_optimizer(backbone: Backbone) -> None:
    trainer = new_trainer(backbone)
    trainer.events.begin(trainer.model, STEPS)
    batch = trainer.engine.collate(EXAMPLES[:4])
    for _ in range(2):
        trainer.step([batch], batch.target_tokens)
    before = {id(p): trainer.optimizer.state[p] for p in trainer.trained.values()}
    restructure(trainer, trainer.events.changes(trainer.model, backbone))
    assert 0 < len(trainer.optimizer.state) < len(before)
    for parameter in trainer.trained.values():
        assert trainer.optimizer.state[parameter] is before[id(parameter)]
    trainer.step([batch], batch.target_tokens, check=True)


def test_the_learning_rate_goes_on(backbone: Backbone) -> None:
    trainer = new_trainer(backbone, "lora:plus=4")
    settings = trainer.run.spec.train
    whole = learning_rate_schedule(trainer.optimizer, settings, STEPS)
    rates = []
    for _ in range(STEPS):
        trainer.optimizer.step()
        whole.step()
        rates.append(whole.get_last_lr())
    trainer = new_trainer(backbone, "lora:plus=4")
    part = learning_rate_schedule(trainer.optimizer, settings, STEPS)
    for step in range(STEPS):
        if step == 4:
            trainer.optimizer = new_trainer(backbone, "lora:plus=4").optimizer
            part = continued_schedule(part, trainer.optimizer, settings, STEPS)
        trainer.optimizer.step()
        part.step()
        assert part.get_last_lr() == rates[step]
        assert [group["lr"] for group in trainer.optimizer.param_groups] == rates[step]


@pytest.mark.fast_on("bart")
def test_activation_checkpointing_changes_nothing(backbone: Backbone, tmp_path: Path) -> None:
    plain, _ = attempt(backbone, tmp_path / "plain")
    checkpointed, _ = attempt(backbone, tmp_path / "checkpointed", checkpointing="on")
    for name, weight in plain.trained.items():
        assert torch.equal(weight, checkpointed.trained[name]), name


def test_a_change_that_leaves_nothing_to_train_ends_the_run(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def freeze(self: Any, model: Any, backbone: Backbone, change: Mapping[str, Any]) -> None:
        model.requires_grad_(False)

    monkeypatch.setattr(Thinning, "make_change", freeze)
    with pytest.raises(HarnessError, match="thinning left nothing to train in step 2"):
        attempt(backbone, tmp_path)


def test_several_processes_are_refused(backbone: Backbone) -> None:
    with pytest.raises(HarnessError, match="thinning changes the model during training"):
        new_trainer(backbone).join(Processes(rank=0, size=2))
