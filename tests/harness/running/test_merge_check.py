"""The merge check: the merged model and the float32 model against the evaluated one."""

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from harness import Backbone
from harness.api.plugins import installed
from harness.data.examples import Example
from harness.model.composition import compose
from harness.running.merge_check import check_merge, compare_with_float32, load_trained
from harness.spec.run_spec import RunSpec
from harness.spec.setting_groups import TrainSettings
from harness.training.build import load_trainer
from harness.training.resolved_run import ResolvedRun, resolve_run
from harness.training.trainer import Trainer

EXAMPLES = [Example([7, 8, 9, 1], [10, 11, 1]), Example([12, 13, 1], [14, 1])]


def _trained(backbone: Backbone, text: str, precision: str) -> tuple[Trainer, ResolvedRun]:
    train = TrainSettings(precision=precision)
    spec = RunSpec(recipe=text, weights="random", device="cpu", train=train)
    run = resolve_run(spec, backbone, installed().recipe(text))
    trainer = load_trainer(run)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in trainer.trained.values():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    trainer.engine.unpatch(trainer.model)
    return trainer, run


def _logits(model: torch.nn.Module) -> Tensor:
    ids = torch.tensor([EXAMPLES[0].source])
    with torch.inference_mode():
        logits: Tensor = model.eval()(input_ids=ids, decoder_input_ids=ids).logits
    return logits


@pytest.mark.parametrize("text", ["lora_ff+lprun", "full"])
def test_bfloat16_is_compared_with_the_saved_weights_on_the_published_backbone(
    backbone: Backbone, text: str
) -> None:
    trainer, run = _trained(backbone, text, "bfloat16")
    saved = {name: value.detach().clone() for name, value in trainer.trained.items()}
    loaded = load_trained(run, saved)

    # By hand: load the published weights, apply the recipe, load the saved weights.
    torch.manual_seed(run.spec.seed)
    expected = compose(backbone.load("random"), backbone, run.recipe)
    assert expected.load_state_dict(saved, strict=False).unexpected_keys == []
    assert torch.equal(_logits(loaded), _logits(expected))
    rounded = not torch.equal(_logits(trainer.model), _logits(expected))
    assert rounded == (text != "full")

    difference, reason = compare_with_float32(
        trainer.model, EXAMPLES, torch.bfloat16, lambda: loaded
    )
    merge_check = check_merge(trainer.model, run.recipe, EXAMPLES)
    assert difference is not None
    assert reason is None
    largest = float(_logits(loaded).abs().max())
    # bfloat16 keeps 8 bits; the bound allows twenty consecutive roundings of equal weight.
    assert 0 < difference < 20 * 2**-8 * max(1, largest)
    assert merge_check.largest_logit_difference < 1e-4 * max(1, largest)


def test_a_model_evaluated_in_float32_is_not_compared_with_float32(backbone: Backbone) -> None:
    trainer, _ = _trained(backbone, "lora_ff", "float32")
    difference, reason = compare_with_float32(
        trainer.model, EXAMPLES, torch.float32, lambda: pytest.fail("loaded")
    )
    assert difference is None
    assert reason == "the model was evaluated in float32"


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA out of memory")])
def test_a_second_copy_that_does_not_fit_leaves_a_reason_and_the_model_unchanged(
    backbone: Backbone, error: Exception
) -> None:
    trainer, run = _trained(backbone, "lora_ff", "bfloat16")
    before = _logits(trainer.model)

    def load() -> PreTrainedModel:
        raise error

    difference, reason = compare_with_float32(trainer.model, EXAMPLES, torch.bfloat16, load)
    assert difference is None
    assert reason == "a second copy of the model, in float32, did not fit into memory"
    assert torch.equal(_logits(trainer.model), before)
    assert check_merge(trainer.model, run.recipe, EXAMPLES).largest_logit_difference < 1e-2


def test_another_error_of_the_second_copy_is_raised(
    backbone: Backbone,
) -> None:
    trainer, _ = _trained(backbone, "lora_ff", "bfloat16")

    def load() -> PreTrainedModel:
        raise RuntimeError("the weights are broken")

    with pytest.raises(RuntimeError, match="the weights are broken"):
        compare_with_float32(trainer.model, EXAMPLES, torch.bfloat16, load)
