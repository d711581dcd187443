"""Ten steps of a training against ten of transformers' Seq2SeqTrainer, setting by setting."""

from __future__ import annotations

import copy
import math
import random
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    BartConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    T5Config,
)

from harness import Backbone, HarnessError
from harness.api.plugins import installed
from harness.api.recipe import parse
from harness.backbones.bart import Bart
from harness.backbones.t5 import T5
from harness.data.examples import Example
from harness.spec.run_spec import RunSpec
from harness.spec.setting_groups import TrainSettings
from harness.training.build import load_trainer
from harness.training.learning_rate import learning_rate_schedule
from harness.training.optimizer import require_optimizer
from harness.training.resolved_run import resolve_run

STEPS, BATCH, RATE, DECAY = 10, 4, 1e-3, 0.3


class WideT5(T5):
    """Wide enough for states of 8 bits, which small tensors do not get."""

    def config(self) -> PreTrainedConfig:
        return T5Config(
            vocab_size=96,
            d_model=64,
            d_kv=16,
            d_ff=80,
            num_heads=4,
            num_layers=2,
            decoder_start_token_id=0,
            dropout_rate=0.0,
        )


class WideBart(Bart):
    def config(self) -> PreTrainedConfig:
        return BartConfig(
            vocab_size=96,
            d_model=64,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=80,
            decoder_ffn_dim=80,
            max_position_embeddings=32,
            dropout=0.0,
            activation_dropout=0.0,
            attention_dropout=0.0,
        )


FAMILIES = {"t5": WideT5, "bart": WideBart}
THEIRS: dict[str, dict[str, Any]] = {
    "adamw": {"optim": "adamw_torch_fused"},
    "adafactor": {"optim": "adafactor"},
    "adamw_8bit": {"optim": "adamw_bnb_8bit"},
}


def make_steps() -> list[list[Example]]:
    rng = random.Random(0)

    def text(longest: int) -> list[int]:
        return [*rng.choices(range(5, 96), k=rng.randint(3, longest)), 1]

    return [[Example(text(16), text(10)) for _ in range(BATCH)] for _ in range(STEPS)]


def padded(sequences: Sequence[Sequence[int]], value: int) -> Tensor:
    rows = [torch.tensor(sequence) for sequence in sequences]
    return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=value)


def of_the_trainer(
    model: PreTrainedModel, steps: Sequence[Sequence[Example]], folder: Path, **settings: Any
) -> dict[str, Tensor]:
    def collate(rows: Sequence[dict[str, list[int]]]) -> dict[str, Tensor]:
        labels = padded([row["labels"] for row in rows], -100)
        return {
            "input_ids": padded([row["input_ids"] for row in rows], model.config.pad_token_id),
            "attention_mask": padded([[1] * len(row["input_ids"]) for row in rows], 0),
            "labels": labels,
            "decoder_input_ids": model.prepare_decoder_input_ids_from_labels(labels=labels),
        }

    arguments = Seq2SeqTrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=BATCH,
        max_steps=STEPS,
        learning_rate=RATE,
        weight_decay=DECAY,
        max_grad_norm=1.0,
        train_sampling_strategy="sequential",
        use_cpu=True,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        remove_unused_columns=False,
        disable_tqdm=True,
        **settings,
    )
    rows = [{"input_ids": e.source, "labels": e.target} for step in steps for e in step]
    Seq2SeqTrainer(model, arguments, train_dataset=rows, data_collator=collate).train()
    return {name: p.detach() for name, p in model.named_parameters()}


def ours_and_theirs(
    family: str, folder: Path, theirs: dict[str, Any], recipe: str = "full", **settings: Any
) -> float:
    """Train equal models with the harness and the trainer; return the weights' distance."""
    backbone: Backbone = FAMILIES[family]("tiny")
    train = TrainSettings(
        precision="float32",
        learning_rate=RATE,
        adapter_learning_rate=RATE,
        weight_decay=DECAY,
        batch_size=BATCH,
        # The same batches with the same padding: sums in the same order.
        engine="padded",
        **{"decay": "matrices", "warmup_steps": 0, **settings},
    )
    spec = RunSpec(recipe=recipe, weights="random", device="cpu", train=train)
    made = load_trainer(resolve_run(spec, backbone, parse(recipe, installed().compressors)))
    start = {name: p.detach().clone() for name, p in made.trained.items()}
    steps = make_steps()
    peer = of_the_trainer(copy.deepcopy(made.model), steps, folder, **theirs)
    schedule = learning_rate_schedule(made.optimizer, train, STEPS)
    made.model.train()
    for step in steps:
        made.step([made.engine.collate(step)], sum(len(e.target) for e in step))
        schedule.step()
    assert distance(made.trained, start) > 1e-3, "nothing was learned"
    return distance(made.trained, peer)


def distance(weights: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> float:
    """Return the norm of all differences, relative to that of all weights."""
    difference = sum(float((w.detach() - others[name]).norm() ** 2) for name, w in weights.items())
    size = sum(float(w.detach().norm() ** 2) for w in weights.values())
    return math.sqrt(difference / size)


# Not T5 in 8 bits: its loss is divided in another order, and 8 bits make a step of the last bit.
@pytest.mark.parametrize(
    ("family", "optimizer"),
    [
        ("t5", "adamw"),
        ("t5", "adafactor"),
        ("bart", "adamw"),
        ("bart", "adafactor"),
        ("bart", "adamw_8bit"),
    ],
)
@pytest.mark.usefixtures("eight_bits")
def test_optimizers_are_the_trainers(family: str, optimizer: str, tmp_path: Path) -> None:
    found = ours_and_theirs(family, tmp_path, THEIRS[optimizer], optimizer=optimizer)
    assert found <= 1e-6


@pytest.mark.parametrize("family", FAMILIES)
def test_schedules_and_label_smoothing_are_the_trainers(family: str, tmp_path: Path) -> None:
    theirs = {
        **THEIRS["adamw"],
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.3,
        "label_smoothing_factor": 0.1,
    }
    settings: dict[str, Any] = {
        "scheduler": "cosine",
        "warmup_steps": 0.3,
        "label_smoothing": 0.1,
    }
    assert ours_and_theirs(family, tmp_path, theirs, **settings) <= 1e-6


@pytest.mark.parametrize("family", FAMILIES)
def test_without_the_trainers_exceptions_norms_and_biases_decay_too(
    family: str, tmp_path: Path
) -> None:
    """Check that the comparison is tight enough to detect a difference in decay."""
    assert ours_and_theirs(family, tmp_path, THEIRS["adamw"], decay="all") > 1e-4


def test_an_adapter_decays_as_with_the_trainer(tmp_path: Path) -> None:
    assert ours_and_theirs("t5", tmp_path, THEIRS["adamw"], recipe="lora_ff:dropout=0.0") <= 1e-6


def test_an_optimizer_whose_library_is_missing_is_an_error_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(HarnessError, match="needs the package bitsandbytes") as raised:
        require_optimizer(TrainSettings(optimizer="adamw_8bit"))
    assert raised.value.hint
    assert "seq2seq-harness[bitsandbytes]" in raised.value.hint
    require_optimizer(TrainSettings(optimizer="adafactor"))
