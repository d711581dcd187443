"""Layer pruning: which layers go, and a pruned model that is as if built that deep."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForSeq2SeqLM, PreTrainedConfig

from compressors.lprun import kept_layers
from harness import STACKS, Backbone, HarnessError, Stack
from harness.api.plugins import installed
from harness.api.recipe import parse
from harness.model.composition import compose

RECIPES = [
    pytest.param("lprun", marks=pytest.mark.slow),
    pytest.param("lprun:strategy=bottom", marks=pytest.mark.slow),
    "lprun:strategy=every,drop=5",
    "lprun:encoder=2.4-6,decoder=all",
    pytest.param("lprun:encoder=all,decoder=3", marks=pytest.mark.slow),
]
IDS = torch.tensor([[5, 7, 11, 13, 17, 1], [8, 9, 31, 42, 44, 1]])


def prune(model: Any, backbone: Backbone, text: str) -> Any:
    return compose(model, backbone, parse(text, installed().compressors)).eval()


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        output = model.eval()(input_ids=IDS, decoder_input_ids=IDS.flip(0))
    return torch.as_tensor(output.logits)


@pytest.mark.parametrize(
    ("depth", "kept"),
    [
        # Zhu et al. 2023, table 2.
        (12, [1, 2, 3, 5, 7, 9, 11, 12]),
        (24, [1, 2, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 24]),
        # By its rule: every even layer from the fourth to the last but two goes.
        (6, [1, 2, 3, 5, 6]),
        (8, [1, 2, 3, 5, 7, 8]),
        (7, [1, 2, 3, 5, 6, 7]),
    ],
)
def test_the_alternating_pattern(depth: int, kept: list[int]) -> None:
    assert kept_layers(depth, "alternating") == kept


@given(st.integers(2, 64), st.data())
def test_every_strategy_keeps_the_number_asked_for(depth: int, data: st.DataObject) -> None:
    drop = data.draw(st.integers(1, depth - 1))
    kept = {
        choice: kept_layers(depth, choice, drop) for choice in ("top", "middle", "bottom", "every")
    }
    for layers in kept.values():
        assert len(layers) == depth - drop
        assert layers == sorted(set(layers))
        assert 1 <= layers[0] <= layers[-1] <= depth
    assert kept["top"][0] == kept["every"][0] == kept["middle"][0] == 1
    dropped = sorted(set(range(1, depth + 1)) - set(kept["middle"]))
    assert dropped == list(range(dropped[0], dropped[0] + drop))
    assert 0 <= (dropped[0] - 1) - (depth - dropped[-1]) <= 1
    assert kept["bottom"][-1] == depth
    gaps = [b - a for a, b in zip(kept["every"], kept["every"][1:], strict=False)]
    assert not gaps or max(gaps) - min(gaps) <= 1


@given(st.sets(st.integers(1, 30), min_size=1))
def test_a_keep_list_reads_back(layers: set[int]) -> None:
    text = ".".join(map(str, sorted(layers)))
    assert kept_layers(30, text) == sorted(layers)


@pytest.mark.parametrize(
    ("depth", "choice", "drop"),
    [
        (5, "alternating", None),
        (12, "alternating", 2),
        (12, "top", 12),
        (12, "top", 0),
        (4, "every", None),
        (12, "1-13", None),
        (12, "0-3", None),
        (12, "3.2", None),
        (12, "2.2", None),
        (12, "5-4", None),
    ],
)
def test_what_a_stack_cannot_satisfy_is_an_error(depth: int, choice: str, drop: int | None) -> None:
    with pytest.raises(HarnessError, match="lprun"):
        kept_layers(depth, choice, drop)


@pytest.mark.parametrize("text", RECIPES)
def test_a_pruned_model_equals_one_built_that_deep_from_the_kept_layers(
    backbone: Backbone, make_model: Callable[[], Any], text: str
) -> None:
    original = make_model()
    paths = {"encoder": "encoder.block", "decoder": "decoder.block"}
    if backbone.name == "tiny-bart":
        paths = {"encoder": "model.encoder.layers", "decoder": "model.decoder.layers"}
    before = {stack: list(backbone.layers(original, stack)) for stack in STACKS}
    weights = original.state_dict()
    pruned = prune(original, backbone, text)

    config = backbone.config()
    expected: dict[str, torch.Tensor] = dict(weights)
    for stack in STACKS:
        path = paths[stack]
        kept = [before[stack].index(layer) for layer in backbone.layers(pruned, stack)]
        config_fields = {
            "tiny-t5": {"encoder": "num_layers", "decoder": "num_decoder_layers"},
            "tiny-bart": {"encoder": "encoder_layers", "decoder": "decoder_layers"},
        }
        setattr(config, config_fields[backbone.name][stack], len(kept))
        for new, old in enumerate(kept):
            for key, value in weights.items():
                if key.startswith(f"{path}.{old}."):
                    expected[key.replace(f"{path}.{old}.", f"{path}.{new}.", 1)] = value
        if backbone.name == "tiny-t5":
            # The stack's position bias lives in its first block, whichever that is.
            bias = f"{path}.0.layer.0.SelfAttention.relative_attention_bias.weight"
            expected[bias] = weights[bias]

    class Shallow(type(backbone)):  # type: ignore[misc]
        def config(self) -> PreTrainedConfig:
            return config

    reference = Shallow(backbone.reference).load("random")
    reference.load_state_dict({key: expected[key] for key in reference.state_dict()})

    torch.testing.assert_close(logits(pruned), logits(reference), rtol=0, atol=0)
    assert pruned.state_dict().keys() == reference.state_dict().keys()


@pytest.mark.parametrize("text", RECIPES)
def test_a_pruned_model_survives_saving(
    backbone: Backbone, make_model: Callable[[], Any], tmp_path: Any, text: str
) -> None:
    pruned = prune(make_model(), backbone, text)
    pruned.save_pretrained(tmp_path)
    loaded, report = AutoModelForSeq2SeqLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    torch.testing.assert_close(logits(loaded), logits(pruned), rtol=0, atol=0)


@pytest.mark.parametrize("text", RECIPES)
def test_generation_with_and_without_cache_agrees(
    backbone: Backbone, make_model: Callable[[], Any], text: str
) -> None:
    pruned = prune(make_model(), backbone, text)
    same = {"min_new_tokens": 12, "max_new_tokens": 12, "num_beams": 1, "do_sample": False}
    returned = {"return_dict_in_generate": True, "output_logits": True}
    cached, plain = (
        pruned.generate(input_ids=IDS, use_cache=use_cache, **same, **returned)
        for use_cache in (True, False)
    )
    assert torch.equal(cached.sequences, plain.sequences)
    for with_cache, without in zip(cached.logits, plain.logits, strict=True):
        torch.testing.assert_close(with_cache, without, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("backbone", ["t5", "gated-t5"], indirect=True)
def test_the_position_bias_of_a_stack_moves_when_its_first_block_goes(
    make_model: Callable[[], Any], backbone: Backbone
) -> None:
    model = make_model()

    def attentions(model: Any, stack: Stack) -> list[Any]:
        blocks: list[Any] = list(backbone.layers(model, stack))
        return [block.layer[0].SelfAttention for block in blocks]

    biases = {stack: attentions(model, stack)[0].relative_attention_bias for stack in STACKS}
    pruned = prune(model, backbone, "lprun:strategy=bottom")
    for stack in STACKS:
        first, *others = attentions(pruned, stack)
        assert first.relative_attention_bias is biases[stack]
        assert first.has_relative_attention_bias
        assert not any(attention.has_relative_attention_bias for attention in others)


def test_all_that_is_left_is_trained(backbone: Backbone, make_model: Callable[[], Any]) -> None:
    pruned = prune(make_model(), backbone, "lprun")
    pruned(input_ids=IDS, labels=IDS).loss.backward()
    without = {name for name, p in pruned.named_parameters() if p.grad is None}
    assert without == set()
