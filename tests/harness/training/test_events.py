"""Events of compressors during training, and their state in a resumed run."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from harness import Backbone, Compressor, Context, HarnessError, Options, Stage, StepDone
from harness.api.metric import Score
from harness.api.recipe import Recipe
from harness.data.examples import Example
from harness.spec.run_spec import RunSpec
from harness.spec.setting_groups import TrainSettings
from harness.training.build import load_trainer
from harness.training.loop import Observers, train
from harness.training.resolved_run import resolve_run
from harness.training.schedule import Schedule
from harness.training.trainer import Trainer

rng = random.Random(0)
EXAMPLES = [Example([*rng.choices(range(3, 48), k=6), 1], [n + 3, 1]) for n in range(24)]
STEPS = 9


class Killed(BaseException):
    """Ends a training as suddenly as a test within one process can."""


class Scheduled(Compressor[Any]):
    """Shifts the norms by what it has seen so far, so that every lost bit of state shows."""

    stage: ClassVar[Stage] = Stage.OBJECTIVE
    Options = Options

    def apply(self, model: Any, backbone: Backbone, context: Context) -> Any:
        self.calls: list[tuple[Any, ...]] = []
        return model

    def on_train_start(self, model: Any, total_steps: int) -> None:
        self.total = total_steps
        self.seen: list[int] = []
        self.norms: dict[str, Tensor] = {}
        self.best = 0.0
        self.calls.append(("start", total_steps))

    def on_step(self, model: Any, step: int) -> None:
        self.calls.append(("step", step))
        self.seen.append(step)
        for name, weight in model.named_parameters():
            if "norm" in name:
                assert weight.grad is not None
                mean = self.norms.get(name, torch.zeros_like(weight))
                self.norms[name] = 0.5 * mean + weight.grad.abs()
                share = sum(self.seen) / self.total**2 + 0.01 * self.best
                weight.add_(self.norms[name] * share)

    def on_evaluate(self, model: Any, step: int, scores: Mapping[str, float]) -> None:
        self.calls.append(("evaluate", step, dict(scores)))
        self.best = max(self.best, scores["main"])

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen, "norms": self.norms, "best": self.best}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.calls.append(("load",))
        self.seen, self.norms = [*state["seen"]], dict(state["norms"])
        self.best = state["best"]


def attempt(
    backbone: Backbone, folder: Path, last: int | None = None, every: float = 300
) -> tuple[Trainer, Scheduled]:
    folder.mkdir(exist_ok=True)
    chosen = TrainSettings(
        batch_size=4,
        warmup_steps=0,
        max_steps=STEPS,
        learning_rate=1e-2,
        precision="float32",
        eval_every_epochs=0.5,
    )
    scheduled = Scheduled("scheduled", Options())
    spec = RunSpec(recipe="scheduled", weights="random", device="cpu", train=chosen)
    trainer = load_trainer(resolve_run(spec, backbone, Recipe((scheduled,))))
    done = 0

    def stop(event: StepDone) -> None:
        nonlocal done
        done = event.step
        if event.step == last:
            raise Killed

    train(
        trainer,
        Schedule(EXAMPLES, chosen.batch_size, 1, 0),
        chosen,
        evaluate=lambda: {"main": Score.mean([float(done)], "step")},
        best_metric="main",
        folder=folder,
        observers=Observers(stop, lambda event: None),
        save_state_seconds=every,
    )
    return trainer, scheduled


@pytest.mark.fast_on("gated-t5")
def test_events_come_in_order_with_the_numbers_of_the_steps(
    backbone: Backbone, tmp_path: Path
) -> None:
    _, scheduled = attempt(backbone, tmp_path)
    expected: list[tuple[Any, ...]] = [("start", STEPS)]
    for step in range(1, STEPS + 1):
        expected.append(("step", step))
        if step % 3 == 0:
            expected.append(("evaluate", step, {"main": float(step)}))
    assert scheduled.calls == expected


@pytest.mark.parametrize(("every", "kills"), [(300, (2, 5, 8)), (0, (1, 2, 4, 7, 9))])
@pytest.mark.fast_on("bart")
def test_a_killed_training_goes_on_with_the_compressors_state(
    backbone: Backbone, tmp_path: Path, every: float, kills: tuple[int, ...]
) -> None:
    whole, _ = attempt(backbone, tmp_path / "whole")
    folder = tmp_path / "killed"
    for last in kills:
        with pytest.raises(Killed):
            attempt(backbone, folder, last, every)
    resumed, scheduled = attempt(backbone, folder, None, every)
    assert [call[0] for call in scheduled.calls[:2]] == ["start", "load"]
    assert scheduled.seen == list(range(1, STEPS + 1))
    for name, parameter in whole.trained.items():
        assert torch.equal(parameter, resumed.trained[name]), name
    for name in ("history.jsonl", "weights.safetensors"):
        assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.fast_on("t5")
def test_a_state_that_is_lost_shows(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = attempt(backbone, tmp_path / "whole")
    with pytest.raises(Killed):
        attempt(backbone, tmp_path / "killed", 5)
    monkeypatch.setattr(Scheduled, "load_state_dict", Compressor.load_state_dict)
    resumed, _ = attempt(backbone, tmp_path / "killed")
    assert not all(torch.equal(p, resumed.trained[name]) for name, p in whole.trained.items())


def test_more_steps_than_planned_count_as_the_last(backbone: Backbone) -> None:
    scheduled = Scheduled("scheduled", Options())
    spec = RunSpec(weights="random", device="cpu")
    trainer = load_trainer(resolve_run(spec, backbone, Recipe((scheduled,))))
    trainer.events.begin(trainer.model, 2)
    for step in Schedule(EXAMPLES, 4, 1, 0).steps(0, 4):
        trainer.step([trainer.engine.collate(b) for b in step.micro_batches], step.target_tokens)
    assert scheduled.calls == [("start", 2), ("step", 1), ("step", 2), ("step", 2), ("step", 2)]


class Unfreezing(Scheduled):
    """Freezes a weight in the third step, which no part of the training would notice."""

    def on_step(self, model: Any, step: int) -> None:
        if step == 3:
            next(iter(model.parameters())).requires_grad_(False)


def test_a_compressor_that_changes_what_is_trained_ends_the_run(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe((Unfreezing("unfreezing", Options()),))
    trainer = load_trainer(resolve_run(RunSpec(weights="random", device="cpu"), backbone, recipe))
    trainer.events.begin(trainer.model, 9)
    batch = trainer.engine.collate(EXAMPLES[:2])
    for _ in range(2):
        trainer.step([batch], batch.target_tokens)
    with pytest.raises(HarnessError, match="unfreezing changed in step 3"):
        trainer.step([batch], batch.target_tokens)
