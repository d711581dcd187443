"""Layers chosen by calibration examples, against computations without padding and hooks."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch.nn import functional

from compressors.learned_gates import gate_scores, gated
from harness import STACKS, Backbone, HarnessError, Stack
from harness.api.plugins import installed
from harness.data.examples import Example
from harness.model.composition import compose, count_parameters, kept_layers, layers

Apply = Callable[[Any, Backbone, str], Any]
DROPS: dict[Stack, int] = {"encoder": 2, "decoder": 1}


def chosen(
    apply: Apply, make: Callable[[], Any], backbone: Backbone, text: str
) -> dict[Stack, list[int]]:
    model = make()
    before = layers(model, backbone)
    return dict(kept_layers(before, layers(apply(model, backbone, text), backbone)))


def states(model: Any, example: Example) -> dict[Stack, list[torch.Tensor]]:
    """Return the states between layers as transformers returns them, of one example."""
    last: dict[str, torch.Tensor] = {}
    for stack in STACKS:
        norm = getattr(
            model.get_encoder() if stack == "encoder" else model.get_decoder(),
            "final_layer_norm",
            None,
        )
        if norm is not None:
            norm.register_forward_pre_hook(lambda _, x, stack=stack: last.update({stack: x[0]}))
    with torch.no_grad():
        output = model.eval()(
            input_ids=torch.tensor([example.source]),
            labels=torch.tensor([example.target]),
            output_hidden_states=True,
        )
    between = {"encoder": output.encoder_hidden_states, "decoder": output.decoder_hidden_states}
    # T5's last state is returned after the stack's norm.
    return {
        stack: [x[0] for x in (*between[stack][:-1], last.get(stack, between[stack][-1]))]
        for stack in STACKS
    }


def mean(
    model: Any,
    examples: Sequence[Example],
    stack: Stack,
    first: int,
    second: int,
    function: Callable[..., Any],
) -> float:
    values = []
    for example in examples:
        own = states(model, example)[stack]
        cosine = functional.cosine_similarity(own[first], own[second], dim=-1)
        values += function(cosine).tolist()
    return sum(values) / len(values)


def test_importance_is_one_minus_the_mean_cosine(
    apply: Apply, examples: tuple[Example, ...], shallow: Backbone, make_shallow: Callable[[], Any]
) -> None:
    model = make_shallow()
    expected = {}
    for stack, drop in DROPS.items():
        depth = len(shallow.layers(model, stack))
        score = {
            i: mean(model, examples, stack, i - 1, i, lambda c: 1 - c) for i in range(1, depth + 1)
        }
        expected[stack] = sorted(sorted(score, key=score.__getitem__)[drop:])
    text = "lprun:select=importance,encoder_keep=1,decoder_keep=1,examples=3"
    assert chosen(apply, make_shallow, shallow, text) == expected


def test_angular_drops_the_run_with_the_smallest_angle(
    apply: Apply, examples: tuple[Example, ...], backbone: Backbone, make_model: Callable[[], Any]
) -> None:
    model = make_model()
    expected = {}
    for stack in STACKS:
        depth = len(backbone.layers(model, stack))
        angle = {
            i: mean(model, examples, stack, i, i + 3, lambda c: c.clamp(-1, 1).arccos() / torch.pi)
            for i in range(depth - 2)
        }
        first = min(angle, key=angle.__getitem__)
        expected[stack] = [i for i in range(1, depth + 1) if not first < i <= first + 3]
    assert chosen(apply, make_model, backbone, "lprun:select=angular,drop=3,examples=3") == expected


def total_loss(model: Any, examples: Sequence[Example]) -> float:
    total = 0.0
    for example in examples:
        with torch.no_grad():
            labels = torch.tensor([example.target])
            logits = model.eval()(input_ids=torch.tensor([example.source]), labels=labels).logits
        total += float(functional.cross_entropy(logits[0], labels[0], reduction="sum"))
    return total


def test_loss_drops_one_by_one_the_layer_that_is_missed_least(
    apply: Apply, examples: tuple[Example, ...], shallow: Backbone, make_shallow: Callable[[], Any]
) -> None:
    kept = {
        stack: list(range(1, len(shallow.layers(make_shallow(), stack)) + 1)) for stack in STACKS
    }
    left = dict(DROPS)
    while any(left.values()):
        losses = {}
        for stack, number in itertools.chain(
            *([(s, n) for n in kept[s]] for s in STACKS if left[s])
        ):
            model = make_shallow()
            for other in STACKS:
                numbers = [n for n in kept[other] if (other, n) != (stack, number)]
                shallow.keep_layers(model, other, numbers)
            losses[stack, number] = total_loss(model, examples)
        stack, number = min(losses, key=losses.__getitem__)
        kept[stack].remove(number)
        left[stack] -= 1
    text = "lprun:select=loss,encoder_keep=1,decoder_keep=1,examples=3"
    assert chosen(apply, make_shallow, shallow, text) == kept


def test_one_stack_by_data_and_one_by_position(
    apply: Apply, backbone: Backbone, make_model: Callable[[], Any]
) -> None:
    kept = chosen(apply, make_model, backbone, "lprun:select=importance,encoder=all,decoder_keep=4")
    assert kept["encoder"] == list(range(1, 9))
    assert len(kept["decoder"]) == 4


class Gated(torch.nn.Module):
    """A layer whose addition to its input is multiplied by a number."""

    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.gate = torch.nn.Parameter(torch.ones(()))

    def forward(self, states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        output = self.layer(states, *args, **kwargs)
        first, *others = output if isinstance(output, tuple) else (output,)
        mixed = (1 - self.gate) * states + self.gate * first
        return (mixed, *others) if isinstance(output, tuple) else mixed


def test_learned_drops_the_layers_whose_gates_close(
    apply: Apply, examples: tuple[Example, ...], shallow: Backbone, make_shallow: Callable[[], Any]
) -> None:
    steps, tokens = 8, sum(len(example.target) for example in examples)
    model = make_shallow().eval().requires_grad_(False)
    wrapped: dict[Stack, list[Gated]] = {stack: [] for stack in STACKS}
    for stack in STACKS:
        modules = shallow.layers(model, stack)
        for number, layer in enumerate(modules):
            wrapped[stack].append(Gated(layer))
            modules[number] = wrapped[stack][-1]
    gates: list[torch.Tensor] = [layer.gate for layers in wrapped.values() for layer in layers]
    optimizer = torch.optim.Adam(gates, lr=0.05)
    sums = [0.0] * len(gates)
    for _ in range(steps):
        optimizer.zero_grad()
        for example in examples:
            labels = torch.tensor([example.target])
            logits = model(input_ids=torch.tensor([example.source]), labels=labels).logits
            entropy = functional.cross_entropy(logits[0], labels[0], reduction="sum")
            (entropy / tokens).backward()
        (0.1 * torch.stack(gates).abs().sum()).backward()
        optimizer.step()
        sums = [total + abs(float(gate.detach())) for total, gate in zip(sums, gates, strict=True)]
    expected: dict[Stack, list[float]] = {
        "encoder": [total / steps for total in sums[: len(wrapped["encoder"])]],
        "decoder": [total / steps for total in sums[len(wrapped["encoder"]) :]],
    }
    fresh = make_shallow()
    batches = [
        {
            "input_ids": torch.nn.utils.rnn.pad_sequence(
                [torch.tensor(e.source) for e in examples], batch_first=True
            ),
            "attention_mask": torch.nn.utils.rnn.pad_sequence(
                [torch.ones(len(e.source), dtype=torch.long) for e in examples], batch_first=True
            ),
            "labels": torch.nn.utils.rnn.pad_sequence(
                [torch.tensor(e.target) for e in examples], batch_first=True, padding_value=-100
            ),
        }
    ]
    found = gate_scores(fresh, shallow, batches, STACKS, steps)
    for stack in STACKS:
        assert found[stack] == pytest.approx(expected[stack], rel=1e-4)
    kept = {}
    for stack, drop in DROPS.items():
        order = sorted(range(len(expected[stack])), key=expected[stack].__getitem__)
        kept[stack] = sorted(1 + number for number in order[drop:])
    text = f"lprun:select=learned,encoder_keep=1,decoder_keep=1,examples=3,steps={steps}"
    assert chosen(apply, make_shallow, shallow, text) == kept


def test_a_gate_of_0_leaves_the_layer_out(
    examples: tuple[Example, ...], shallow: Backbone, make_shallow: Callable[[], Any]
) -> None:
    model, without = make_shallow(), make_shallow()
    shallow.keep_layers(without, "encoder", [1, 3])
    with gated(model, shallow, {"encoder": torch.tensor([1.0, 0.0, 1.0])}):
        assert total_loss(model, examples) == pytest.approx(total_loss(without, examples), rel=1e-6)
    with gated(model, shallow, {"decoder": torch.ones(2)}):
        loss = total_loss(model, examples)
    assert loss == pytest.approx(total_loss(make_shallow(), examples), rel=1e-6)


@pytest.mark.parametrize("select", ["importance", "angular", "loss", "learned"])
def test_a_skeleton_has_as_many_parameters(
    apply: Apply, shallow: Backbone, make_shallow: Callable[[], Any], select: str
) -> None:
    text = f"lora_ff:r=2+lprun:select={select},encoder_keep=2,decoder_keep=1,examples=3"
    model = apply(make_shallow(), shallow, text)
    skeleton = compose(shallow.skeleton(), shallow, installed().recipe(text))
    assert count_parameters(model) == count_parameters(skeleton)
    assert not any(
        p.requires_grad for n, p in model.named_parameters() if "lora" not in n and "bias" not in n
    )


@pytest.mark.parametrize("select", ["loss", "learned,steps=2"])
def test_a_model_is_left_as_it_was(
    apply: Apply, backbone: Backbone, make_model: Callable[[], Any], select: str
) -> None:
    model = make_model().train()
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    text = f"lprun:select={select},encoder_keep=7,decoder=all,examples=3"
    pruned = apply(model, backbone, text)
    decoder = {n: w for n, w in pruned.named_parameters() if "decoder" in n}
    assert all(torch.equal(weight, before[name]) for name, weight in decoder.items())
    assert all(weight.requires_grad for weight in pruned.parameters())
    assert pruned.training
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in pruned.modules())
    assert all(p.grad is None for p in pruned.parameters())


@pytest.mark.parametrize(
    "text",
    [
        "lprun:select=loss,strategy=top",
        "lprun:select=loss,encoder=1-3,encoder_keep=3",
        "lprun:encoder_keep=3",
        "lprun:select=loss,encoder_keep=9",
        "lprun:select=angular,drop=8",
    ],
)
def test_what_contradicts_itself_is_an_error(
    apply: Apply, backbone: Backbone, make_model: Callable[[], Any], text: str
) -> None:
    with pytest.raises(HarnessError, match="lprun"):
        apply(make_model(), backbone, text)


def test_the_default_is_written_as_before() -> None:
    assert str(installed().recipe("lprun:select=alternate")) == "lprun"
    assert not installed().recipe("lprun").needs
