"""Folders of runs, made without training: their trained weights are drawn at random."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from transformers import PreTrainedModel, T5Config

    from harness.records.report import Report


FACTORS = {
    "EncDecAttention.v": 8.0,
    "EncDecAttention.o": 8.0,
    "encoder_attn.v_proj": 4.0,
    "encoder_attn.out_proj": 4.0,
}
"""Part of a weight's name -> factor of its initial value."""
PREFIX = "summarize: "
LIMIT = 24


@pytest.fixture(autouse=True)
def _forked(forked_checks: object) -> None:
    """Check every export in a forked process."""


@pytest.fixture(scope="session")
def tiny_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder with a model of each family, of 7+6 thin layers, with nano-t5's tokenizer."""
    import torch
    from transformers import BartConfig, BartForConditionalGeneration, T5Config

    from harness.backbones.nano import NanoT5

    tokenizer = NanoT5("nano-t5").tokenizer()
    root = tmp_path_factory.mktemp("backbones")
    size = {"vocab_size": len(tokenizer) + 8, "d_model": 32, "d_kv": 8, "d_ff": 48}
    depth = {"num_heads": 4, "num_layers": 7, "num_decoder_layers": 6}
    own_head = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
    start = {"decoder_start_token_id": 0}
    models = {
        "t5": _t5(T5Config(**size, **depth, **start)),
        "gated-t5": _t5(T5Config(**size, **depth, **start, **own_head)),
    }
    torch.manual_seed(0)
    models["bart"] = BartForConditionalGeneration(
        BartConfig(
            vocab_size=len(tokenizer),
            d_model=32,
            encoder_layers=7,
            decoder_layers=6,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=48,
            decoder_ffn_dim=48,
            max_position_embeddings=512,
            init_std=0.2,
            bos_token_id=tokenizer.pad_token_id,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            decoder_start_token_id=tokenizer.eos_token_id,
            forced_eos_token_id=tokenizer.eos_token_id,
        )
    )
    for family, model in models.items():
        with torch.no_grad():
            for name, weight in model.named_parameters():
                # Otherwise the predictions of random weights hardly depend on the source.
                factors = (factor for part, factor in FACTORS.items() if part in name)
                weight.mul_(next(factors, 1.0))
        model.save_pretrained(root / family)
        tokenizer.save_pretrained(root / family)
    return {family: root / family for family in models}


def _t5(config: T5Config) -> PreTrainedModel:
    import torch

    from harness.backbones.t5 import T5

    class Tiny(T5):
        def config(self) -> T5Config:
            return config

    torch.manual_seed(0)
    return Tiny("tiny").load("random")


@pytest.fixture(scope="session")
def make_run(
    tiny_folders: dict[str, Path],
    notes: Path,
    make_report: Callable[..., Report],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., Path]:
    """Return a function that makes the folder of a run of a family and a recipe.

    Its trained weights are the initial ones with noise, and its predictions those of the harness's
    own search with merged adapters. Keywords replace fields of the report. Without ``results`` the
    folder is shared by all tests that ask for the same run, and none changes it.
    """
    import torch

    from harness.api.plugins import installed
    from harness.data.examples import encode
    from harness.evaluation.decoding import generate, signature
    from harness.model.composition import compose, kept_layers, layers
    from harness.records.atomic import write_lines, write_text
    from harness.records.run_folder import PREDICTIONS, SPEC, RunFolder
    from harness.spec.run_spec import RunSpec
    from harness.training.trained_weights import save_weights

    shared = tmp_path_factory.mktemp("runs")
    made: dict[tuple[object, ...], Path] = {}
    rows = [json.loads(line) for line in notes.read_text().splitlines()[:20]]

    def make(
        family: str, recipe: str, *, seed: int = 0, results: Path | None = None, **changes: Any
    ) -> Path:
        if results is not None or changes:
            return make_new(family, recipe, seed, results or shared, changes)
        key = (family, recipe, seed)
        if key not in made:
            made[key] = make_new(*key, shared, changes)
        return made[key]

    def make_new(
        family: str, recipe: str, seed: int, results: Path, changes: dict[str, Any]
    ) -> Path:
        # A BART of random weights finds permutations of a text equally likely: no beams.
        beams = 1 if family == "bart" else 2
        values = {
            "backbone": str(tiny_folders[family]),
            "recipe": recipe,
            "task": str(notes),
            "device": "cpu",
            "seed": seed,
            "preset": "quick",
            "test": {"beams": beams, "max_new_tokens": 8, "length_penalty": 0.5, "batch_size": 8},
        }
        spec = RunSpec.model_validate(values)
        plugins = installed()
        backbone, chosen = plugins.backbone(spec.backbone), plugins.recipe(recipe)
        torch.manual_seed(seed)
        original = backbone.load("pretrained")
        before = layers(original, backbone)
        model = compose(original, backbone, chosen)
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        tokenizer = backbone.tokenizer()
        sources, _ = encode([PREFIX + row["source"] for row in rows], tokenizer, LIMIT)
        initial = {name: weight.detach().clone() for name, weight in trained.items()}
        for draw in range(100 + seed, 1000, 100):
            torch.manual_seed(draw)
            with torch.no_grad():
                for name, weight in trained.items():
                    size = 0.07 if ".lora_" in name or name.endswith("bias") else 0.05
                    weight.copy_(initial[name] + torch.randn_like(weight) * size)
            predictions = generate(
                model.eval(), tokenizer, sources, spec.test, shared_beams=chosen.shares_beams
            )
            if len(set(predictions)) > 3:
                break
        assert len(set(predictions)) > 3, "The predictions are too alike to tell models apart."
        data = make_report().model_dump()["data"]
        limits = {"prefix": PREFIX, "max_source_length": LIMIT, "max_target_length": 12}
        fields = {
            "id": f"{family}-{recipe}-notes-s{seed}".replace(":", "-"),
            "backbone": family,
            "backbone_version": backbone.version(),
            "recipe": recipe,
            "seed": seed,
            "decoding": signature(spec.test),
            "layers_kept": kept_layers(before, layers(model, backbone)),
            "data": {**data, **limits},
        }
        report = make_report(**{**fields, **changes})
        folder = RunFolder(results, report.id)
        write_text(folder.work / SPEC, spec.to_toml())
        lines = [
            {"source": row["source"], "reference": row["target"], "prediction": prediction}
            for row, prediction in zip(rows, predictions, strict=True)
        ]
        write_lines(folder.work / PREDICTIONS, lines)
        save_weights(trained, folder.work)
        return folder.finish(report)

    return make
