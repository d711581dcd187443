"""Tiny backbones whose gradients float32 can resolve."""

from __future__ import annotations

import multiprocessing
import runpy
import socket
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
sys.argv, sys.stdout = words, open(printed, "w")
os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT), 2)
os.environ.update(group)
import torch
torch.set_num_threads(1)
from harness.training.exchange import bytes_from_main, merged
from harness.training.processes import PREDICT, join

def load(path):
    spec = importlib.util.spec_from_file_location("loaded", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

tiny = load(sys.argv[1])
"""
"""Beginning of a script that several processes execute, and that ``together`` starts.

The names that it does not define are those that ``together`` gives it.
"""


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
    """Execute a script in several processes; return what each printed.

    They are forked from the server of ``_quick_processes``, which has imported their modules.
    """

    def start(script: str, size: int, *arguments: Any) -> list[str]:
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        file = tmp_path / "script.py"
        file.write_text(START + script)
        group = {"WORLD_SIZE": str(size), "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
        context = multiprocessing.get_context("forkserver")
        outputs, errors = ([tmp_path / f"{kind}-{r}" for r in range(size)] for kind in "oe")
        started = []
        for rank in range(size):
            values = {
                "words": [str(file), __file__, *map(str, arguments)],
                "printed": str(outputs[rank]),
                "errors": str(errors[rank]),
                "group": {**group, "RANK": str(rank)},
            }
            process = context.Process(target=runpy.run_path, args=(str(file), values), daemon=True)
            process.start()
            started.append(process)
        for process in started:
            process.join(1200)
        messages = [path.read_text() if path.exists() else "" for path in errors]
        assert [p.exitcode for p in started] == [0] * size, messages
        return [path.read_text() for path in outputs]

    return start
