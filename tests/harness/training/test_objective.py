"""Additions to the loss: equal for packed and padded batches, with a teacher held once."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from harness import (
    STACKS,
    Backbone,
    Batch,
    Compressor,
    Context,
    HarnessError,
    Options,
    Outputs,
    Stage,
)
from harness.api.plugins import installed
from harness.api.recipe import Recipe
from harness.backbones.bart import Bart
from harness.costs.memory_estimate import estimate_memory
from harness.data.examples import Example
from harness.measurement.breakdown import memory_parts
from harness.model.composition import compose
from harness.spec.run_spec import RunSpec
from harness.spec.setting_groups import EngineName, TrainSettings
from harness.training.build import load_trainer
from harness.training.engines import loss as loss_module
from harness.training.resolved_run import ResolvedRun, resolve_run
from harness.training.schedule import Step
from harness.training.trainer import Trainer

rng = random.Random(0)
EXAMPLES = [
    Example([*rng.choices(range(3, 48), k=n + 1), 1], [*rng.choices(range(3, 48), k=7 - n), 1])
    for n in range(6)
]


class Adding(Compressor[Any]):
    """Adds what a function computes."""

    stage: ClassVar[Stage] = Stage.OBJECTIVE
    Options = Options
    addition: Callable[[Any, Batch, Outputs], Tensor | None]

    def apply(self, model: Any, backbone: Backbone, context: Context) -> Any:
        return model

    def loss(self, model: Any, batch: Batch, outputs: Outputs) -> Tensor | None:
        return self.addition(model, batch, outputs)


class Needing(Adding):
    """Gets the states of layers, and a teacher."""

    needs = frozenset({"hidden_states", "teacher"})


def make_run(
    backbone: Backbone,
    engine: EngineName,
    addition: Any,
    others: str = "lprun",
    kind: type[Adding] = Needing,
    **values: Any,
) -> ResolvedRun:
    compressor = kind("adding", Options())
    compressor.addition = addition
    train = TrainSettings(**{"engine": engine, "precision": "float32", **values})
    spec = RunSpec(recipe=others, weights="random", device="cpu", train=train)
    recipe = Recipe((*installed().recipe(others).compressors, compressor))
    return resolve_run(spec, backbone, recipe)


def make_trainer(*args: Any, **kwargs: Any) -> Trainer:
    trainer = load_trainer(make_run(*args, **kwargs))
    for module in trainer.model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in ("dropout", "activation_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    trainer.model.train()
    return trainer


def loss_and_gradients(trainer: Trainer) -> tuple[float, dict[str, Tensor]]:
    """Compute a step in two micro-batches."""
    batches = [trainer.engine.collate(EXAMPLES[:4]), trainer.engine.collate(EXAMPLES[4:])]
    loss = trainer.backward(batches, sum(batch.target_tokens for batch in batches))
    gradients = {n: p.grad.clone() for n, p in trainer.trained.items() if p.grad is not None}
    return float(loss), gradients


def divergence(logits: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    own, target = logits.log_softmax(-1), teacher.log_softmax(-1)
    weight = 1 + (labels % 3)[:, None]
    return (weight * F.kl_div(own, target, reduction="none", log_target=True)).sum()


def everything(model: Any, batch: Batch, outputs: Outputs) -> Tensor:
    """Use logits, labels, states of both stacks, the teacher, and the batch's size."""
    total = 0.7 * outputs.sum_over_logits(divergence, outputs.teacher, outputs.labels)
    for stack in STACKS:
        own = outputs.hidden_states(stack)
        taught = outputs.teacher.hidden_states(stack)
        total = total + 0.01 * (own[-1] - taught[-1]).square().sum() + 0.01 * own[1].abs().sum()
    first: Tensor = next(iter(model.parameters()))
    return total - 0.2 * outputs.cross_entropy + batch.target_tokens * first.square().mean()


@pytest.mark.parametrize("others", ["lprun", "lora_ff:dropout=0+lprun"])
@pytest.mark.fast_on("bart", "gated-t5")
def test_packed_equals_padded_and_one_chunk_equals_many(
    backbone: Backbone, others: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = []
    for engine, size in (("padded", 2**24), ("packed", 2**24), ("packed", 48 * 4 * 3)):
        monkeypatch.setattr(loss_module, "_CHUNK_BYTES", size)
        trainer = make_trainer(backbone, engine, everything, others)
        results.append(loss_and_gradients(trainer))
    (loss, gradients), *rest = results
    for other_loss, other_gradients in rest:
        assert other_loss == pytest.approx(loss, rel=1e-5)
        assert other_gradients.keys() == gradients.keys()
        for name, gradient in gradients.items():
            assert torch.allclose(other_gradients[name], gradient, rtol=1e-3, atol=1e-5), name


@pytest.mark.parametrize("engine", ["packed", "padded"])
def test_the_loss_is_that_of_plain_code(backbone: Backbone, engine: EngineName) -> None:
    def imitate(model: Any, batch: Batch, outputs: Outputs) -> Tensor:
        return outputs.sum_over_logits(divergence, outputs.teacher, outputs.labels)

    trainer = make_trainer(backbone, engine, imitate)
    actual, _ = loss_and_gradients(trainer)
    trainer.engine.unpatch(trainer.model)
    run = make_run(backbone, engine, imitate)
    torch.manual_seed(0)
    teacher = backbone.load("random").eval()
    total, tokens = 0.0, 0
    with torch.no_grad():
        for example in EXAMPLES:
            ids, labels = torch.tensor([example.source]), torch.tensor([example.target])
            student = trainer.model(input_ids=ids, labels=labels)
            taught = teacher(input_ids=ids, labels=labels)
            total += float(student.loss) * len(example.target)
            total += float(divergence(student.logits[0], taught.logits[0], labels[0]))
            tokens += len(example.target)
    assert run.recipe.needs == {"hidden_states", "teacher"}
    assert actual == pytest.approx(total / tokens, rel=1e-5)


@pytest.mark.parametrize("engine", ["packed", "padded"])
def test_an_addition_of_nothing_changes_no_bit(backbone: Backbone, engine: EngineName) -> None:
    plain = make_run(backbone, engine, None)
    plain = resolve_run(plain.spec, backbone, installed().recipe("lprun"))
    expected, gradients = loss_and_gradients(load_trainer(plain))
    added, others = loss_and_gradients(load_trainer(make_run(backbone, engine, lambda *_: None)))
    assert added == expected
    assert all(torch.equal(gradient, others[name]) for name, gradient in gradients.items())


def test_the_teacher_is_the_original_model_frozen_and_held_once(backbone: Backbone) -> None:
    run = make_run(backbone, "packed", everything)
    recipe = Recipe((*run.recipe.compressors, Needing("another", Options())))
    recipe.compressors[-1].addition = lambda *_: None  # type: ignore[attr-defined]
    trainer = load_trainer(resolve_run(run.spec, backbone, recipe))
    teacher = trainer.objective.teacher
    assert teacher is not None
    assert not teacher.training
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert len(backbone.layers(teacher, "encoder")) > len(backbone.layers(trainer.model, "encoder"))
    before = [tensor.clone() for tensor in trainer.objective.teacher_tensors]
    batch = trainer.engine.collate(EXAMPLES)
    trainer.step([batch], batch.target_tokens, check=True)
    assert all(map(torch.equal, before, trainer.objective.teacher_tensors))
    size = sum(
        tensor.nbytes for tensor in {id(t): t for t in trainer.objective.teacher_tensors}.values()
    )
    parts = memory_parts(trainer, [trainer.engine.collate(EXAMPLES)])
    assert 0 < parts.teacher <= size
    trainer.objective.release_teacher()
    assert trainer.objective.teacher_tensors == []


@pytest.mark.parametrize("engine", ["packed", "padded"])
@pytest.mark.fast_on("t5")
def test_a_plan_counts_the_teachers_memory(backbone: Backbone, engine: EngineName) -> None:
    if engine == "padded" and isinstance(backbone, Bart):
        pytest.skip("transformers reads the values of a mask, which a skeleton lacks")
    run = make_run(backbone, engine, everything)
    skeleton = compose(backbone.skeleton(), backbone, run.recipe)
    estimate = estimate_memory(run, skeleton, Step((tuple(EXAMPLES),)))
    trainer = load_trainer(run)
    batch = trainer.engine.collate(EXAMPLES)
    trainer.step([batch], batch.target_tokens)
    measured = memory_parts(trainer, [trainer.engine.collate(EXAMPLES)])
    assert estimate.parts.teacher == measured.teacher > 0
    assert estimate.parts.total == pytest.approx(measured.total, rel=0.05)


def test_what_is_not_declared_is_refused_with_the_edit_that_mends_it(backbone: Backbone) -> None:
    for use in (lambda o: o.teacher, lambda o: o.hidden_states("encoder")):
        trainer = make_trainer(
            backbone, "packed", lambda model, batch, outputs, use=use: use(outputs), kind=Adding
        )
        with pytest.raises(HarnessError, match="without declaring it") as raised:
            loss_and_gradients(trainer)
        assert "needs = frozenset" in str(raised.value)
