"""Tiny backbones whose gradients float32 can resolve."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import BartConfig, PreTrainedConfig, T5Config

from harness import Backbone
from harness.backbones.bart import Bart
from harness.backbones.t5 import T5

START = """
import importlib.util, json, os, sys
import torch
from harness.training.exchange import bytes_from_main, merged
from harness.training.processes import PREDICT, join

def load(path):
    spec = importlib.util.spec_from_file_location("loaded", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

tiny = load(sys.argv[1])
"""
"""Beginning of a script that several processes execute, and that ``together`` starts."""


class TinyT5(T5):
    gated = False

    def config(self) -> PreTrainedConfig:
        variant = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
        return T5Config(
            vocab_size=48,
            d_model=16,
            d_kv=8,
            d_ff=24,
            num_heads=2,
            num_layers=6,
            decoder_start_token_id=0,
            **(variant if self.gated else {}),
        )


class TinyGatedT5(TinyT5):
    gated = True


class WideT5(T5):
    """A model whose weights take more memory than all else in a process of a test."""

    def config(self) -> PreTrainedConfig:
        return T5Config(
            vocab_size=256,
            d_model=64,
            d_kv=16,
            d_ff=256,
            num_heads=4,
            num_layers=6,
            decoder_start_token_id=0,
        )


class TinyBart(Bart):
    def config(self) -> PreTrainedConfig:
        return BartConfig(
            vocab_size=48,
            d_model=16,
            encoder_layers=6,
            decoder_layers=6,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=24,
            decoder_ffn_dim=24,
            max_position_embeddings=40,
            attention_dropout=0.1,
            activation_dropout=0.1,
            init_std=0.2,
            forced_eos_token_id=None,
        )


@pytest.fixture(params=["t5", "gated-t5", "bart"])
def backbone(request: pytest.FixtureRequest) -> Backbone:
    """A backbone of each family in turn.

    Six layers, the least that the alternating pattern prunes. Weights of the usual size: larger
    ones make so sensitive a system that float32's own rounding shows in the third digit.
    """
    families = {"t5": TinyT5, "gated-t5": TinyGatedT5, "bart": TinyBart}
    return families[request.param]("tiny")


@pytest.fixture
def together(tmp_path: Path) -> Callable[..., list[str]]:
    """Execute a script in several processes; return what each printed."""

    def start(script: str, size: int, *arguments: Any) -> list[str]:
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        file = tmp_path / "script.py"
        file.write_text(START + script)
        group = {"WORLD_SIZE": size, "MASTER_ADDR": "localhost", "MASTER_PORT": port}
        words = [sys.executable, str(file), __file__, *map(str, arguments)]
        started = [
            subprocess.Popen(
                [
                    "env",
                    "OMP_NUM_THREADS=1",
                    f"RANK={rank}",
                    *(f"{k}={v}" for k, v in group.items()),
                    *words,
                ],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(size)
        ]
        outputs = [process.communicate(timeout=240) for process in started]
        assert [p.returncode for p in started] == [0] * size, outputs
        return [output for output, _ in outputs]

    return start
