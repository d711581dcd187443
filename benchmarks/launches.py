"""Kernels that one training step launches on a CUDA device, counted without one.

Run ``python benchmarks/launches.py``. The step is that of the harness on fake tensors: collate,
loss, backward, clip, AdamW. Models have the shapes of t5-large and bart-large, without weights. The
count must cover the whole step: it fails if sequences are of one length, or if a part of the step
launches nothing (matrix products, attention, backward pass, clipping, optimizer).
"""

from __future__ import annotations

from fake_cuda import load_guard, move, pretend

load_guard()

# ruff: noqa: E402 - torch only now.
import argparse
import copy
import json
import random
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from launch_counter import LaunchCounter, check_step
from trainer import with_peft
from transformers import BartConfig, PreTrainedConfig, T5Config

from harness import Backbone
from harness.api.plugins import installed
from harness.backbones.bart import Bart
from harness.backbones.t5 import T5
from harness.data.examples import Example
from harness.model.composition import compose
from harness.records.report import LayersKept
from harness.spec.run_spec import RunSpec
from harness.training.build import build_trainer, parameters_of
from harness.training.engines.padded import PaddedEngine
from harness.training.resolved_run import resolve_run
from harness.training.trainer import Trainer

RECIPES = ("full", "lprun", "lora_qv", "lora_ff", "lora_qv+lprun", "lora_ff+lprun")
SHAPES = ("t5-large", "bart-large")
_NARROW_T5 = {
    "vocab_size": 48,
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 24,
    "num_heads": 2,
    "num_layers": 6,
    "decoder_start_token_id": 0,
}
THIN: dict[str, tuple[type[Backbone], PreTrainedConfig]] = {
    "t5": (T5, T5Config(**_NARROW_T5)),
    "gated-t5": (
        T5,
        T5Config(**_NARROW_T5, feed_forward_proj="gated-gelu", tie_word_embeddings=False),
    ),
    "bart": (
        Bart,
        BartConfig(
            vocab_size=48,
            d_model=16,
            encoder_layers=6,
            decoder_layers=6,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=24,
            decoder_ffn_dim=24,
            forced_eos_token_id=None,
        ),
    ),
}
"""Narrow models of each family for tests; six layers are the least that lprun prunes."""


def examples(vocabulary: int) -> list[Example]:
    """Return eight examples whose lengths vary as in the benchmark."""
    rng = random.Random(0)

    def text(longest: int) -> list[int]:
        return [*rng.choices(range(3, vocabulary), k=rng.randint(8, longest)), 1]

    return [Example(text(250), text(110)) for _ in range(8)]


def count(shape: str, recipe: str, precision: str) -> Counter[str]:
    """Return the kernels of one step of the harness by operator.

    Args:
        shape: name of a backbone, or of a thin model.
        recipe: a recipe as in ``harness run --compressor``.
        precision: ``float32`` or ``bfloat16``.
    """
    batch = examples(_backbone(shape).config().vocab_size)
    tokens = sum(len(e.target) for e in batch)
    with fake_trainer(shape, recipe, precision) as trainer:
        collated = trainer.engine.collate(batch)
        counter = LaunchCounter()
        with counter:
            trainer.step([collated], tokens, check=True)
    check_step(counter.launches, [len(e.source) for e in batch])
    return counter.launches


@contextmanager
def fake_trainer(shape: str, recipe: str, precision: str) -> Iterator[Trainer]:
    """Return the harness's trainer on the fake device, which is there in the context.

    The optimizer has its state. ``count`` describes the arguments.
    """
    backbone = _backbone(shape)
    spec = RunSpec.model_validate(
        {
            "backbone": shape,
            "recipe": recipe,
            "weights": "random",
            "device": "cuda",
            "train": {"precision": precision, "engine": "auto"},
        }
    )
    parsed = installed().recipe(recipe)
    model = compose(backbone.skeleton(), backbone, parsed)
    counts, kept = parameters_of(model, 1), LayersKept(encoder=[], decoder=[])
    with pretend():
        move(model)
        trainer = build_trainer(model, resolve_run(spec, backbone, parsed), kept, counts)
        assert trainer.device.type == "cuda"
        trainer.model.train()
        _make_state(trainer.trained.values(), trainer.optimizer)
        yield trainer


def count_trainer(shape: str, recipe: str, precision: str) -> Counter[str]:
    """Return the kernels of one step of Seq2SeqTrainer + PEFT on the same examples, by operator.

    The step is written out, because the trainer's own loop reads numbers from the device, which
    fake tensors do not have. It pads, computes under autocast, clips gradients and takes a step of
    fused AdamW. ``count`` describes the arguments.
    """
    backbone = _backbone(shape)
    batch = examples(backbone.config().vocab_size)
    parsed = installed().recipe(recipe)
    model = with_peft(backbone.skeleton(), backbone, parsed)
    padded = PaddedEngine(0, torch.float32, "cpu").collate(batch)
    shapes = {name: tensor.shape for name, tensor in padded.tensors.items()}
    low = precision == "bfloat16"
    with pretend():
        move(model)
        model.train()
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)
        _make_state(trained, optimizer)
        counter = LaunchCounter()
        with counter:
            tensors = {
                name: torch.empty(shape, dtype=torch.long).to("cuda", non_blocking=True)
                for name, shape in shapes.items()
            }
            with torch.autocast("cuda", torch.bfloat16, enabled=low):
                loss = model(**tensors, use_cache=False).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0, foreach=True)
            optimizer.step()
            optimizer.zero_grad()
    return counter.launches


def _make_state(trained: Iterable[torch.Tensor], optimizer: torch.optim.Optimizer) -> None:
    """Let the optimizer create its state, which it does in the first step only."""
    for parameter in trained:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()


def _backbone(shape: str) -> Backbone:
    if shape in THIN:
        family, config = THIN[shape]
        backbone = family(shape)
        backbone.config = lambda: copy.deepcopy(config)  # type: ignore[method-assign]
        return backbone
    registered: Backbone = installed().backbone(shape)
    return registered


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", default=SHAPES, help=f"also {', '.join(THIN)}")
    parser.add_argument("--recipes", nargs="+", default=RECIPES)
    parser.add_argument("--precisions", nargs="+", default=["bfloat16"])
    parser.add_argument("--trainer", action="store_true", help="count Seq2SeqTrainer + PEFT's")
    parser.add_argument("--json", action="store_true", help="one line of JSON a case")
    parser.add_argument("--operators", type=int, default=0, help="how many operators to show")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    counted = count_trainer if options.trainer else count
    for shape in options.shapes:
        for recipe in options.recipes:
            for precision in options.precisions:
                launches = counted(shape, recipe, precision)
                total = launches.total()
                if options.json:
                    case = {"shape": shape, "recipe": recipe, "precision": precision}
                    print(json.dumps({**case, "launches": total}), flush=True)
                else:
                    print(f"{shape:12} {recipe:14} {precision:9} {total:6,}", flush=True)
                for name, number in launches.most_common(options.operators):
                    print(f"    {name:50} {number:6,}")


if __name__ == "__main__":
    main()
