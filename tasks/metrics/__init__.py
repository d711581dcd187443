"""The metrics of the built-in tasks; importing this package loads no model."""

from harness import Metric
from tasks.metrics.bertscore import BertScore
from tasks.metrics.bleu import Bleu, Chrf
from tasks.metrics.rouge import Rouge
from tasks.metrics.summac import SummaCConv, SummaCZeroShot, default_entailment


def summary_metrics() -> list[Metric]:
    """Return the suite for summaries."""
    entailment = default_entailment()
    return [Rouge(), Bleu(), BertScore(), SummaCZeroShot(entailment), SummaCConv(entailment)]


def dialogue_metrics() -> list[Metric]:
    """Return the suite for dialogue answers."""
    return [Rouge(), Bleu(), Chrf(), BertScore()]
