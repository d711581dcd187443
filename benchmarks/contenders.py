"""Two ways to train the same samples: this harness, and what its users would pick today."""

from __future__ import annotations

import math
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from clock import Clock, Window
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    TrainerCallback,
)
from work import Case, demo_batches

from harness import Backbone
from harness.backbone import Weights
from harness.recipe import Recipe
from harness.spec import RunSpec
from harness.training.engine import PaddedEngine
from harness.training.examples import Example
from harness.training.schedule import Step, prefetch
from harness.training.trainee import choose_device, prepare

LEARNING_RATE = 1e-4
Batches = Sequence[Sequence[Example]]


@dataclass(frozen=True)
class Contender:
    """One way to train.

    Attributes:
        name: for tables.
        ours: this harness; else Seq2SeqTrainer with PEFT.
        dtype: what matrix products are computed in.
        grouped: the trainer sorts samples of like length together, which it does by its own
            sampler, over a pool of four mega-batches.
    """

    name: str
    ours: bool
    dtype: str
    grouped: bool = False


CONTENDERS = (
    Contender("Trainer + PEFT, float32", False, "float32"),
    Contender("Trainer + PEFT, float32, grouped by length", False, "float32", True),
    Contender("Trainer + PEFT, bf16", False, "bfloat16"),
    Contender("Trainer + PEFT, bf16, grouped by length", False, "bfloat16", True),
    Contender("harness, float32", True, "float32"),
    Contender("harness, bf16", True, "bfloat16"),
)


def run_window(contender: Contender, case: Case) -> Window:
    """Train one contender on a case."""
    torch.set_num_threads(case.threads)
    return _run(
        contender, case, case.batches(contender.grouped), case.warmup, "random", with_dropout=True
    )


def run_curve(contender: Contender, case: Case) -> list[float]:
    """Return the losses of a contender on the embedded task, without dropout's random numbers."""
    torch.set_num_threads(case.threads)
    batches = demo_batches(case.backbone, case.batch, case.steps)
    return _run(contender, case, batches, 1, "pretrained", with_dropout=False).losses


def _run(
    contender: Contender,
    case: Case,
    batches: Batches,
    warmup: int,
    weights: Weights,
    with_dropout: bool,
) -> Window:
    clock = Clock(warmup, case.device)
    choose_device(case.device)  # Every contender attends with the same kernels.
    if contender.ours:
        return _harness(contender, case, batches, weights, with_dropout, clock)
    backbone = case.backbone
    torch.manual_seed(0)
    model = with_peft(backbone.load(weights), backbone, case.parsed)
    _draw_adapter(model)
    if not with_dropout:
        _turn_off_dropout(model)
    return _trainer(contender, model, batches, case.device, clock)


def _harness(
    contender: Contender,
    case: Case,
    batches: Batches,
    weights: Weights,
    with_dropout: bool,
    clock: Clock,
) -> Window:
    """Train as ``harness run`` does: its own preparation, batches made ahead, its own step."""
    train = {
        "precision": contender.dtype,
        "learning_rate": LEARNING_RATE,
        "adapter_learning_rate": LEARNING_RATE,
    }
    spec = RunSpec.model_validate(
        {
            "backbone": case.shape,
            "recipe": case.recipe,
            "weights": weights,
            "device": case.device,
            "train": train,
        }
    )
    trainee = prepare(case.backbone, case.parsed, spec)
    _draw_adapter(trainee.model)
    if not with_dropout:
        _turn_off_dropout(trainee.model)
    trainee.model.train()
    losses = []
    steps = [Step((tuple(batch),)) for batch in batches]
    for done, (step, made) in enumerate(prefetch(steps, trainee.engine.collate), start=1):
        losses.append(trainee.step(made, step.target_tokens))
        clock.step_done(done, step.source_tokens + step.target_tokens)
    return clock.read(losses)


def _trainer(
    contender: Contender, model: Any, batches: Batches, device: str, clock: Clock
) -> Window:
    """Train with transformers' own trainer."""
    pad = PaddedEngine(model.config.pad_token_id, torch.float32, "cpu")
    losses: list[torch.Tensor] = []
    # Counted where batches are made, which is ahead of the steps: reading a count back from the
    # device would make the trainer wait.
    tokens: list[int] = []

    def collate(rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        batch = pad.collate([Example(r["input_ids"], r["labels"]) for r in rows])
        tokens.append(batch.source_tokens + batch.target_tokens)
        return batch.tensors

    class Recording(Seq2SeqTrainer):  # type: ignore[misc]
        def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            loss = super().compute_loss(model, inputs, *args, **kwargs)
            losses.append(loss.detach())
            return loss

    class Timing(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            clock.step_done(state.global_step, tokens[state.global_step - 1])

    rows = [{"input_ids": e.source, "labels": e.target} for batch in batches for e in batch]
    with tempfile.TemporaryDirectory() as folder:
        arguments = Seq2SeqTrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=len(batches[0]),
            max_steps=len(batches),
            learning_rate=LEARNING_RATE,
            weight_decay=0.01,
            max_grad_norm=1.0,
            lr_scheduler_type="constant",
            train_sampling_strategy="sequential",  # batches come as its own sampler made them
            optim="adamw_torch_fused",
            bf16=contender.dtype == "bfloat16",
            use_cpu=device == "cpu",
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            remove_unused_columns=False,
            disable_tqdm=True,
        )
        trainer = Recording(
            model,
            arguments,
            train_dataset=rows,
            data_collator=collate,
            callbacks=[Timing()],
        )
        trainer.remove_callback(PrinterCallback)
        with _without_deprecations():
            trainer.train()
        return clock.read(losses)


def with_peft(model: PreTrainedModel, backbone: Backbone, recipe: Recipe) -> Any:
    """Apply a recipe the way a user of PEFT would."""
    for compressor in recipe.compressors:
        roles = getattr(compressor, "roles", ())
        if not roles:
            model = compressor.apply(model, backbone)
            continue
        options = compressor.options
        targets = [name for role in roles for name in backbone.modules(model, role)]
        config = LoraConfig(
            task_type="SEQ_2_SEQ_LM",
            r=options.r,
            lora_alpha=options.alpha,
            lora_dropout=options.dropout,
            bias="lora_only" if options.bias else "none",
            target_modules=targets,
        )
        with _without_deprecations():
            return get_peft_model(model, config)
    return model


@contextmanager
def _without_deprecations() -> Iterator[None]:
    """The trainer and PEFT use names of transformers' own that transformers deprecates."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def _draw_adapter(model: nn.Module) -> None:
    """Start all contenders from equal adapters, whatever was drawn before theirs."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if ".lora_A." in name:
            drawn = torch.empty(parameter.shape)
            nn.init.kaiming_uniform_(drawn, a=math.sqrt(5), generator=generator)
            parameter.data.copy_(drawn)


def _turn_off_dropout(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in ("dropout", "activation_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
