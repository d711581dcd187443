"""The packed engine against the padded one, parameter by parameter."""

from __future__ import annotations

import gc
import random
import weakref
from collections.abc import Callable, Sequence
from typing import Literal

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from harness import Backbone, HarnessError
from harness.api.plugins import installed
from harness.api.recipe import parse
from harness.data.examples import Example
from harness.model.composition import compose
from harness.training.engines.packed import PackedEngine, choose_engine
from harness.training.engines.padded import Engine, PaddedEngine

RECIPES = ["full", "lprun", "lora_qv", "lora_ff", "lora_qv+lprun", "lora_ff+lprun"]
# Neither stack's sequences are longest in order, one source and one target are single tokens.
LENGTHS = [(17, 9), (3, 1), (30, 14), (1, 5)]
CPU = torch.device("cpu")
MakeModel = Callable[[], PreTrainedModel]


def make_examples(lengths: Sequence[tuple[int, int]] = LENGTHS) -> list[Example]:
    rng = random.Random(0)

    def text(length: int) -> list[int]:
        return [*rng.choices(range(3, 48), k=length - 1), 1]

    return [Example(text(source), text(target)) for source, target in lengths]


def composed(model: PreTrainedModel, backbone: Backbone, recipe: str) -> PreTrainedModel:
    """Apply a recipe and move LoRA's B away from zero, where half of the gradients vanish."""
    model = compose(model, backbone, parse(recipe, installed().compressors))
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return model


def engine_for(
    model: PreTrainedModel,
    backbone: Backbone,
    packing: Literal["auto", "on", "off"] = "auto",
    dtype: torch.dtype = torch.float32,
) -> Engine:
    pad = model.config.pad_token_id
    return choose_engine(
        model, backbone, device=CPU, dtype=dtype, pad_token_id=pad, packing=packing
    )


def loss_and_gradients(
    model: PreTrainedModel, engine: Engine, micro_batches: Sequence[Sequence[Example]]
) -> tuple[float, dict[str, Tensor]]:
    """Without dropout; over all micro-batches together."""
    model.eval().zero_grad()
    tokens = sum(len(e.target) for batch in micro_batches for e in batch)
    total = 0.0
    for examples in micro_batches:
        loss = engine.loss_sum(model, engine.collate(examples)) / tokens
        loss.backward()
        total += loss.item()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    return total, {name: p.grad.clone() for name, p in trained.items() if p.grad is not None}


def worst_error(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> tuple[float, str]:
    """The largest relative error of a parameter's gradient, and which parameter that is.

    A gradient that is zero but for rounding (of a key's bias: softmax cancels it) is measured
    against the largest gradient.
    """
    assert actual.keys() == expected.keys()
    largest = max(g.norm() for g in expected.values())
    return max(
        (
            float((actual[name] - g).norm() / (g.norm() if g.norm() > 1e-5 * largest else largest)),
            name,
        )
        for name, g in expected.items()
    )


@pytest.mark.parametrize("recipe", RECIPES)
def test_loss_and_every_gradient_equal_the_padded_ones(
    backbone: Backbone, make_model: MakeModel, recipe: str
) -> None:
    model = composed(make_model(), backbone, recipe)
    examples = make_examples()
    padded = engine_for(model, backbone, "off")
    loss, gradients = loss_and_gradients(model, padded, [examples])
    packed = engine_for(model, backbone, "on")
    packed_loss, packed_gradients = loss_and_gradients(model, packed, [examples])
    assert isinstance(packed, PackedEngine)
    assert packed_loss == pytest.approx(loss, rel=1e-5)
    assert all(g.norm() > 0 for g in gradients.values())
    assert worst_error(packed_gradients, gradients) < (1e-4, "")


@pytest.mark.parametrize("recipe", ["full", "lora_qv+lprun"])
def test_loss_and_gradients_do_not_depend_on_how_a_step_is_cut(
    backbone: Backbone, make_model: MakeModel, recipe: str
) -> None:
    model = composed(make_model(), backbone, recipe)
    engine = engine_for(model, backbone)
    examples = make_examples()
    loss, gradients = loss_and_gradients(model, engine, [examples])
    for cut in ([examples[:1], examples[1:]], [[e] for e in examples]):
        cut_loss, cut_gradients = loss_and_gradients(model, engine, cut)
        assert cut_loss == pytest.approx(loss, rel=1e-5)
        assert worst_error(cut_gradients, gradients) < (1e-4, "")


@pytest.mark.parametrize("recipe", ["full", "lora_ff+lprun"])
def test_bfloat16_is_as_near_as_autocast_is(
    backbone: Backbone, make_model: MakeModel, recipe: str
) -> None:
    model = composed(make_model(), backbone, recipe)
    examples = make_examples([(17, 9), (30, 9)])
    exact, exact_gradients = loss_and_gradients(
        model, engine_for(model, backbone, "off"), [examples]
    )

    def distance(packing: Literal["on", "off"]) -> tuple[float, float]:
        engine = engine_for(model, backbone, packing, torch.bfloat16)
        loss, gradients = loss_and_gradients(model, engine, [examples])
        squares = [
            ((gradients[n] - g).square().sum(), g.square().sum())
            for n, g in exact_gradients.items()
        ]
        off, norm = (torch.stack(parts).sum() for parts in zip(*squares, strict=True))
        return abs(loss / exact - 1), float((off / norm).sqrt())

    packed, autocast = distance("on"), distance("off")
    assert packed[0] < 2**-8  # bfloat16's own relative precision
    assert packed[1] < max(2 * autocast[1], 2e-2)


def test_frozen_weights_are_stored_in_bfloat16_and_nothing_else(
    backbone: Backbone, make_model: MakeModel
) -> None:
    model = composed(make_model(), backbone, "lora_ff")
    engine_for(model, backbone, dtype=torch.bfloat16)
    for name, parameter in model.named_parameters():
        is_embedding = "shared" in name or "embed" in name or "relative" in name
        is_norm = "norm" in name
        exact = parameter.requires_grad or is_embedding or is_norm
        expected = torch.float32 if exact else torch.bfloat16
        assert parameter.dtype == expected, name


def test_release_gives_the_model_back(backbone: Backbone, make_model: MakeModel) -> None:
    model = composed(make_model(), backbone, "lora_ff").eval()
    source = torch.tensor([make_examples()[0].source])

    def generated() -> list[list[int]]:
        tokens = model.generate(source, max_new_tokens=6, num_beams=2, do_sample=False)
        return tokens.tolist()  # type: ignore[no-any-return]

    before = generated()
    implementation = model.config._attn_implementation
    weights = {name: t.clone() for name, t in model.state_dict().items()}
    engine = engine_for(model, backbone)
    loss_and_gradients(model, engine, [make_examples()])
    with pytest.raises(HarnessError, match="packed"):
        generated()
    engine.unpatch(model)
    engine.unpatch(model)
    assert generated() == before
    assert model.config._attn_implementation == implementation
    assert not any("forward" in vars(module) for module in model.modules())
    assert not any(module._forward_pre_hooks for module in model.modules())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, weights[name]), name


def test_release_in_bfloat16_leaves_float32_weights_that_round_to_what_was_used(
    backbone: Backbone, make_model: MakeModel
) -> None:
    model = composed(make_model(), backbone, "lora_qv").eval()
    weights = {name: t.clone() for name, t in model.state_dict().items()}
    engine = engine_for(model, backbone, dtype=torch.bfloat16)
    assert model.state_dict().keys() == weights.keys()
    used = {name: t.clone() for name, t in model.state_dict().items()}
    engine.unpatch(model)
    for name, tensor in model.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, used[name].float()), name


def test_preparing_twice_is_preparing_once(backbone: Backbone, make_model: MakeModel) -> None:
    model = composed(make_model(), backbone, "lora_ff")
    first = engine_for(model, backbone)
    expected, _ = loss_and_gradients(model, first, [make_examples()])
    second = engine_for(model, backbone)
    second.patch(model)
    loss, _ = loss_and_gradients(model, second, [make_examples()])
    assert loss == expected
    second.unpatch(model)
    assert not any(module._forward_pre_hooks for module in model.modules())
    second.patch(model)
    assert loss_and_gradients(model, second, [make_examples()])[0] == expected


def test_a_backbone_that_cannot_pack_is_padded(
    backbone: Backbone, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(backbone), "restart_positions", Backbone.restart_positions)
    model = make_model()
    assert isinstance(engine_for(model, backbone, "auto"), PaddedEngine)
    with pytest.raises(HarnessError, match="cannot be packed"):
        engine_for(model, backbone, "on")


def test_the_batch_knows_its_tokens(backbone: Backbone, make_model: MakeModel) -> None:
    examples = make_examples()
    engine = engine_for(make_model(), backbone)
    batch = engine.collate(examples).to(CPU)
    assert batch.source_tokens == sum(source for source, _ in LENGTHS)
    assert batch.target_tokens == sum(target for _, target in LENGTHS)
    assert batch.examples == len(LENGTHS)
    assert batch.tensors["input_ids"].tolist() == [i for e in examples for i in e.source]
    assert batch.tensors["labels"].tolist() == [i for e in examples for i in e.target]


def test_a_model_is_freed_with_its_engine(backbone: Backbone, make_model: MakeModel) -> None:
    model = make_model()
    engine = engine_for(model, backbone)
    assert isinstance(engine, PackedEngine)
    freed = weakref.ref(model), weakref.ref(engine)
    del model, engine
    gc.collect()
    assert [reference() for reference in freed] == [None, None]
