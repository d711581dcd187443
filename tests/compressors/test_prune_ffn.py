"""Pruned neurons: the right ones, gone as if they had never been there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM

from harness import Backbone, HarnessError
from harness.api.plugins import installed
from harness.data.examples import Example
from harness.model.composition import compose, count_parameters

Apply = Callable[[Any, Backbone, str], Any]
IDS = torch.tensor([[5, 7, 11, 13, 17, 1], [8, 9, 31, 42, 44, 1]])


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        output = model.eval()(input_ids=IDS, decoder_input_ids=IDS.flip(0))
    return torch.as_tensor(output.logits)


def contributions(model: Any, layer: Any, examples: tuple[Example, ...]) -> torch.Tensor:
    """Return what each neuron adds to the output of its layer, (neurons, tokens x width)."""
    parts = []
    handle = layer.register_forward_pre_hook(lambda _, x: parts.append(x[0][0].detach()))
    for example in examples:
        with torch.no_grad():
            model(input_ids=torch.tensor([example.source]), labels=torch.tensor([example.target]))
    handle.remove()
    activations = torch.cat(parts)
    return torch.stack(
        [torch.outer(activations[:, j], layer.weight[:, j]).flatten() for j in range(24)]
    )


def scales_and_slopes(model: Any, layer: Any, examples: tuple[Example, ...]) -> torch.Tensor:
    """Return for each token and neuron the derivative of the loss by a factor on the neuron."""
    rows = []
    for example in examples:
        factors: list[torch.Tensor] = []

        def scaled(_: Any, x: Any, factors: list[torch.Tensor] = factors) -> Any:
            factors.append(torch.ones_like(x[0], requires_grad=True))
            return (x[0] * factors[0],)

        handle = layer.register_forward_pre_hook(scaled)
        target = torch.tensor([example.target])
        output = model(input_ids=torch.tensor([example.source]), labels=target)
        logarithms = output.logits[0].log_softmax(-1)
        loss = -logarithms[range(len(example.target)), example.target].sum()
        handle.remove()
        rows.append(torch.autograd.grad(loss, factors)[0][0])
    return torch.cat(rows)


def best(scores: torch.Tensor, number: int) -> list[int]:
    return sorted(sorted(range(len(scores)), key=lambda j: -scores[j].item())[:number])


@pytest.mark.parametrize("by", ["activation", "taylor", "weight"])
def test_the_neurons_kept_are_those_that_count_and_the_others_are_as_if_zero(
    shallow: Backbone,
    make_shallow: Callable[[], Any],
    apply: Apply,
    examples: tuple[Example, ...],
    by: str,
) -> None:
    model = make_shallow().eval()
    expected = []
    for layer in shallow.modules(model, "ffn.out").values():
        if by == "weight":
            scores = layer.weight.norm(dim=0)  # type: ignore[operator]
        elif by == "activation":
            scores = contributions(model, layer, examples).norm(dim=1)
        else:
            scores = scales_and_slopes(model, layer, examples).abs().sum(0)
        expected.append(best(scores, 9))
    for layer, kept in zip(shallow.modules(model, "ffn.out").values(), expected, strict=True):
        with torch.no_grad():
            layer.weight[:, [j for j in range(24) if j not in kept]] = 0  # type: ignore[operator]
    pruned = apply(make_shallow(), shallow, f"prune_ffn:keep=0.375,by={by},examples=3")
    for role in ("ffn.in", "ffn.out"):
        for module in shallow.modules(pruned, role).values():
            assert 9 in module.weight.shape  # type: ignore[operator]
    torch.testing.assert_close(logits(pruned), logits(model), rtol=1e-4, atol=1e-5)


def test_a_pruned_model_is_a_stock_model(
    shallow: Backbone, make_shallow: Callable[[], Any], apply: Apply, tmp_path: Path
) -> None:
    text = "lprun:select=importance,encoder_keep=2,decoder_keep=1+prune_ffn:keep=0.5"
    pruned = apply(make_shallow(), shallow, text)
    pruned.save_pretrained(tmp_path)
    loaded, report = AutoModelForSeq2SeqLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert not report["mismatched_keys"]
    torch.testing.assert_close(logits(loaded), logits(pruned), rtol=0, atol=0)


def test_a_skeleton_has_as_many_parameters_with_lora(
    shallow: Backbone, make_shallow: Callable[[], Any], apply: Apply
) -> None:
    text = "lora_ff:r=2+lprun:encoder=1.3,decoder=2+prune_ffn:keep=0.7"
    skeleton = compose(shallow.skeleton(), shallow, installed().recipe(text))
    model = apply(make_shallow(), shallow, text)
    assert count_parameters(model) == count_parameters(skeleton)
    model(input_ids=IDS, labels=IDS).loss.backward()
    assert all((p.grad is not None) == p.requires_grad for p in model.parameters())


def test_keeping_all_changes_nothing(
    shallow: Backbone, make_shallow: Callable[[], Any], apply: Apply
) -> None:
    pruned = apply(make_shallow(), shallow, "prune_ffn:keep=1")
    before = make_shallow().state_dict()
    assert all(torch.equal(value, before[name]) for name, value in pruned.state_dict().items())


def test_a_backbone_that_declares_no_field_refuses(
    shallow: Backbone,
    make_shallow: Callable[[], Any],
    apply: Apply,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(type(shallow), "width_fields", {})
    with pytest.raises(HarnessError, match="narrower"):
        apply(make_shallow(), shallow, "prune_ffn:by=weight")


def test_all_layers_of_a_stack_have_one_width(
    backbone: Backbone, make_model: Callable[[], Any], apply: Apply
) -> None:
    pruned = apply(make_model(), backbone, "prune_ffn:keep=0.3,by=weight")
    widths = {m.in_features for m in backbone.modules(pruned, "ffn.out").values()}
    assert widths == {7}
