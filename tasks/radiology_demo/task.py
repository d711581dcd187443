"""The task ``radiology_demo``."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from harness import LengthProfile, Metric, Options, Splits, Task
from tasks.radiology_demo.report import write_reports


class RadiologyDemoOptions(Options):
    """Options of ``radiology_demo``."""

    train: int = Field(4000, ge=1)
    """Number of training reports."""
    eval: int = Field(400, ge=1)
    """Number of reports that select the best weights."""
    test: int = Field(800, ge=1)
    """Number of test reports."""
    seed: int = 0
    """Seed of the generator. It differs from the run's seed, so all seeds share one test set."""


class RadiologyDemo(Task[RadiologyDemoOptions]):
    """Writes the impression of a synthetic radiology report, without downloads or patient data."""

    Options = RadiologyDemoOptions
    prefix = "summarize: "
    max_source_length = 256
    max_target_length = 64
    length_profile = LengthProfile(source_mean=120, target_mean=26)

    def splits(self, seed: int) -> Splits:
        """Generate the reports; the run's seed has no effect."""
        from datasets import Dataset

        seen: set[str] = set()

        def write(split: str, count: int) -> Dataset:
            reports = write_reports(split, count, self.options.seed, seen)
            return Dataset.from_list(
                [{"id": r.id, "source": r.source, "target": r.target} for r in reports]
            )

        # Test first: duplicates are dropped, and the test set must not depend on the other sizes.
        test = write("test", self.options.test)
        evaluation = write("eval", self.options.eval)
        return Splits(train=write("train", self.options.train), eval=evaluation, test=test)

    def metrics(self) -> Sequence[Metric]:
        """Return the suite for summaries."""
        from tasks.metrics import summary_metrics

        return summary_metrics()
