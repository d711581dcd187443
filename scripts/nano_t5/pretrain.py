"""Pre-train nano-t5 from scratch: tokenizer, denoising, weights.

    PYTHONPATH=scripts python -m nano_t5.pretrain --corpus corpus.jsonl --work WORK

writes WORK/model, the folder that the package embeds; `corpus.py` makes the corpus. After an
interruption the same command resumes from the last checkpoint.

Small budgets go far in this order:

- Copying first. A decoder that attends to the source at random learns to ignore it, and stays so
  for millions of tokens. Copying short rows of tokens in random order, which nothing but attention
  to the source can predict, is learned in a few hundred steps; then longer ones. (Wu et al. 2022,
  "Insights into pre-training via simpler synthetic tasks", find that much of what pre-training
  gives comes from such tasks.)
- Then text, in a mixture of denoisers (`denoising.py`).
- Depth last, because shallow steps are cheap: most steps train 3+3 layers, then each layer is
  followed by three copies of it that add nothing yet, and the 12+12 are trained on together
  (progressive stacking, Gong et al. 2019; with outputs of zero, as Chen et al. 2016 in "Net2Net",
  the model computes at first what it did before).

Hidden matrices are optimized by Muon, everything else by AdamW.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from nano_t5.denoising import IGNORED, MIXTURE, copies, denoised
from nano_t5.text import EOS, PAD, VOCABULARY, Text, encode, train_tokenizer
from torch import Tensor
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from harness.training.engines.loss import chunked_cross_entropy

SHAPE: dict[str, Any] = {
    "d_model": 128,
    "d_kv": 32,
    "d_ff": 512,
    "num_heads": 4,
    "vocab_size": VOCABULARY,
    "dropout_rate": 0.0,  # A model this narrow does not train with dropout.
    "decoder_start_token_id": PAD,
    "tie_word_embeddings": True,
}


@dataclass(frozen=True)
class Stage:
    """A part of the training.

    Attributes:
        layers: number of layers in each stack.
        steps: number of optimizer steps.
        warm_up: steps over which the learning rates rise.
        copy: length of the rows that are copied; None for the mixture of denoisers.
    """

    layers: int
    steps: int
    warm_up: int
    copy: int | None = None


STAGES = (
    Stage(3, 300, 50, copy=16),
    Stage(3, 100, 20, copy=32),
    Stage(3, 100, 20, copy=64),
    Stage(3, 3200, 100),
    Stage(12, 500, 50),
)
MUON_LR, ADAM_LR = 0.02, 1e-2


def batch(text: Text, index: int, step: int) -> tuple[Tensor, Tensor]:
    """Return (sources, targets) of a step of a stage, the same ones whenever training resumes."""
    length = STAGES[index].copy
    if length:
        rows = copies(text, length, (index, step))
        return rows, rows
    return denoised(text, step, (index, step))


def learning_rate(stage: Stage, step: int) -> float:
    """Warm up and hold; in the last stage fall linearly to nothing instead."""
    fall = 1 - step / stage.steps if stage is STAGES[-1] else 1.0
    return min(1.0, (step + 1) / stage.warm_up, fall)


def main() -> None:
    """Train the tokenizer and the model, and write the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    arguments = parser.parse_args()
    folder = arguments.work / "model"
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "tokenizer.json").exists():
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    else:
        tokenizer = train_tokenizer(arguments.corpus, folder)
    trained, held_out = encode(arguments.corpus, tokenizer)
    print(f"{len(trained.tokens):,} tokens", flush=True)  # noqa: T201
    model = train(trained, held_out, arguments.work)
    # Half precision on disk only: it is loaded as float32.
    model.half().save_pretrained(folder)


def train(text: Text, held_out: Text, work: Path) -> T5ForConditionalGeneration:
    """Train stage by stage."""
    model = build(STAGES[0].layers)
    for index, stage in enumerate(STAGES):
        if stage.layers != len(model.encoder.block):
            model = deepen(model, stage.layers)
        train_stage(model, index, text, held_out, work)
    return model


def build(depth: int) -> T5ForConditionalGeneration:
    """Return a model with random weights and ``depth`` layers in each stack."""
    torch.manual_seed(0)
    config = T5Config(
        **SHAPE,
        num_layers=depth,
        num_decoder_layers=depth,
        pad_token_id=PAD,
        eos_token_id=EOS,
    )
    return T5ForConditionalGeneration._from_config(config, attn_implementation="sdpa")


@torch.no_grad()
def deepen(shallow: T5ForConditionalGeneration, depth: int) -> T5ForConditionalGeneration:
    """Return a deeper model that computes the same.

    Each layer is followed by copies whose output projections are zero.
    """
    deep = build(depth)
    copies = depth // len(shallow.encoder.block)
    state = shallow.state_dict()
    for name, parameter in deep.named_parameters():
        match = re.fullmatch(r"(\w+)\.block\.(\d+)\.(.*)", name)
        if match is None:
            parameter.copy_(state[name])
            continue
        stack, index, rest = match[1], int(match[2]), match[3]
        parameter.copy_(state[f"{stack}.block.{index // copies}.{rest}"])
        if index % copies and rest.endswith((".o.weight", ".wo.weight")):
            parameter.zero_()
    return deep


def train_stage(
    model: T5ForConditionalGeneration, index: int, text: Text, held_out: Text, work: Path
) -> None:
    """Train in place, from the stage's checkpoint if there is one; losses are nats per token."""
    stage = STAGES[index]
    hidden = {
        name: parameter
        for name, parameter in model.named_parameters()
        if parameter.ndim == 2 and ".block." in name and "relative" not in name
    }
    others = [p for name, p in model.named_parameters() if name not in hidden]
    optimizers = [
        torch.optim.Muon(hidden.values(), lr=MUON_LR, weight_decay=0.0, momentum=0.95),
        torch.optim.AdamW(others, lr=ADAM_LR, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
    ]
    rates = (MUON_LR, ADAM_LR)
    step = 0
    checkpoint = work / f"stage{index}.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        step = state["step"]

    losses: list[float] = []
    began = time.perf_counter()
    while step < stage.steps:
        scale = learning_rate(stage, step)
        for optimizer, rate in zip(optimizers, rates, strict=True):
            optimizer.param_groups[0]["lr"] = rate * scale
        loss = loss_of(model, *batch(text, index, step))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(others, 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        losses.append(loss.item())
        step += 1
        if step % 100 and step != stage.steps:
            continue
        row = {
            "stage": index,
            "step": step,
            "seconds": round(time.perf_counter() - began),
            "loss": round(sum(losses) / len(losses), 4),
            **held_out_losses(model, held_out),
        }
        print(json.dumps(row), flush=True)  # noqa: T201
        with (work / "history.jsonl").open("a") as history:
            history.write(json.dumps(row) + "\n")
        if not math.isfinite(row["loss"]):
            raise SystemExit("The loss is not finite.")
        losses.clear()
        _save_checkpoint(checkpoint, model, optimizers, step)


def _save_checkpoint(
    checkpoint: Path,
    model: T5ForConditionalGeneration,
    optimizers: Sequence[torch.optim.Optimizer],
    step: int,
) -> None:
    """Write the state after a step; an older checkpoint is replaced atomically."""
    state = {
        "model": model.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        "step": step,
    }
    temporary = checkpoint.with_name("checkpoint.tmp")
    torch.save(state, temporary)
    temporary.replace(checkpoint)


def loss_of(model: T5ForConditionalGeneration, sources: Tensor, targets: Tensor) -> Tensor:
    """Return the mean loss in nats per target token."""
    labels = targets.flatten()
    counted = labels != IGNORED
    with torch.autocast("cpu", torch.bfloat16):
        encoded = model.encoder(input_ids=sources)[0]
        shifted = model.prepare_decoder_input_ids_from_labels(labels=targets)
        states = model.decoder(input_ids=shifted, encoder_hidden_states=encoded, use_cache=False)[0]
    states = (states.flatten(0, 1)[counted] * SHAPE["d_model"] ** -0.5).bfloat16()
    weight = model.lm_head.weight.bfloat16()
    return chunked_cross_entropy(states, weight, None, labels[counted]) / counted.sum()


@torch.no_grad()
def held_out_losses(model: T5ForConditionalGeneration, held_out: Text) -> dict[str, float]:
    """Return the loss of each denoiser, and of copying, on text that is never trained on."""
    batches = {
        denoise.__name__: denoised(held_out, turn, (turn,)) for turn, denoise in enumerate(MIXTURE)
    }
    rows = copies(held_out, 64, (0,))
    batches["copy"] = rows, rows
    return {name: round(loss_of(model, *pair).item(), 4) for name, pair in batches.items()}


if __name__ == "__main__":
    main()
