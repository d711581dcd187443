"""The metrics that the built-in tasks are scored with; importing this loads no model."""

from harness import Metric
from tasks.metrics.bertscore import BertScore
from tasks.metrics.bleu import Bleu, Chrf
from tasks.metrics.rouge import Rouge


def summary_metrics() -> list[Metric]:
    """The suite for summaries."""
    return [Rouge(), Bleu(), BertScore()]


def dialogue_metrics() -> list[Metric]:
    """The suite for dialogue answers."""
    return [Rouge(), Bleu(), Chrf(), BertScore()]
