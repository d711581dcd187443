"""List of the steps of ``make gpu``, the most valuable first."""

from __future__ import annotations

from dataclasses import dataclass

MINUTES = 8.0
"""Limit of all steps together."""


@dataclass(frozen=True)
class Step:
    """One step; it runs in a process of its own.

    Attributes:
        name: name of the step and of its files.
        module: module to run with ``python -m``.
        seconds: share of the time limit; unused time of earlier steps is added.
        title: description in tables.
    """

    name: str
    module: str
    seconds: float
    title: str


STEPS = (
    Step("tests", "gpu.marked_tests", 60, "the tests that need a GPU"),
    Step("equality", "gpu.equality", 45, "losses, gradients and predictions are the library's"),
    Step("speed", "gpu.relative_speed", 180, "speed and memory of recipes beside full fine-tuning"),
    Step("peer", "gpu.peer", 80, "training beside Seq2SeqTrainer + PEFT"),
    Step("kernels", "gpu.kernels", 35, "launches and device time of a step"),
    Step("decoding", "gpu.decoding_speed", 40, "beam search beside transformers' own"),
    Step("run", "gpu.whole_run", 40, "a whole run of the embedded model"),
)
