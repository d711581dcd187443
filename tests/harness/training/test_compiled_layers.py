"""Compiled layers against layers that are not, and what becomes of a training that cannot compile.

Kernels are compiled by the slow tests only. There is one graph for each kind of layer, whatever the
lengths of a batch.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from harness import STACKS, Backbone
from harness.api.plugins import installed
from harness.backbones.bart import Bart
from harness.data.examples import Example
from harness.spec.run_spec import RunSpec
from harness.training.build import load_trainer
from harness.training.engine_check import check_engine
from harness.training.engine_name import fallback_notes
from harness.training.engines import compiled_layers
from harness.training.engines.attention import _PerSequence
from harness.training.engines.compiled_layers import graphs_compiled
from harness.training.engines.dropout import PackedMaskDropout
from harness.training.engines.rows import Packed, PackedRow
from harness.training.engines.traced_attention import traced_attention
from harness.training.resolved_run import resolve_run
from harness.training.schedule import Step
from harness.training.trainer import Trainer

ONE_FAMILY = pytest.mark.parametrize("backbone", ["t5"], indirect=True)
SIZES = (4, 4, 3, 1, 4)
"""Examples of each batch; the lengths differ too."""


def batches() -> list[list[Example]]:
    draw = random.Random(0)

    def text(longest: int) -> list[int]:
        return [*draw.choices(range(3, 48), k=draw.randint(1, longest)), 1]

    return [[Example(text(20), text(9)) for _ in range(size)] for size in SIZES]


def new_trainer(
    backbone: Backbone, recipe: str = "lora_ff", engine: str = "compiled", **train: Any
) -> Trainer:
    settings = {"precision": "float32", "learning_rate": 1e-2, "engine": engine, **train}
    spec = RunSpec.model_validate(
        {"recipe": recipe, "weights": "random", "device": "cpu", "train": settings}
    )
    trainer = load_trainer(resolve_run(spec, backbone, installed().recipe(recipe)))
    trainer.model.train()
    return trainer


def begin(trainer: Trainer) -> Trainer:
    check_engine(trainer, trainer.run.spec.train, Step((tuple(batches()[0]),)))
    return trainer


def train(trainer: Trainer) -> list[float]:
    torch.manual_seed(3)
    losses = []
    for examples in batches():
        batch = trainer.engine.collate(examples)
        losses.append(float(trainer.step([batch], batch.target_tokens)))
    return losses


def raises(error: Exception) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


# Training that cannot compile


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@ONE_FAMILY
def test_layers_that_cannot_be_compiled_are_packed(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    failing = raises(RuntimeError("no C++ compiler found\nmore"))
    monkeypatch.setattr(torch, "compile", lambda function, **_: failing)
    trainer = begin(new_trainer(backbone, "full", precision=precision))
    reason = "RuntimeError: no C++ compiler found"
    assert trainer.engine_name == f"packed, layers not compiled: {reason}"
    assert fallback_notes(trainer) == [f"Layers were not compiled: {reason}."]
    plain = new_trainer(backbone, "full", "packed", precision=precision)
    assert train(trainer) == train(plain)
    for name, weight in plain.trained.items():
        assert torch.equal(trainer.trained[name], weight), name


@ONE_FAMILY
def test_a_failure_in_a_later_step_is_reported_and_the_step_is_taken(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def fails_later(function: Callable[..., Any], **_: Any) -> Callable[..., Any]:
        def call(*args: Any, packed: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls > 45:
                raise RuntimeError("recompiled too often")
            return function(*args, packed=packed, **kwargs)

        return call

    monkeypatch.setattr(torch, "compile", fails_later)
    trainer = begin(new_trainer(backbone))
    assert trainer.engine_name == "packed, compiled layers"
    assert train(trainer) == pytest.approx(train(new_trainer(backbone, engine="packed")), rel=1e-5)
    assert calls == 46
    assert fallback_notes(trainer) == [
        "Layers were not compiled: RuntimeError: recompiled too often."
    ]


@ONE_FAMILY
def test_memory_that_runs_out_is_no_failure_of_the_compiler(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = raises(torch.OutOfMemoryError("CUDA out of memory"))
    monkeypatch.setattr(torch, "compile", lambda function, **_: failing)
    with pytest.raises(torch.OutOfMemoryError):
        begin(new_trainer(backbone))


@ONE_FAMILY
def test_obstacles_are_named(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    def name(**train: Any) -> str:
        return begin(new_trainer(backbone, **train)).engine_name

    assert name(checkpointing="on") == (
        "packed, layers not compiled: activation checkpointing computes layers twice"
    )
    lora = type(installed().recipe("lora_ff").compressors[0])
    with monkeypatch.context() as patch:
        patch.setattr(lora, "graph_safe", False)
        assert name() == (
            "packed, layers not compiled: lora_ff does not declare that it is safe in a graph"
        )
    monkeypatch.setattr(lora, "packs", False)
    assert name() == "padded, not packed: lora_ff adds positions to each sequence"


@ONE_FAMILY
def test_nothing_is_compiled_before_a_training_begins(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **_: raises(AssertionError()))
    losses = train(new_trainer(backbone))
    assert losses == pytest.approx(train(new_trainer(backbone, engine="packed")), rel=1e-6)


# Attention as one operator


def rows(draw: random.Random) -> Packed:
    def row(lengths: list[int]) -> PackedRow:
        positions = torch.cat([torch.arange(n) for n in lengths])
        offsets = torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()], dtype=torch.int32)
        return PackedRow(tuple(lengths), positions, offsets)

    count = draw.randint(1, 5)
    return Packed(*(row([draw.randint(1, 9) for _ in range(count)]) for _ in range(2)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [0.0, 0.3])
@pytest.mark.parametrize(("decodes", "causal"), [(False, False), (True, True), (True, False)])
def test_the_operator_attends_as_the_function_and_draws_the_same_masks(
    dtype: torch.dtype, p: float, decodes: bool, causal: bool
) -> None:
    draw = random.Random(0)
    for seed in range(4):
        packed = rows(draw)
        queries = packed.target if decodes else packed.source
        keys = packed.target if causal else packed.source
        torch.manual_seed(seed)
        made = [torch.randn(2, sum(r.lengths), 4, dtype=dtype) for r in (queries, keys, keys)]
        bias = torch.randn(1, 2, queries.longest, keys.longest) if queries is keys else None
        leaves = [x.requires_grad_() for x in (*made, bias) if x is not None]
        upstream = torch.randn(sum(queries.lengths), 2, 4, dtype=dtype)
        results = []
        for is_operator in (False, True):
            torch.manual_seed(seed)
            if is_operator:
                found = traced_attention(
                    made[0], made[1], made[2], bias, packed.traced, 0.5, p, causal, decodes
                )
            else:
                found = _PerSequence.apply(*made, bias, queries, keys, 0.5, p, causal)  # type: ignore[no-untyped-call]
            results.append([found.detach(), *torch.autograd.grad(found, leaves, upstream)])
        for one, other in zip(*results, strict=True):
            torch.testing.assert_close(other, one, rtol=0, atol=0)


@pytest.mark.parametrize("trained", [False, True])
def test_the_operators_declare_what_they_return(trained: bool) -> None:
    packed = rows(random.Random(1))
    tokens, longest = sum(packed.target.lengths), packed.target.longest
    query, key, value = (torch.randn(2, tokens, 4, requires_grad=True) for _ in range(3))
    bias = torch.randn(1, 2, longest, longest, requires_grad=trained)
    traced = packed.traced
    arguments = query, key, value, bias, traced.target, traced.target, traced.target_scores
    torch.library.opcheck(
        torch.ops.harness.traced_attention.default,
        (*arguments, 0.0, True),
        test_utils=("test_schema", "test_autograd_registration", "test_faketensor"),
    )
    _, probabilities, bits = torch.ops.harness.traced_attention(*arguments, 0.1, True)
    kept = query, key, value, bias, traced.target, traced.target, probabilities, bits
    torch.library.opcheck(
        torch.ops.harness.traced_attention_backward.default,
        (torch.randn(tokens, 2, 4), *(x.detach() for x in kept), 0.1, trained),
        test_utils=("test_schema", "test_faketensor"),
    )


# Compiled code


@pytest.fixture
def _forgets_compiled_code() -> Iterator[None]:
    import torch._dynamo

    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class TwoMasks(nn.Module):
    """Drops twice from one input, as two adapters of one input do."""

    def forward(self, x: Tensor, packed: object) -> Tensor:
        return functional.dropout(x, 0.5) + 10 * functional.dropout(x, 0.5)


@pytest.mark.slow
@pytest.mark.usefixtures("_forgets_compiled_code")
def test_each_dropout_draws_a_mask_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_layers, "BACKEND", "aot_eager")
    layer, layers = TwoMasks(), compiled_layers.CompiledLayers()
    layers.active = True
    forward = layers._compiled(layer)
    x, packed = torch.ones(4, 32, requires_grad=True), rows(random.Random(0))
    with PackedMaskDropout():
        torch.manual_seed(0)
        expected = layer(x, packed)
        torch.manual_seed(0)
        found = forward(x, packed=packed)
    assert layers.obstacle is None
    assert set(found.flatten().tolist()) == {0, 2, 20, 22}
    assert torch.equal(found, expected)
    ones = torch.ones_like(found)
    (gradient,) = torch.autograd.grad(found, x, ones)
    assert torch.equal(gradient, *torch.autograd.grad(expected, x, ones))


def gradients(trainer: Trainer) -> list[tuple[float, dict[str, Tensor]]]:
    """Return loss and gradients of each batch; equal seeds draw equal masks of dropout."""
    results = []
    for number, examples in enumerate(batches()):
        torch.manual_seed(number)
        batch = trainer.engine.collate(examples)
        loss = float(trainer.backward([batch], batch.target_tokens))
        found = {n: p.grad for n, p in trainer.trained.items() if p.grad is not None}
        results.append((loss, found))
        trainer.optimizer.zero_grad()
    return results


def assert_compiles_as_packed(backbone: Backbone, recipe: str, precision: str) -> None:
    expected = gradients(new_trainer(backbone, recipe, "packed", precision=precision))
    before = graphs_compiled()
    trainer = begin(new_trainer(backbone, recipe, precision=precision))
    assert trainer.engine_name == "packed, compiled layers"
    ahead = graphs_compiled()
    # T5's first layers are not compiled. Where weights are frozen, BART's first layers get states
    # without a gradient, for which others are made.
    kinds = 2 if isinstance(backbone, Bart) and recipe != "full" else 1
    assert ahead - before == kinds * len(STACKS)
    found = gradients(trainer)
    assert graphs_compiled() == ahead
    assert trainer.engine_name == "packed, compiled layers"
    (note,) = fallback_notes(trainer)
    assert note.startswith("Layers were compiled before training, in ")
    close = 1e-4 if precision == "float32" else 0.03
    for (loss, grads), (expected_loss, expected_grads) in zip(found, expected, strict=True):
        assert loss == pytest.approx(expected_loss, rel=close / 10)
        assert grads.keys() == expected_grads.keys()
        distance = torch.stack([(grads[n] - g).norm() for n, g in expected_grads.items()]).norm()
        assert distance < close * torch.stack([g.norm() for g in expected_grads.values()]).norm()


@pytest.mark.slow
@pytest.mark.usefixtures("_forgets_compiled_code")
@pytest.mark.parametrize("recipe", ["full", "lora_ff", "lora_ff+lprun"])
def test_one_graph_a_stack_computes_batches_of_all_lengths(
    backbone: Backbone, recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The graphs run as they are, without kernels of their own."""
    monkeypatch.setattr(compiled_layers, "BACKEND", "aot_eager")
    assert_compiles_as_packed(backbone, recipe, "float32")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="kernels of a CPU need a C++ compiler")
@pytest.mark.usefixtures("_forgets_compiled_code")
@pytest.mark.parametrize(
    ("recipe", "precision"), [("full", "bfloat16"), ("lora_ff+lprun", "float32")]
)
def test_compiled_kernels_compute_what_layers_compute(
    backbone: Backbone, recipe: str, precision: str
) -> None:
    assert_compiles_as_packed(backbone, recipe, precision)
