"""A finished run of two processes, which runs of sweeps are compared with."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

UNPROBED = ("--set", "probe.training=false")
"""Options of a run that measures no training: its first steps are those of the training."""


@pytest.fixture(scope="session")
def double_run(short_run: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run by ``harness run --nproc 2``, which tests read and none changes."""
    results = tmp_path_factory.mktemp("double") / "results"
    words = [*short_run, *UNPROBED, "--compressor", "lora_ff+lprun"]
    words += ["--nproc", "2", "--out", str(results)]
    subprocess.run(
        [sys.executable, "-m", "harness", *words],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        check=True,
    )
    (folder,) = results.iterdir()
    return folder


@pytest.fixture(scope="session")
def unprobed_run(short_run: list[str]) -> list[str]:
    """The command of such a run without its recipe and its number of processes."""
    return [*short_run, *UNPROBED]
