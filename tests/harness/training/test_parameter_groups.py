"""Groups of parameters with their own learning rate and weight decay."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from harness import Backbone, Compressor, Context, HarnessError, Options, ParameterGroup, Stage
from harness.api.metric import Score
from harness.api.recipe import Recipe
from harness.data.examples import Example
from harness.records.report import Training
from harness.spec.run_spec import RunSpec
from harness.spec.setting_groups import TrainSettings
from harness.training.build import load_trainer
from harness.training.loop import Observers, train
from harness.training.resolved_run import resolve_run
from harness.training.schedule import Schedule
from harness.training.trainer import Trainer

rng = random.Random(0)
EXAMPLES = [Example([*rng.choices(range(3, 48), k=6), 1], [n + 3, 1]) for n in range(24)]
RATE = 1e-2


class Grouped(Compressor[Any]):
    """Trains everything; a function chooses the groups."""

    stage: ClassVar[Stage] = Stage.OBJECTIVE
    Options = Options
    choose: Callable[[Any], list[ParameterGroup]] = staticmethod(lambda model: [])

    def apply(self, model: Any, backbone: Backbone, context: Context) -> Any:
        return model

    def parameter_groups(self, model: Any) -> list[ParameterGroup]:
        return self.choose(model)


def norms(model: nn.Module) -> list[nn.Parameter]:
    return [p for name, p in model.named_parameters() if "norm" in name]


def make_trainer(
    backbone: Backbone, chosen: TrainSettings, *groups: Callable[[Any], list[ParameterGroup]]
) -> Trainer:
    spec = RunSpec(recipe="grouped", weights="random", device="cpu", train=chosen)
    compressors = []
    for number, choose in enumerate(groups):
        compressor = Grouped(f"grouped{number}", Options())
        compressor.choose = choose
        compressors.append(compressor)
    return load_trainer(resolve_run(spec, backbone, Recipe(tuple(compressors))))


def settings(**values: Any) -> TrainSettings:
    short = {"batch_size": 4, "warmup_steps": 2, "max_steps": 6, "learning_rate": RATE}
    return TrainSettings(**{"precision": "float32", **short, **values})


def fit(trainer: Trainer, chosen: TrainSettings, folder: Path) -> Training:
    folder.mkdir(exist_ok=True)
    return train(
        trainer,
        Schedule(EXAMPLES, chosen.batch_size, 1, 0),
        chosen,
        evaluate=lambda: {"main": Score.mean([1.0], "constant")},
        best_metric="main",
        folder=folder,
        observers=Observers(lambda event: None, lambda event: None),
    )


def weights(trainer: Trainer) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in trainer.trained.items()}


@pytest.mark.parametrize("decay", ["all", "matrices"])
@pytest.mark.fast_on("t5")
def test_a_group_that_changes_nothing_changes_no_bit(
    backbone: Backbone, tmp_path: Path, decay: str
) -> None:
    chosen = settings(decay=decay)
    results = []
    for name, group in [
        ("none", lambda model: []),
        ("same", lambda model: [ParameterGroup("norms", norms(model))]),
        ("other", lambda model: [ParameterGroup("norms", norms(model), factor=2)]),
    ]:
        trainer = make_trainer(backbone, chosen, group)
        fit(trainer, chosen, tmp_path / name)
        results.append(weights(trainer))
    none, same, other = results
    assert all(torch.equal(none[name], same[name]) for name in none)
    assert not all(torch.equal(none[name], other[name]) for name in none)


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor", "adamw_8bit"])
@pytest.mark.usefixtures("eight_bits")
def test_each_group_is_stepped_with_its_rate_and_decay(
    backbone: Backbone, tmp_path: Path, optimizer: str
) -> None:
    chosen = settings(optimizer=optimizer, scheduler="constant", max_steps=1, weight_decay=0.1)

    def groups(model: Any) -> list[ParameterGroup]:
        first, *rest = norms(model)
        return [
            ParameterGroup("frozen in effect", [first], learning_rate=0.0),
            ParameterGroup("norms", rest, factor=3, weight_decay=0.0),
        ]

    trainer = make_trainer(backbone, chosen, groups)
    rates = {id(p): g["lr"] for g in trainer.optimizer.param_groups for p in g["params"]}
    decays = {id(p): g["weight_decay"] for g in trainer.optimizer.param_groups for p in g["params"]}
    first, *rest = norms(trainer.model)
    others = [p for name, p in trainer.trained.items() if "norm" not in name]
    assert len(rates) == len(trainer.trained)
    assert [rates[id(p)] for p in rest] == pytest.approx([3 * RATE] * len(rest))
    assert {decays[id(p)] for p in rest} == {0.0}
    assert {(rates[id(p)], decays[id(p)]) for p in others} == {(RATE, 0.1)}
    before = weights(trainer)
    result = fit(trainer, chosen, tmp_path)
    after = weights(trainer)
    name = next(name for name, p in trainer.trained.items() if p is first)
    assert torch.equal(before[name], after[name])
    assert sum(not torch.equal(before[n], after[n]) for n in before) >= 0.9 * (len(before) - 1)
    assert result.learning_rates == {
        "grouped0.frozen in effect": 0.0,
        "grouped0.norms": pytest.approx(3 * RATE),
    }


def test_the_schedule_multiplies_every_group_and_the_report_says_the_highest_rates(
    backbone: Backbone, tmp_path: Path
) -> None:
    chosen = settings(warmup_steps=4, max_steps=4)
    group = [ParameterGroup("norms", [], factor=5)]
    trainer = make_trainer(
        backbone, chosen, lambda model: [ParameterGroup("norms", norms(model), factor=5), *group]
    )
    result = fit(trainer, chosen, tmp_path)
    # The warm-up of four steps reaches 3/4 of the peak.
    assert result.learning_rate == pytest.approx(0.75 * RATE)
    assert result.learning_rates == {"grouped0.norms": pytest.approx(5 * 0.75 * RATE)}
    said = "grouped0.norms were trained with a learning rate of up to 0.0375"
    assert any(said in note for note in result.notes)


def test_two_compressors_cannot_have_one_parameter(backbone: Backbone) -> None:
    def group(model: Any) -> list[ParameterGroup]:
        return [ParameterGroup("norms", norms(model))]

    with pytest.raises(HarnessError, match=r"'grouped0\.norms' and 'grouped1\.norms' both hold"):
        make_trainer(backbone, settings(), group, group)


def test_a_group_may_hold_trained_parameters_only(backbone: Backbone) -> None:
    def group(model: Any) -> list[ParameterGroup]:
        return [ParameterGroup("stray", [nn.Parameter(torch.ones(2))])]

    with pytest.raises(HarnessError, match=r"'grouped0\.stray' holds a parameter that is not"):
        make_trainer(backbone, settings(), group)
