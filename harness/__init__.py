"""Measure what cheaper sequence-to-sequence fine-tuning costs in quality.

This is the public API, for plugins and scripts alike. Importing it never imports torch.
"""

from harness.backbone import STACKS, Backbone, Role, Stack, Weights
from harness.compressor import Compressor, Stage
from harness.errors import HarnessError
from harness.hookspecs import hookimpl
from harness.metric import Metric, Score
from harness.options import Options
from harness.registry import Register
from harness.task import LengthProfile, Preparation, Prepared, Splits, Task

__version__ = "0.1.0"

__all__ = [
    "STACKS",
    "Backbone",
    "Compressor",
    "HarnessError",
    "LengthProfile",
    "Metric",
    "Options",
    "Preparation",
    "Prepared",
    "Register",
    "Role",
    "Score",
    "Splits",
    "Stack",
    "Stage",
    "Task",
    "Weights",
    "hookimpl",
]
