"""The trainer: the trained parameters, and one optimizer step against PyTorch by hand."""

import copy
import random
from collections.abc import Sequence
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from harness import Backbone, Compressor, Context, HarnessError, Options, Stage
from harness.api.plugins import installed
from harness.api.recipe import Recipe, parse
from harness.backbones.t5 import T5
from harness.data.examples import Example
from harness.spec.run_spec import RunSpec
from harness.spec.setting_groups import TrainSettings
from harness.training.build import load_trainer
from harness.training.resolved_run import choose_device, choose_dtype, resolve_run
from harness.training.schedule import Schedule
from harness.training.trainer import Trainer

Settings = dict[str, Any]

rng = random.Random(0)
EXAMPLES = [
    Example(
        [*rng.choices(range(3, 48), k=rng.randrange(1, 14)), 1],
        [*rng.choices(range(3, 48), k=rng.randrange(0, 9)), 1],
    )
    for _ in range(8)
]


def make_trainer(
    backbone: Backbone, recipe: str | Recipe, seed: int = 0, **settings: Any
) -> Trainer:
    train = TrainSettings(precision="float32", **settings)
    spec = RunSpec(recipe=str(recipe), weights="random", device="cpu", seed=seed, train=train)
    if isinstance(recipe, str):
        recipe = parse(recipe, installed().compressors)
    return load_trainer(resolve_run(spec, backbone, recipe))


def move_adapters(model: nn.Module) -> None:
    """Move LoRA's B away from zero, where half of the gradients vanish."""
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.05)


def backward(
    trainer: Trainer, batch_size: int, accumulation: int
) -> tuple[float, dict[str, Tensor]]:
    """Return loss and gradients of the same eight examples, divided into micro-batches."""
    (step,) = Schedule(EXAMPLES, batch_size, accumulation, seed=0).steps(0, 1)
    assert len(step.micro_batches) == accumulation
    batches = [trainer.engine.collate(batch) for batch in step.micro_batches]
    loss = float(trainer.backward(batches, step.target_tokens))
    gradients = {n: p.grad.clone() for n, p in trainer.trained.items() if p.grad is not None}
    trainer.optimizer.zero_grad()
    return loss, gradients


@pytest.mark.parametrize("engine", ["padded", "auto"])
@pytest.mark.parametrize("recipe", ["full", "lora_ff+lprun"])
def test_loss_and_gradients_do_not_depend_on_how_a_step_is_cut(
    backbone: Backbone, recipe: str, engine: str
) -> None:
    trainer = make_trainer(backbone, recipe, engine=engine)
    trainer.model.eval()  # Without dropout.
    move_adapters(trainer.model)
    loss, gradients = backward(trainer, 8, 1)
    assert gradients.keys() == trainer.trained.keys()
    largest = max(float(g.norm()) for g in gradients.values())
    for batch_size, accumulation in [(4, 2), (2, 4), (1, 8)]:
        cut_loss, cut_gradients = backward(trainer, batch_size, accumulation)
        assert cut_loss == pytest.approx(loss, rel=1e-5)
        for name, gradient in gradients.items():
            assert float((cut_gradients[name] - gradient).norm()) < 1e-5 * largest, name


@pytest.mark.parametrize("recipe", ["full", "lora_qv"])
def test_a_step_is_that_of_pytorch_by_hand(backbone: Backbone, recipe: str) -> None:
    # With a large epsilon Adam is smooth: rounding cannot turn the sign of an update.
    settings: Settings = {"clip_norm": 0.5, "epsilon": 0.1, "beta1": 0.8, "weight_decay": 0.3}
    rates: Settings = {"learning_rate": 0.02, "adapter_learning_rate": 0.02}
    trainer = make_trainer(backbone, recipe, engine="padded", **settings, **rates)
    trainer.model.eval()
    move_adapters(trainer.model)
    reference = copy.deepcopy(trainer.model)
    parameters = {n: p for n, p in reference.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(
        parameters.values(), lr=0.02, betas=(0.8, 0.999), eps=0.1, weight_decay=0.3, foreach=False
    )
    tokens = sum(len(e.target) for e in EXAMPLES)
    for _ in range(2):
        optimizer.zero_grad()
        losses = [_loss(reference, e) * len(e.target) / tokens for e in EXAMPLES]
        torch.stack(losses).sum().backward()
        assert nn.utils.clip_grad_norm_(parameters.values(), 0.5) > 0.5, "clipping had no part"
        optimizer.step()
        loss = trainer.step([trainer.engine.collate(EXAMPLES)], tokens, check=True)
        assert float(loss) == pytest.approx(sum(x.item() for x in losses), rel=1e-4)
    for name, parameter in trainer.trained.items():
        torch.testing.assert_close(parameter, parameters[name], rtol=1e-4, atol=1e-5)
        assert parameter.grad is None


def _loss(model: PreTrainedModel, example: Example) -> Tensor:
    ids, labels = torch.tensor([example.source]), torch.tensor([example.target])
    loss: Tensor = model(input_ids=ids, labels=labels).loss
    return loss


def test_counts_and_layers_are_those_of_the_composed_model(backbone: Backbone) -> None:
    full = make_trainer(backbone, "full")
    assert full.parameters.trainable == full.parameters.total == full.parameters.original
    assert full.parameters.trainable_pct_of_original == 100
    assert full.layers_kept.encoder == full.layers_kept.decoder == [1, 2, 3, 4, 5, 6]

    both = make_trainer(backbone, "lora_ff+lprun")
    assert both.layers_kept.encoder == both.layers_kept.decoder == [1, 2, 3, 5, 6]
    assert both.parameters.original == full.parameters.original
    assert both.parameters.total == sum(p.numel() for p in both.model.parameters())
    assert both.parameters.trainable == sum(p.numel() for p in both.trained.values())
    share = 100 * both.parameters.trainable / full.parameters.total
    assert both.parameters.trainable_pct_of_original == pytest.approx(share)


def test_recipes_with_an_adapter_have_their_own_rate(backbone: Backbone) -> None:
    rates: Settings = {"learning_rate": 0.25, "adapter_learning_rate": 0.5}
    for recipe, rate in [("full", 0.25), ("lprun", 0.25), ("lora_ff", 0.5), ("lora_qv+lprun", 0.5)]:
        trainer = make_trainer(backbone, recipe, **rates)
        assert trainer.learning_rate == rate
        assert [group["lr"] for group in trainer.optimizer.param_groups] == [rate]


def test_the_seed_draws_the_initial_adapter(backbone: Backbone) -> None:
    one, same, other = (make_trainer(backbone, "lora_ff", seed) for seed in (3, 3, 4))
    assert all(torch.equal(one.trained[name], p) for name, p in same.trained.items())
    adapters = [name for name in one.trained if "lora_A" in name]
    assert adapters
    assert not any(torch.equal(one.trained[name], other.trained[name]) for name in adapters)


class Stray(Compressor[Options]):
    """Trains everything, and says that it trains what the loss does not depend on."""

    stage: ClassVar[Stage] = Stage.ADAPTER
    Options = Options

    def apply(
        self, model: PreTrainedModel, backbone: Backbone, context: Context
    ) -> PreTrainedModel:
        model.register_parameter("stray", nn.Parameter(torch.ones(3)))
        return model


def collated(trainer: Trainer, examples: Sequence[Example] = EXAMPLES) -> tuple[list[Any], int]:
    return [trainer.engine.collate(examples)], sum(len(e.target) for e in examples)


def test_a_parameter_that_gets_no_gradient_is_found(backbone: Backbone) -> None:
    trainer = make_trainer(backbone, Recipe((Stray("stray", Options()),)))
    with pytest.raises(HarnessError, match=r"1 parameters should be trained .*'stray'"):
        trainer.step(*collated(trainer), check=True)


def test_a_parameter_that_the_optimizer_lacks_is_found(backbone: Backbone) -> None:
    trainer = make_trainer(backbone, "lora_ff")
    name = next(iter(trainer.trained))
    trainer.optimizer.param_groups[0]["params"].remove(trainer.trained[name])
    with pytest.raises(HarnessError, match="not in the optimizer"):
        trainer.step(*collated(trainer), check=True)


VARIABLES = {
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4",
    "ACCELERATE_MIXED_PRECISION": "bf16",
    "ACCELERATE_USE_CPU": "true",
    "ACCELERATE_TORCH_DEVICE": "meta",
    "ACCELERATE_DYNAMO_BACKEND": "eager",
    "ACCELERATE_DOWNCAST_BF16": "true",
}


def test_the_environment_changes_no_number(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained() -> dict[str, Tensor]:
        trainer = make_trainer(backbone, "lora_ff")
        move_adapters(trainer.model)
        for _ in range(2):
            trainer.step(*collated(trainer))
        return {name: p.detach().clone() for name, p in trainer.trained.items()}

    quiet = trained()
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    spoken = trained()
    assert all(torch.equal(quiet[name], spoken[name]) for name in quiet)


def test_choosing_the_device() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    if not torch.cuda.is_available():
        with pytest.raises(HarnessError, match="no CUDA device"):
            choose_device("cuda")


def test_cudnn_attention_is_off_on_cuda_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.backends.cuda.cudnn_sdp_enabled()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    try:
        torch.backends.cuda.enable_cudnn_sdp(True)
        choose_device("cpu")
        assert torch.backends.cuda.cudnn_sdp_enabled()
        for asked in ("cuda", "auto"):
            torch.backends.cuda.enable_cudnn_sdp(True)
            assert choose_device(asked).type == "cuda"
            assert not torch.backends.cuda.cudnn_sdp_enabled()
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)


def test_choosing_the_precision(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    assert choose_dtype("float32", cpu, backbone) == torch.float32
    assert choose_dtype("bfloat16", cpu, backbone) == torch.bfloat16
    assert choose_dtype("auto", cpu, backbone) == torch.float32  # Too narrow to gain.
    wide = T5("t5-small")
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    assert choose_dtype("auto", cpu, wide) == (torch.bfloat16 if native else torch.float32)
    monkeypatch.setattr(T5, "safe_dtypes", frozenset({"float32"}))
    assert choose_dtype("auto", cpu, wide) == torch.float32
    with pytest.raises(HarnessError, match="overflows in bfloat16"):
        choose_dtype("bfloat16", cpu, wide)


def test_drawing_weights_on_the_device_changes_nothing_on_a_cpu(backbone: Backbone) -> None:
    spec = RunSpec(recipe="lora_ff", weights="random", device="cpu")
    recipe = parse("lora_ff", installed().compressors)
    plain, there = (
        load_trainer(resolve_run(spec, backbone, recipe), drawn_on_device=flag).model.state_dict()
        for flag in (False, True)
    )
    assert plain.keys() == there.keys()
    assert all(torch.equal(tensor, there[name]) for name, tensor in plain.items())
