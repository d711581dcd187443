"""The names of ``harness.testing`` by the module that each comes from."""

from .backbone import check_backbone
from .compressor import check_compressor
from .metric import check_metric
from .outcomes import outcomes_of
from .result import CheckReport, CheckResult, Outcome
from .task import check_task

__all__ = [
    "CheckReport",
    "CheckResult",
    "Outcome",
    "check_backbone",
    "check_compressor",
    "check_metric",
    "check_task",
    "outcomes_of",
]
