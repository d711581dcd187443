"""The peer: transformers' Seq2SeqTrainer with PEFT, in the settings that its users would try."""

from __future__ import annotations

import importlib.util
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from clock import Clock, Window
from peft import LoraConfig, get_peft_model
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    TrainerCallback,
)

from harness import Backbone
from harness.api.backbone import Weights
from harness.api.recipe import Recipe
from harness.data.examples import Example
from harness.model.contexts import default_context
from harness.training.engines.padded import PaddedEngine

LEARNING_RATE = 1e-4
COMPILED_WARMUP = 4
"""Steps before the clock starts: the first two shapes compile, the second for any later one."""
Batches = Sequence[Sequence[Example]]


@dataclass(frozen=True)
class Settings:
    """Settings of the trainer that a user chooses.

    Attributes:
        dtype: the precision of matrix products.
        batching: ``random``, ``grouped`` by the trainer's own sampler, or a ``budget`` of tokens.
        attention: transformers' name of the attention; ``sdpa`` is its default.
        optimizer: the trainer's name of the optimizer; the fused one is its default.
        low_weights: whether frozen weights are stored in bfloat16.
        compiled: whether ``torch_compile`` is used.
    """

    dtype: str = "float32"
    batching: str = "random"
    attention: str = "sdpa"
    optimizer: str = "adamw_torch_fused"
    low_weights: bool = False
    compiled: bool = False

    @property
    def name(self) -> str:
        """For tables: what differs from the trainer's defaults."""
        parts = ["float32" if self.dtype == "float32" else "bf16"]
        parts += {"random": [], "grouped": ["grouped"], "budget": ["token budget"]}[self.batching]
        parts += [self.attention] * (self.attention != "sdpa")
        parts += ["unfused AdamW"] * (self.optimizer == "adamw_torch")
        parts += ["bf16 weights"] * self.low_weights
        parts += ["compiled"] * self.compiled
        return f"Trainer + PEFT, {', '.join(parts)}"


def why_no_liger(model_type: str) -> str | None:
    """Return why the trainer's ``use_liger_kernel`` cannot be tried; None if it can."""
    if importlib.util.find_spec("liger_kernel") is None:
        return "liger-kernel is not installed; it has no kernels for T5 and BART"
    from liger_kernel.transformers.monkey_patch import (
        MODEL_TYPE_TO_APPLY_LIGER_FN,
    )

    if model_type not in MODEL_TYPE_TO_APPLY_LIGER_FN:
        return f"liger-kernel has no kernels for {model_type}"
    return None


def build(settings: Settings, backbone: Backbone, recipe: Recipe, weights: Weights) -> Any:
    """Return the model that the trainer trains."""
    model = backbone.load(weights)
    model.set_attn_implementation(settings.attention)
    if settings.low_weights:
        model = model.to(torch.bfloat16)
    return with_peft(model, backbone, recipe)


def train(settings: Settings, model: Any, batches: Batches, device: str, clock: Clock) -> Window:
    """Train a model on batches as they come."""
    pad = PaddedEngine(model.config.pad_token_id, torch.float32, "cpu")
    losses: list[torch.Tensor] = []
    # Counted where batches are made, which is ahead of the steps: reading a count back from the
    # device would make the trainer wait.
    tokens: list[int] = []

    def collate(rows: list[Sequence[Example]]) -> dict[str, torch.Tensor]:
        (examples,) = rows
        batch = pad.collate(examples)
        tokens.append(batch.source_tokens + batch.target_tokens)
        tensors: dict[str, torch.Tensor] = batch.tensors
        return tensors

    class Recording(Seq2SeqTrainer):  # type: ignore[misc]
        def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            loss = super().compute_loss(model, inputs, *args, **kwargs)
            losses.append(loss.detach())
            return loss

    class Timing(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            clock.step_done(state.global_step, tokens[state.global_step - 1])

    with tempfile.TemporaryDirectory() as folder:
        arguments = Seq2SeqTrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=1,  # A row of the data is a batch as its sampler made it.
            max_steps=len(batches),
            learning_rate=LEARNING_RATE,
            weight_decay=0.01,
            max_grad_norm=1.0,
            lr_scheduler_type="constant",
            train_sampling_strategy="sequential",
            optim=settings.optimizer,
            bf16=settings.dtype == "bfloat16",
            torch_compile=settings.compiled,
            use_cpu=device == "cpu",
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            remove_unused_columns=False,
            disable_tqdm=True,
        )
        trainer = Recording(
            model, arguments, train_dataset=batches, data_collator=collate, callbacks=[Timing()]
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
            model = compressor.apply(model, backbone, default_context(model, backbone))
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
    """Silence warnings of deprecated names of transformers that the trainer and PEFT use."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield
