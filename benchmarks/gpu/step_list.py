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
        only_compares: the step measures neither time nor the device's memory, so that it may run
            beside its neighbours.
    """

    name: str
    module: str
    seconds: float
    title: str
    only_compares: bool = False


STEPS = (
    Step("speed", "gpu.relative_speed", 140, "speed and memory of recipes beside full fine-tuning"),
    Step("peer", "gpu.peer", 80, "training beside Seq2SeqTrainer + PEFT"),
    Step("kernels", "gpu.kernels", 38, "launches and device time of a step"),
    Step("tests", "gpu.marked_tests", 50, "the tests that need a GPU", only_compares=True),
    Step(
        "equality",
        "gpu.equality",
        50,
        "losses, gradients and predictions are the library's",
        only_compares=True,
    ),
    Step("measuring", "gpu.measuring_tests", 40, "the tests of the measurements themselves"),
    Step("decoding", "gpu.decoding_speed", 40, "beam search beside transformers' own"),
    Step("inference", "gpu.inference_speed", 50, "decoding of pruned models beside full ones"),
    Step("run", "gpu.whole_run", 42, "a whole run of the embedded model"),
)
