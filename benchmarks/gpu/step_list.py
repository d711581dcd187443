"""The steps of ``make gpu``, in the order of their value."""

from __future__ import annotations

from dataclasses import dataclass

MINUTES = 8.0
"""Limit of all steps together."""


@dataclass(frozen=True)
class Step:
    """One step, which runs in a process of its own.

    Attributes:
        name: names its files.
        module: is run with ``python -m``.
        seconds: its share of the time; what earlier steps leave unused is added.
        title: says what it does, for tables.
    """

    name: str
    module: str
    seconds: float
    title: str


STEPS = (
    Step("tests", "gpu.marked_tests", 60, "the tests that need a GPU"),
    Step("speed", "gpu.relative_speed", 210, "speed and memory of recipes"),
    Step("kernels", "gpu.kernels", 30, "launches and device time of a step"),
)
