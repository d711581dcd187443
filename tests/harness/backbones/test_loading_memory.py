"""Loading holds the weights in memory once, measured in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch
from transformers import T5Config, T5ForConditionalGeneration

LOAD = """
import sys
from harness.backbones.references import open_reference
from harness.measurement.memory import reset_peak, resident

# Loaded twice: the first time also imports modules.
small, large = sys.argv[1:]
open_reference(small).load("pretrained")
before = resident("VmRSS")
reset_peak()
model = open_reference(large).load("pretrained")
# Pages of a mapped file become resident when they are read.
for parameter in model.parameters():
    parameter.data.add_(1)
print(sum(p.nbytes for p in model.parameters()), resident("VmHWM") - before)
"""


def save(folder: Path, width: int) -> Path:
    config = T5Config(
        vocab_size=8192,
        d_model=width,
        d_kv=64,
        d_ff=4 * width,
        num_heads=8,
        num_layers=3,
        decoder_start_token_id=0,
    )
    torch.manual_seed(0)
    T5ForConditionalGeneration(config).save_pretrained(folder)
    return folder


def test_the_peak_of_loading_is_one_copy(tmp_path: Path) -> None:
    small, large = save(tmp_path / "small", 16), save(tmp_path / "large", 512)
    result = subprocess.run(
        [sys.executable, "-c", LOAD, str(small), str(large)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    weights, grown = map(int, result.stdout.split())
    assert weights > 80e6
    assert 0.9 * weights < grown < 1.5 * weights
