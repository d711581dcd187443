"""Weights in few bits: bitsandbytes as the reference, training, merging and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressors.quantized_linear import Int8Linear, Nf4Linear, QuantizedLinear
from harness import Backbone, HarnessError
from harness.api.plugins import installed
from harness.costs.memory_estimate import estimate_memory
from harness.data.examples import Example
from harness.measurement.breakdown import memory_parts
from harness.model.composition import compose, count_parameters
from harness.spec.run_spec import RunSpec
from harness.spec.setting_groups import TrainSettings
from harness.training.build import load_trainer
from harness.training.resolved_run import ResolvedRun, resolve_run
from harness.training.schedule import Step

EXAMPLES = [
    Example([5, 6, 7, 8, 9, 1], [8, 9, 1]),
    Example([9, 12, 1], [4, 3, 17, 20, 1]),
    Example([31, 30, 29, 28, 1], [11, 1]),
]
KINDS = {"int8": Int8Linear, "nf4": Nf4Linear}


def make_run(backbone: Backbone, text: str, packing: str = "on") -> ResolvedRun:
    values = {"packing": packing, "precision": "float32"}
    train = TrainSettings.model_validate(values)
    spec = RunSpec(recipe=text, weights="random", device="cpu", train=train)
    return resolve_run(spec, backbone, installed().recipe(text))


@pytest.mark.slow
@pytest.mark.usefixtures("eight_bits")
@pytest.mark.parametrize("kind", KINDS)
def test_codes_and_values_are_those_of_bitsandbytes(kind: str) -> None:
    from bitsandbytes import functional

    torch.manual_seed(0)
    linear = nn.Linear(128, 40)  # Its CPU kernel mixes up blocks that span two rows.
    layer = KINDS[kind](linear)
    weight = linear.weight.detach()
    if kind == "int8":
        codes, scales, _ = functional.int8_vectorwise_quant(weight)
        values = codes.float() * (scales / 127)[:, None]
    else:
        codes, state = functional.quantize_4bit(weight, quant_type="nf4", blocksize=64)
        codes, scales = codes.flatten(), state.absmax
        values = functional.dequantize_4bit(codes.view(-1, 1), state)
    assert torch.equal(layer.weight, codes)
    torch.testing.assert_close(layer.scales, scales)
    torch.testing.assert_close(layer.dequantized_weight(), values)


@pytest.mark.parametrize("kind", KINDS)
def test_sizes_that_no_block_divides_and_zeros_survive(kind: str) -> None:
    linear = nn.Linear(13, 5)
    with torch.no_grad():
        linear.weight[1:4] = 0
    layer = KINDS[kind](linear)
    error = (layer.dequantized_weight() - linear.weight).abs().max()
    assert error < (0.005 if kind == "int8" else 0.05)
    x = torch.randn(2, 3, 13, requires_grad=True)
    layer(x).square().sum().backward()
    assert layer.plain().weight.dtype == torch.float32
    assert layer.double().plain().weight.dtype == torch.float64
    layer.float()
    y = x.detach().clone().requires_grad_()
    layer.plain()(y).square().sum().backward()
    torch.testing.assert_close(x.grad, y.grad)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("packing", ["on", "off"])
def test_it_trains_as_a_plain_model_with_the_stored_values(
    shallow: Backbone, kind: str, packing: str
) -> None:
    """LoRA over codes and LoRA over plain layers of the same values have equal gradients."""
    text = f"lora_ff:r=4,dropout=0+lora_qv:r=4,dropout=0+{kind}"
    trainer = load_trainer(make_run(shallow, text, packing))
    layers = [m for m in trainer.model.modules() if isinstance(m, QuantizedLinear)]
    assert layers
    assert not any("wo" in name for name, m in trainer.model.named_modules() if m in layers)
    model: Any = trainer.model.eval()

    def step() -> tuple[float, list[Tensor]]:
        batch = trainer.engine.collate(EXAMPLES)
        loss = trainer.backward([batch], batch.target_tokens)
        gradients = [p.grad.clone() for p in trainer.trained.values() if p.grad is not None]
        for parameter in trainer.trained.values():
            parameter.grad = None
        return float(loss), gradients

    with torch.no_grad():
        for parameter in trainer.trained.values():
            parameter.add_(0.1 * torch.randn_like(parameter))
    loss, gradients = step()
    for name, module in list(model.named_modules()):
        if isinstance(module, QuantizedLinear):
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, module.plain())
    plain_loss, plain_gradients = step()
    assert loss == pytest.approx(plain_loss, rel=1e-5)
    assert len(gradients) == len(plain_gradients) == len(trainer.trained)
    for one, other in zip(gradients, plain_gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_merged_model_is_plain_and_computes_the_same(
    shallow: Backbone, make_shallow: Callable[[], Any], kind: str
) -> None:
    recipe = installed().recipe(f"lora_ff:r=4+lprun:encoder=1.3,decoder=2+{kind}")
    model = compose(make_shallow(), shallow, recipe).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    ids = torch.tensor([[5, 7, 11, 13, 17, 1]])

    def logits() -> Tensor:
        with torch.no_grad():
            return torch.as_tensor(model(input_ids=ids, decoder_input_ids=ids).logits)

    before = logits()
    for compressor in reversed(recipe.compressors):
        model = compressor.merge(model)
    torch.testing.assert_close(logits(), before, rtol=1e-4, atol=1e-4)
    plain = compose(make_shallow(), shallow, installed().recipe("lprun:encoder=1.3,decoder=2"))
    kinds = {name: type(module) for name, module in plain.named_modules()}
    assert {name: type(module) for name, module in model.named_modules()} == kinds


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.slow
def test_a_skeleton_has_the_same_numbers_and_a_plan_counts_the_bytes(
    shallow: Backbone, kind: str
) -> None:
    run = make_run(shallow, f"lora_ff+{kind}")
    skeleton = compose(shallow.skeleton(), shallow, run.recipe)
    trainer = load_trainer(run)
    counts = count_parameters(skeleton)
    assert counts == count_parameters(trainer.model)
    plain = count_parameters(compose(shallow.skeleton(), shallow, installed().recipe("lora_ff")))
    assert counts.total == plain.total
    assert counts.total_bytes < plain.total_bytes
    estimate = estimate_memory(run, skeleton, Step((tuple(EXAMPLES),)))
    batch = trainer.engine.collate(EXAMPLES)
    trainer.step([batch], batch.target_tokens, check=True)
    measured = memory_parts(trainer, [trainer.engine.collate(EXAMPLES)])
    assert estimate.parts.weights == measured.weights
    assert estimate.parts.total == pytest.approx(measured.total, rel=0.1)


@pytest.mark.parametrize("text", ["full+int8", "freeze+nf4", "oft+int8", "int8+nf4"])
def test_what_trains_or_reads_the_weights_is_refused(text: str) -> None:
    with pytest.raises(HarnessError, match="cannot be combined"):
        installed().recipe(text)


def test_a_recipe_that_would_train_nothing_is_refused(shallow: Backbone) -> None:
    with pytest.raises(HarnessError, match="nothing would be trained"):
        load_trainer(make_run(shallow, "int8+lprun:encoder=1.3,decoder=2"))
    with pytest.raises(HarnessError, match="read the weights"):
        load_trainer(make_run(shallow, "lora:dora=true+int8"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_method_that_trains_the_weights_is_told_whose_they_are(
    make_shallow: Callable[[], Any], shallow: Backbone, kind: str
) -> None:
    model = compose(make_shallow(), shallow, installed().recipe(kind))
    with pytest.raises(HarnessError, match=f"that {kind} stores in few bits cannot be trained"):
        model.requires_grad_(True)
    assert not any(
        parameter.requires_grad for parameter in model.requires_grad_(False).parameters()
    )
