"""The loss curve against transformers' Seq2SeqTrainer with PEFT's own model: same batches."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import PreTrainedModel, Seq2SeqTrainer, Seq2SeqTrainingArguments

from harness import Backbone
from harness.api.plugins import installed
from harness.api.recipe import parse
from harness.data.examples import Example
from harness.model.composition import compose
from harness.model.contexts import default_context
from harness.training.engines.packed import PackedEngine, choose_engine

STEPS = 50
BATCH = 4
RATE = 3e-3


def make_batches() -> list[list[Example]]:
    """Tokens of unequal frequency, so that there is something to learn."""
    rng = random.Random(0)
    weights = [1 / rank for rank in range(1, 46)]

    def text(longest: int) -> list[int]:
        return [*rng.choices(range(3, 48), weights, k=rng.randint(1, longest) - 1), 1]

    return [[Example(text(16), text(10)) for _ in range(BATCH)] for _ in range(STEPS)]


def without_dropout(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in ("dropout", "activation_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


def losses_of_the_trainer(model: Any, batches: Sequence[Sequence[Example]], folder: Path) -> Any:
    losses: list[float] = []

    class Recording(Seq2SeqTrainer):  # type: ignore[misc]
        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            loss = super().compute_loss(*args, **kwargs)
            losses.append(loss.item())
            return loss

    def collate(rows: Sequence[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        def padded(name: str, value: int) -> torch.Tensor:
            sequences = [torch.tensor(row[name]) for row in rows]
            return nn.utils.rnn.pad_sequence(sequences, batch_first=True, padding_value=value)

        ones = [{"mask": [1] * len(row["input_ids"])} for row in rows]
        mask = nn.utils.rnn.pad_sequence([torch.tensor(o["mask"]) for o in ones], batch_first=True)
        pad = model.config.pad_token_id
        return {
            "input_ids": padded("input_ids", pad),
            "attention_mask": mask,
            "labels": padded("labels", -100),
        }

    arguments = Seq2SeqTrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=BATCH,
        max_steps=STEPS,
        learning_rate=RATE,
        weight_decay=0.01,
        max_grad_norm=1.0,
        lr_scheduler_type="constant",
        train_sampling_strategy="sequential",
        optim="adamw_torch_fused",
        use_cpu=True,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        remove_unused_columns=False,
        disable_tqdm=True,
    )
    rows = [{"input_ids": e.source, "labels": e.target} for batch in batches for e in batch]
    Recording(model, arguments, train_dataset=rows, data_collator=collate).train()
    return losses


def losses_of_the_engine(
    model: PreTrainedModel, backbone: Backbone, batches: Sequence[Sequence[Example]]
) -> list[float]:
    engine = choose_engine(
        model,
        backbone,
        device=torch.device("cpu"),
        dtype=torch.float32,
        pad_token_id=model.config.pad_token_id,
        packing="on",
    )
    assert isinstance(engine, PackedEngine)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.01, fused=True)
    model.train()
    losses = []
    for examples in batches:
        batch = engine.collate(examples)
        loss = engine.loss_sum(model, batch) / batch.target_tokens
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def with_peft(model: PreTrainedModel, backbone: Backbone, text: str) -> Any:
    """Apply a recipe as a user of PEFT would: its own wrapper, its own adapter name."""
    for compressor in parse(text, installed().compressors).compressors:
        if not (roles := getattr(compressor, "roles", ())):
            model = compressor.apply(model, backbone, default_context(model, backbone))
            continue
        targets = [name for role in roles for name in backbone.modules(model, role)]
        config = LoraConfig(
            r=16,
            lora_alpha=32,
            lora_dropout=0.0,
            bias="lora_only",
            target_modules=targets,
            task_type="SEQ_2_SEQ_LM",
        )
        return get_peft_model(model, config)
    return model


RECIPES = ["full", "lprun", "lora_qv", "lora_ff", "lora_qv+lprun", "lora_ff+lprun"]
# Each family once; the rest takes a minute more.
FAST = {("t5", "lora_ff+lprun"), ("bart", "lora_qv"), ("gated-t5", "full")}


@pytest.mark.parametrize(
    ("backbone", "text"),
    [
        pytest.param(family, text, marks=() if (family, text) in FAST else pytest.mark.slow)
        for family in ("t5", "gated-t5", "bart")
        for text in RECIPES
    ],
    indirect=["backbone"],
)
def test_the_loss_curve_is_the_trainers(backbone: Backbone, text: str, tmp_path: Path) -> None:
    batches = make_batches()
    torch.manual_seed(0)
    theirs = with_peft(backbone.load("random"), backbone, text)
    torch.manual_seed(0)
    ours = compose(backbone.load("random"), backbone, parse(text, installed().compressors))
    # The same start: PEFT draws A in its own order.
    with torch.no_grad():
        start = dict(theirs.named_parameters())
        for name, parameter in ours.named_parameters():
            their_name = re.sub(r"\.lora_(qv|ff)\.", ".default.", name)
            if their_name not in start:
                their_name = f"base_model.model.{their_name}"
            value = start[their_name]
            assert value.requires_grad == parameter.requires_grad, name
            parameter.copy_(value)
    without_dropout(theirs)
    without_dropout(ours)
    expected = losses_of_the_trainer(theirs, batches, tmp_path)
    actual = losses_of_the_engine(ours, backbone, batches)
    assert len(expected) == STEPS
    assert sum(expected[-5:]) < 0.97 * sum(expected[:5]), "nothing was learned"
    assert actual == pytest.approx(expected, rel=1e-3)
