"""A finished run of two processes, which runs of sweeps are compared with."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def double_run(short_run: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run by ``harness run --nproc 2``, which tests read and none changes."""
    results = tmp_path_factory.mktemp("double") / "results"
    words = [*short_run, "--compressor", "lora_ff+lprun", "--nproc", "2", "--out", str(results)]
    subprocess.run(
        [sys.executable, "-m", "harness", *words],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        check=True,
    )
    (folder,) = results.iterdir()
    return folder
