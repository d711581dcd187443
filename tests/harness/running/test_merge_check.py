"""What a run hands over, compared with what was evaluated."""

import pytest
import torch
from torch import Tensor

from harness import Backbone
from harness.api.plugins import installed
from harness.api.recipe import parse
from harness.data.examples import Example
from harness.model.composition import compose
from harness.running.merge_check import check_merge, load_trained
from harness.spec.run_spec import RunSpec, TrainSettings
from harness.training.trainer import Trainer, load_trainer

EXAMPLES = [Example([7, 8, 9, 1], [10, 11, 1]), Example([12, 13, 1], [14, 1])]


def _trained(backbone: Backbone, text: str, precision: str) -> tuple[Trainer, RunSpec]:
    train = TrainSettings(precision=precision)  # type: ignore[arg-type]
    spec = RunSpec(recipe=text, weights="random", device="cpu", train=train)
    trainer = load_trainer(backbone, parse(text, installed().compressors), spec)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in trainer.trained.values():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    trainer.engine.unpatch(trainer.model)
    return trainer, spec


def _logits(model: torch.nn.Module) -> Tensor:
    ids = torch.tensor([EXAMPLES[0].source])
    with torch.inference_mode():
        found: Tensor = model.eval()(input_ids=ids, decoder_input_ids=ids).logits
    return found


@pytest.mark.parametrize("text", ["lora_ff+lprun", "full"])
def test_the_saved_weights_on_the_published_backbone_are_what_bfloat16_is_compared_with(
    backbone: Backbone, text: str
) -> None:
    recipe = parse(text, installed().compressors)
    trainer, spec = _trained(backbone, text, "bfloat16")
    saved = {name: value.detach().clone() for name, value in trainer.trained.items()}
    loaded = load_trained(backbone, recipe, spec, saved)

    # By hand: the published weights, the recipe, and the saved weights over them.
    torch.manual_seed(spec.seed)
    expected = compose(backbone.load("random"), backbone, recipe)
    assert expected.load_state_dict(saved, strict=False).unexpected_keys == []
    assert torch.equal(_logits(loaded), _logits(expected))
    rounded = not torch.equal(_logits(trainer.model), _logits(expected))
    assert rounded == (text != "full")

    found = check_merge(trainer.model, recipe, EXAMPLES, torch.bfloat16, lambda: loaded)
    assert found.float32_logit_difference is not None
    largest = float(_logits(loaded).abs().max())
    # bfloat16 keeps 8 bits; twenty roundings, one after another, of which none counts for more.
    assert 0 < found.float32_logit_difference < 20 * 2**-8 * max(1, largest)
    assert found.largest_logit_difference < 1e-4 * max(1, largest)


def test_what_was_evaluated_in_float32_has_no_second_precision(backbone: Backbone) -> None:
    trainer, _ = _trained(backbone, "lora_ff", "float32")
    recipe = parse("lora_ff", installed().compressors)
    found = check_merge(
        trainer.model, recipe, EXAMPLES, torch.float32, lambda: pytest.fail("loaded")
    )
    assert found.float32_logit_difference is None
