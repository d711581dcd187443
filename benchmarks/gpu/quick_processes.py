"""Starts measured processes from a server that has imported their modules, but not used CUDA.

A fresh interpreter imports torch and transformers for up to 15 seconds on a cold disk. What a
process measures on a device does not depend on how it was started.
"""

from __future__ import annotations

import multiprocessing
from multiprocessing.context import ForkServerProcess, SpawnProcess

MODULES = (
    "compressors.lora",
    "harness.backbones.bart",
    "harness.backbones.t5",
    "harness.evaluation.decoding",
    "harness.measurement.breakdown",
    "harness.measurement.decoding_process",
    "harness.measurement.process",
    "harness.training.build",
)


def start_quickly() -> None:
    """Let ``multiprocessing`` fork processes that it would start as fresh interpreters."""
    multiprocessing.set_forkserver_preload([*MODULES])
    SpawnProcess._Popen = staticmethod(ForkServerProcess._Popen)  # type: ignore[assignment]
