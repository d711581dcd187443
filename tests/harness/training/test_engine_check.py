"""The check of an engine on a first batch, and the simpler engines that failures lead to."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from harness import Backbone, Compressor, Context, Options, Stage
from harness.api.plugins import installed
from harness.api.recipe import Recipe
from harness.data.examples import Example
from harness.spec.run_spec import RunSpec
from harness.spec.setting_groups import TrainSettings
from harness.training.build import load_trainer
from harness.training.engine_check import check_engine
from harness.training.engine_name import fallback_notes
from harness.training.engines import attention, lora_linear
from harness.training.engines.attention import packed_attention
from harness.training.engines.padded import PaddedEngine
from harness.training.recording import record_steps
from harness.training.resolved_run import resolve_run
from harness.training.schedule import Schedule, Step
from harness.training.trainer import Trainer

SLOW = [pytest.param(r, marks=pytest.mark.slow) for r in ("lprun", "lora_qv", "lora_qv+lprun")]
ONE_FAMILY = pytest.mark.parametrize("backbone", ["t5"], indirect=True)


class Rerun:
    """Records a function by keeping it."""

    def __init__(self, function: Callable[[], None]) -> None:
        self.replay = function


def steps(count: int = 3) -> list[Step]:
    draw = random.Random(0)

    def text(longest: int) -> list[int]:
        return [*draw.choices(range(3, 48), k=draw.randint(1, longest)), 1]

    examples = [Example(text(20), text(9)) for _ in range(4 * count)]
    return list(Schedule(examples, 4, 1, seed=0).steps(0, count))


def new_trainer(backbone: Backbone, recipe: str | Recipe = "lora_ff", **train: Any) -> Trainer:
    settings = {"precision": "float32", "learning_rate": 1e-2, **train}
    spec = RunSpec.model_validate(
        {"recipe": str(recipe), "weights": "random", "device": "cpu", "train": settings}
    )
    parsed = installed().recipe(recipe) if isinstance(recipe, str) else recipe
    trainer = load_trainer(resolve_run(spec, backbone, parsed))
    trainer.model.train()
    return trainer


def check(trainer: Trainer, asked: Literal["auto", "on", "off"] = "on") -> None:
    check_engine(trainer, TrainSettings(check_engine=asked), steps()[0])


def train(trainer: Trainer, seed: int | None = None) -> list[float]:
    if seed is not None:
        torch.manual_seed(seed)
    losses = []
    for step in steps():
        batch = trainer.engine.collate(step.micro_batches[0])
        losses.append(float(trainer.step([batch], step.target_tokens)))
    return losses


def tensors_of(trainer: Trainer) -> dict[str, Tensor]:
    named = [*trainer.model.named_parameters(), *trainer.model.named_buffers()]
    return {name: tensor.detach().clone() for name, tensor in named}


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("recipe", ["full", "lora_ff", "lora_ff+lprun", *SLOW])
@pytest.mark.fast_on("gated-t5")
def test_a_right_engine_stays(backbone: Backbone, recipe: str, precision: str) -> None:
    trainer = new_trainer(backbone, recipe, precision=precision)
    record_steps(trainer, Rerun)
    check(trainer)
    assert fallback_notes(trainer) == []
    assert trainer.engine_name == "packed"
    assert trainer.uses_graphs


@ONE_FAMILY
def test_a_training_is_the_same_bit_by_bit_with_and_without_the_check(backbone: Backbone) -> None:
    trained = []
    asked: Literal["on", "off"]
    for asked in ("on", "off"):
        trainer = new_trainer(backbone, "lora_ff+lprun")
        random.seed(1)
        np.random.seed(1)
        before, modes = tensors_of(trainer), [m.training for m in trainer.model.modules()]
        check(trainer, asked)
        assert_equal(tensors_of(trainer), before)
        assert [m.training for m in trainer.model.modules()] == modes
        assert all(p.grad is None for p in trainer.trained.values())
        losses = train(trainer)
        trained.append((losses, tensors_of(trainer), random.random(), np.random.random()))
    (one, weights, *drawn), (other, other_weights, *other_drawn) = trained
    assert one == other
    assert drawn == other_drawn
    assert_equal(weights, other_weights)


def raises(error: Exception) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


def assert_trains_like_padded(
    trainer: Trainer, backbone: Backbone, recipe: str | Recipe = "lora_ff", **settings: Any
) -> None:
    padded = new_trainer(backbone, recipe, engine="padded", **settings)
    assert train(trainer, seed=3) == train(padded, seed=3)
    assert_equal(tensors_of(trainer), tensors_of(padded))


@pytest.mark.parametrize("checkpointing", ["off", "on"])
@pytest.mark.fast_on("bart")
def test_kernels_that_fail_lead_to_padded_batches(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch, checkpointing: str
) -> None:
    trainer = new_trainer(backbone, checkpointing=checkpointing)
    record_steps(trainer, Rerun)
    error = RuntimeError("no kernel image is available\nmore")
    monkeypatch.setattr(attention._PerSequence, "apply", raises(error))
    check(trainer)
    reason = "RuntimeError: no kernel image is available"
    assert trainer.engine_name == f"padded, not packed: {reason}"
    assert fallback_notes(trainer) == [
        f"Batches were padded, because packing failed a check: {reason}."
    ]
    assert trainer.graphs is None
    assert_trains_like_padded(trainer, backbone, checkpointing=checkpointing)


@ONE_FAMILY
@pytest.mark.parametrize("asked", ["auto", "off"])
def test_on_a_cpu_nothing_is_checked_unless_asked(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch, asked: Literal["auto", "off"]
) -> None:
    trainer = new_trainer(backbone)
    monkeypatch.setattr(attention._PerSequence, "apply", raises(RuntimeError("called")))
    check(trainer, asked)
    assert trainer.engine_name == "packed"


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.fast_on("t5")
def test_kernels_that_compute_something_else_lead_to_padded_batches(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    def shifted(*args: Any, **kwargs: Any) -> tuple[Tensor, None]:
        result, _ = packed_attention(*args, **kwargs)
        return result.roll(1, 1), None  # Each token gets what its neighbour attended to.

    monkeypatch.setattr(attention, "packed_attention", shifted)
    trainer = new_trainer(backbone, precision=precision)
    check(trainer)
    assert "differs by" in trainer.engine_name
    assert trainer.engine.name == "padded"
    if precision == "float32":  # Frozen weights that were rounded stay so.
        assert_trains_like_padded(trainer, backbone, precision=precision)


@ONE_FAMILY
def test_a_mistake_in_the_gradient_of_an_adapter_shows_although_it_begins_at_zero(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = lora_linear._LoraLinear.backward

    def without_a(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        grad_x, weight, bias, grad_a, *rest = plain(ctx, gradient)
        assert grad_a is not None
        return grad_x, weight, bias, grad_a * 1.5, *rest

    monkeypatch.setattr(lora_linear._LoraLinear, "backward", staticmethod(without_a))
    trainer = new_trainer(backbone)
    check(trainer)
    assert "gradient differs by" in trainer.engine_name


@ONE_FAMILY
@pytest.mark.parametrize(
    "error",
    [RuntimeError("operation not permitted"), torch.OutOfMemoryError("CUDA out of memory")],
)
def test_steps_that_cannot_be_recorded_are_launched(backbone: Backbone, error: Exception) -> None:
    trainer, plain = new_trainer(backbone), new_trainer(backbone)
    record_steps(trainer, raises(error))
    check(trainer)
    assert not trainer.uses_graphs
    assert trainer.engine.name == "packed"
    assert fallback_notes(trainer) == [
        f"Steps were not CUDA graphs, which failed: {type(error).__name__}: {error}."
    ]
    assert train(trainer, seed=3) == train(plain, seed=3)


@ONE_FAMILY
def test_recorded_steps_that_compute_something_else_are_launched(backbone: Backbone) -> None:
    trainer, plain = new_trainer(backbone), new_trainer(backbone)

    class Elsewhere(Rerun):
        """Reads a weight at an address where other values are."""

        def __init__(self, function: Callable[[], None]) -> None:
            super().__init__(lambda: self.rerun(function))

        def rerun(self, function: Callable[[], None]) -> None:
            weight = next(p for n, p in trainer.trained.items() if "lora_A" in n)
            values = weight.detach().clone()
            weight.data.mul_(1.1)
            function()
            weight.data.copy_(values)

    record_steps(trainer, Elsewhere)
    check(trainer)
    assert "differs by" in fallback_notes(trainer)[0]
    assert trainer.engine.name == "packed"
    assert train(trainer, seed=3) == train(plain, seed=3)


@ONE_FAMILY
@pytest.mark.parametrize("fitting", [2, 0])
def test_a_check_that_runs_out_of_memory_takes_fewer_examples(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch, fitting: int
) -> None:
    plain, sizes = PaddedEngine.collate, []

    def collate(self: PaddedEngine, examples: Any) -> Any:
        sizes.append(len(examples))
        if len(examples) > fitting:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(self, examples)

    monkeypatch.setattr(PaddedEngine, "collate", collate)
    trainer = new_trainer(backbone)
    check(trainer)
    assert trainer.engine.name == "packed"
    assert sizes == ([4, 2] if fitting else [4, 2, 1])
    reason = "OutOfMemoryError: CUDA out of memory"
    note = f"The engine was not compared with padded batches: {reason}."
    assert fallback_notes(trainer) == ([] if fitting else [note])


@ONE_FAMILY
def test_a_reference_that_fails_ends_no_training(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PaddedEngine, "forward", raises(ValueError("not in float32")))
    trainer = new_trainer(backbone)
    check(trainer)
    assert trainer.engine_name == "packed"
    assert fallback_notes(trainer) == [
        "The engine was not compared with padded batches: ValueError: not in float32."
    ]


class Counting(Compressor[Any]):
    """Declares that it is safe in a graph, and counts its calls or draws numbers in Python."""

    Options = Options
    stage: ClassVar[Stage] = Stage.ADAPTER
    graph_safe = True
    draws = False
    calls = 0

    def apply(self, model: Any, backbone: Backbone, context: Context) -> Any:
        self.calls = 0
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("norm" in name)
        backbone.layers(model, "encoder")[0].register_forward_hook(self._called)
        return model

    def _called(self, *_: Any) -> None:
        if self.draws:
            random.random()
        else:
            self.calls += 1


@ONE_FAMILY
@pytest.mark.parametrize("draws", [False, True])
def test_python_code_that_a_graph_would_not_repeat_is_found(
    backbone: Backbone, draws: bool
) -> None:
    compressor = Counting("counting", Options())
    compressor.draws = draws
    trainer = new_trainer(backbone, Recipe((compressor,)))
    record_steps(trainer, Rerun)
    check(trainer)
    (note,) = fallback_notes(trainer)
    assert ("draws from a random generator" if draws else "counting changes") in note
    assert not trainer.uses_graphs
    assert trainer.engine.name == "packed"


class Imitating(Compressor[Any]):
    """Adds the distance of the logits from those of the original model."""

    Options = Options
    stage: ClassVar[Stage] = Stage.OBJECTIVE
    needs = frozenset({"teacher"})

    def apply(self, model: Any, backbone: Backbone, context: Context) -> Any:
        return model

    def loss(self, model: Any, batch: Any, outputs: Any) -> Tensor:
        distance: Tensor = outputs.sum_over_logits(_squares, outputs.teacher)
        return distance


def _squares(own: Tensor, other: Tensor) -> Tensor:
    return (own - other).square().sum()


@pytest.mark.fast_on("bart")
def test_a_teacher_falls_back_with_the_model(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    def recipe() -> Recipe:
        return Recipe((*installed().recipe("lora_ff").compressors, Imitating("it", Options())))

    trainer = new_trainer(backbone, recipe())
    with monkeypatch.context() as patch:
        patch.setattr(attention._PerSequence, "apply", raises(RuntimeError("failed")))
        check(trainer)
    assert trainer.engine.name == "padded"
    assert_trains_like_padded(trainer, backbone, recipe())


@ONE_FAMILY
def test_a_compressor_that_forbids_packing_is_named(backbone: Backbone) -> None:
    compressor = Counting("counting", Options())
    compressor.packs = False  # type: ignore[misc]
    trainer = new_trainer(backbone, Recipe((compressor,)))
    assert trainer.engine_name == "padded, not packed: counting adds positions to each sequence"
    check(trainer)
    assert fallback_notes(trainer) == []


@ONE_FAMILY
def test_the_check_leaves_modules_in_their_modes(backbone: Backbone) -> None:
    trainer = new_trainer(backbone)
    dropout = next(m for m in trainer.model.modules() if isinstance(m, nn.Dropout))
    dropout.eval()
    check(trainer)
    assert not dropout.training
    assert trainer.model.training
