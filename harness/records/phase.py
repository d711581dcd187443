"""The phases of a run."""

from __future__ import annotations

from enum import StrEnum


class Phase(StrEnum):
    """Phases of a run, in their order; no two of them share a measurement window.

    The values are what reports hold and what observers receive.
    """

    LOAD = "load"
    PROBE_SPEED = "probe speed"
    PROBE_MEMORY = "probe memory"
    PROBE_INFERENCE = "probe inference"
    PROBE_PROCESSES = "probe processes"
    TEACH = "teach"
    ENCODE = "encode"
    TRAIN = "train"
    EVALUATE = "evaluate"
    MERGE_CHECK = "hand-over"
