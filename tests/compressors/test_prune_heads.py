"""Pruned heads: the right ones, gone as if they had never been there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, PreTrainedConfig

from harness import Backbone, HarnessError
from harness.api.plugins import installed
from harness.data.examples import Example
from harness.model.composition import compose, count_parameters

Apply = Callable[[Any, Backbone, str], Any]
IDS = torch.tensor([[5, 7, 11, 13, 17, 1], [8, 9, 31, 42, 44, 1]])
HEADS, WIDTH = 4, 8


@pytest.fixture
def four_heads(shallow: Backbone, monkeypatch: pytest.MonkeyPatch) -> Backbone:
    """A backbone with four heads, of 3 and 2 layers."""
    if shallow.name == "tiny-bart":
        pytest.skip("BART cannot have fewer heads; a test of its own")
    two = type(shallow).config

    def config(self: Backbone) -> PreTrainedConfig:
        values = two(self)
        values.num_heads = HEADS
        return values

    monkeypatch.setattr(type(shallow), "config", config)
    return shallow


@pytest.fixture
def make(four_heads: Backbone) -> Callable[[], Any]:
    def make() -> Any:
        torch.manual_seed(0)
        return four_heads.load("random")

    return make


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        output = model.eval()(input_ids=IDS, decoder_input_ids=IDS.flip(0))
    return torch.as_tensor(output.logits)


def parts(head: int) -> slice:
    return slice(head * WIDTH, (head + 1) * WIDTH)


def added(model: Any, layer: Any, examples: Sequence[Example]) -> list[float]:
    """Return the norm of what each head adds to the output of its attention."""
    states: list[torch.Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _, x: states.append(x[0][0].detach()))
    for example in examples:
        with torch.no_grad():
            model(input_ids=torch.tensor([example.source]), labels=torch.tensor([example.target]))
    handle.remove()
    values = torch.cat(states)
    return [
        float((values[:, parts(h)] @ layer.weight.detach()[:, parts(h)].T).norm())
        for h in range(HEADS)
    ]


def slopes(model: Any, layer: Any, examples: Sequence[Example]) -> list[float]:
    """Return the derivative of the loss by a factor on each head of each token, without sign."""
    total = torch.zeros(HEADS)
    for example in examples:
        factors = torch.ones(200, HEADS, requires_grad=True)

        def scaled(_: Any, x: Any, factors: torch.Tensor = factors) -> Any:
            return (x[0] * factors[: x[0].shape[1]].repeat_interleave(WIDTH, dim=1),)

        handle = layer.register_forward_pre_hook(scaled)
        target = torch.tensor([example.target])
        output = model(input_ids=torch.tensor([example.source]), labels=target)
        handle.remove()
        chosen = output.logits[0].log_softmax(-1)[range(len(example.target)), example.target]
        total += torch.autograd.grad(-chosen.sum(), factors)[0].abs().sum(0)
    return total.tolist()


def best(scores: Sequence[float]) -> list[int]:
    return sorted(sorted(range(HEADS), key=lambda h: -scores[h])[:2])


@pytest.mark.parametrize("by", ["taylor", "activation"])
def test_the_heads_kept_are_those_that_count_and_the_others_are_as_if_zero(
    four_heads: Backbone,
    make: Callable[[], Any],
    apply: Apply,
    examples: tuple[Example, ...],
    by: str,
) -> None:
    model = make().eval()
    score = slopes if by == "taylor" else added
    shared: dict[str, list[float]] = {}
    scores: dict[str, list[float]] = {}
    outputs = four_heads.modules(model, "self_attn.out")
    for name, layer in outputs.items():
        scores[name] = score(model, layer, examples)
        norm = sum(s * s for s in scores[name]) ** 0.5
        before = shared.get(name[:7], [0.0] * HEADS)
        shared[name[:7]] = [a + s / norm for a, s in zip(before, scores[name], strict=True)]
    kept = {name: best(shared[name[:7]]) for name in outputs}
    # Cross-attentions are chosen when the self-attentions have fewer heads.
    for name, layer in outputs.items():
        for head in set(range(HEADS)) - set(kept[name]):
            layer.weight.data[:, parts(head)] = 0  # type: ignore[operator]
    cross = four_heads.modules(model, "cross_attn.out")
    kept |= {name: best(score(model, layer, examples)) for name, layer in cross.items()}
    for name, layer in cross.items():
        for head in set(range(HEADS)) - set(kept[name]):
            layer.weight.data[:, parts(head)] = 0  # type: ignore[operator]
    pruned = apply(make(), four_heads, f"prune_heads:by={by},examples=3")
    torch.testing.assert_close(logits(pruned), logits(model), rtol=1e-4, atol=1e-5)
    assert {m.weight.shape for m in four_heads.modules(pruned, "self_attn.q").values()} == {
        torch.Size([2 * WIDTH, 16])
    }


def test_a_pruned_model_is_a_stock_model_that_generates(
    four_heads: Backbone, make: Callable[[], Any], apply: Apply, tmp_path: Path
) -> None:
    text = "lprun:encoder=2.3,decoder=all+prune_ffn+prune_heads:keep=0.75"
    pruned = apply(make(), four_heads, text).eval()
    pruned.save_pretrained(tmp_path)
    loaded, report = AutoModelForSeq2SeqLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert not report["mismatched_keys"]
    torch.testing.assert_close(logits(loaded), logits(pruned), rtol=0, atol=0)
    same = {"min_new_tokens": 6, "max_new_tokens": 6, "num_beams": 1, "do_sample": False}
    cached, plain = (pruned.generate(input_ids=IDS, use_cache=c, **same) for c in (True, False))
    assert torch.equal(cached, plain)


def test_a_skeleton_has_as_many_parameters_with_lora(
    four_heads: Backbone, make: Callable[[], Any], apply: Apply
) -> None:
    text = "lora_qv:r=2+prune_heads"
    skeleton = compose(four_heads.skeleton(), four_heads, installed().recipe(text))
    model = apply(make(), four_heads, text)
    assert count_parameters(model) == count_parameters(skeleton)
    model(input_ids=IDS, labels=IDS).loss.backward()
    assert all((p.grad is not None) == p.requires_grad for p in model.parameters())


def test_keeping_all_changes_nothing(
    shallow: Backbone, make_shallow: Callable[[], Any], apply: Apply
) -> None:
    pruned = apply(make_shallow(), shallow, "prune_heads:keep=1")
    before = make_shallow().state_dict()
    assert all(torch.equal(value, before[name]) for name, value in pruned.state_dict().items())


@pytest.mark.parametrize("backbone", ["bart"], indirect=True)
def test_bart_refuses(shallow: Backbone) -> None:
    with pytest.raises(HarnessError, match="fewer attention heads"):
        compose(shallow.skeleton(), shallow, installed().recipe("prune_heads"))
