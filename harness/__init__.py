"""Measure what cheaper sequence-to-sequence fine-tuning costs in quality.

This is the public API, for plugins and scripts alike. Importing it never imports torch.
"""

from harness.api.backbone import STACKS, Backbone, Role, Stack, Weights
from harness.api.compressor import Compressor, Stage
from harness.api.hookspecs import hookimpl
from harness.api.metric import Metric, Score
from harness.api.options import Options
from harness.api.registry import Register
from harness.api.task import LengthProfile, Preparation, Prepared, Splits, Task
from harness.data.dialect import Dialect
from harness.data.files import read_table
from harness.data.folders import SPLIT_NAMES, pick_splits, read_folder
from harness.data.kinds import SUFFIXES as DATA_SUFFIXES
from harness.data.kinds import stem
from harness.data.table import Table, holds_lists, references_column, text_column
from harness.data.turns import Joining, exchanges, turn_column
from harness.errors import HarnessError

__version__ = "0.1.0"

__all__ = [
    "DATA_SUFFIXES",
    "SPLIT_NAMES",
    "STACKS",
    "Backbone",
    "Compressor",
    "Dialect",
    "HarnessError",
    "Joining",
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
    "Table",
    "Task",
    "Weights",
    "exchanges",
    "holds_lists",
    "hookimpl",
    "pick_splits",
    "read_folder",
    "read_table",
    "references_column",
    "stem",
    "text_column",
    "turn_column",
]
