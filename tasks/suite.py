"""Tasks on tables of texts, with a suite of metrics that an option selects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeVar

from harness import Metric, TableOptions, TableTask


class SuiteOptions(TableOptions):
    """Options of a task on tables of texts whose metrics are one of the built-in suites."""

    suite: Literal["summary", "dialogue"] = "summary"
    """Suite of metrics: summary, or dialogue for answers in a dialogue."""


OptionsT = TypeVar("OptionsT", bound=SuiteOptions)


class SuiteTask(TableTask[OptionsT]):
    """Scores rows of sources and targets with a built-in suite."""

    def metrics(self) -> Sequence[Metric]:
        """Return the suite that the options name."""
        from tasks.metrics import dialogue_metrics, summary_metrics

        return summary_metrics() if self.options.suite == "summary" else dialogue_metrics()
