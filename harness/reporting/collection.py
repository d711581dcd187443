"""The runs of a results folder, as Python and notebooks use them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from harness.errors import HarnessError, did_you_mean
from harness.records.display import html_table
from harness.records.run_folder import StoredRun

if TYPE_CHECKING:
    import pandas

    from harness.reporting.summary import Front, Summary

_PROCESSES = 8
"""Most processes that compare recipes at the same time; each takes about 150 MB."""

_SHOWN = 50
"""Most runs that a notebook shows."""


@dataclass(frozen=True)
class Reports(Sequence[StoredRun]):
    """Finished runs; a sequence whose items have ``folder`` and ``report``.

    Attributes:
        folder: the results folder that holds the runs.
        runs: the runs, in the order of their folders' names.
        skipped: an error for each folder that could not be read.
    """

    folder: Path
    runs: tuple[StoredRun, ...]
    skipped: tuple[HarnessError, ...] = ()

    @overload
    def __getitem__(self, place: int) -> StoredRun: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[StoredRun]: ...
    def __getitem__(self, place: int | slice) -> StoredRun | Sequence[StoredRun]:
        return self.runs[place]

    def __len__(self) -> int:
        return len(self.runs)

    @property
    def recipe_count(self) -> int:
        """The number of recipes that ``summarize`` averages, counted in each of its groups."""
        from harness.reporting.aggregation import grouped

        groups = grouped(self.runs).values()
        return sum(len({run.report.recipe for run in group}) for group in groups)

    def summarize(
        self,
        metrics: Sequence[str] | None = None,
        on_recipe: Callable[[], None] = lambda: None,
        front: Front = "training",
        baseline: str = "full",
    ) -> Summary:
        """Average over seeds, and compare each recipe's quality with full fine-tuning's.

        The comparisons are kept in the results folder, so that they are computed only once. Recipes
        whose runs measured neither speed nor memory get those of the folder's ``profile.json``.

        Args:
            metrics: names of the metrics to show; by default all that any run has.
            on_recipe: is called after each recipe.
            front: the costs of the Pareto front: ``training`` or ``inference``.
            baseline: the recipe that quality is compared with, if not full fine-tuning. Speed and
                memory are relative to full fine-tuning's in any case.

        Returns:
            The summary that ``harness report`` shows; a notebook shows it as a table.

        Raises:
            HarnessError: no run has one of the metrics, or none is of the baseline.

        Example:
            >>> harness.load_reports("results").summarize(["rouge1"])
            >>> harness.load_reports("results").summarize(baseline="lora_ff+lprun")
        """
        from harness.reporting.aggregation import summarize
        from harness.reporting.paired_comparison import Comparisons
        from harness.reporting.profiled_costs import read_profile

        available = sorted({name for run in self.runs for name in run.report.quality})
        for name in metrics or ():
            if name not in available:
                raise HarnessError(
                    f"No run in {str(self.folder)!r} has the metric {name!r}.",
                    did_you_mean(name, available),
                )
        comparisons = Comparisons(self.folder, min(_PROCESSES, os.cpu_count() or 1))
        try:
            return summarize(
                self.runs,
                comparisons,
                metrics,
                on_recipe,
                front,
                read_profile(self.folder),
                self._recipe(baseline),
            )
        finally:
            comparisons.keep()

    def _recipe(self, baseline: str) -> str:
        """Return a recipe as the reports write it.

        Raises:
            HarnessError: no run has this recipe.
        """
        from harness.spec.run_spec import BASELINE

        recipes = sorted({run.report.recipe for run in self.runs})
        if baseline in recipes or baseline == BASELINE:
            return baseline
        # Compressors and options in any order; a plugin of the runs may not be installed here.
        same = [r for r in recipes if sorted(r.split("+")) == sorted(baseline.split("+"))]
        if len(same) == 1:
            return same[0]
        raise HarnessError(
            f"No run in {str(self.folder)!r} is of the recipe {baseline!r}.",
            did_you_mean(baseline, recipes),
        )

    def to_pandas(self) -> pandas.DataFrame:
        """Return a data frame with one row per run.

        The columns are named like the fields of a report, with dots: ``recipe``,
        ``speed.relative``, ``quality.rouge1.value``. The column ``folder`` is the run's folder.

        Raises:
            HarnessError: pandas is not installed.

        Example:
            >>> frame = harness.load_reports("results").to_pandas()
            >>> frame.groupby("recipe")["quality.rouge1.value"].mean()
        """
        try:
            import pandas
        except ImportError as error:
            raise HarnessError(
                "A data frame needs the package pandas.",
                "Install it: pip install 'seq2seq-harness[pandas]'",
            ) from error
        rows: list[dict[str, Any]] = [
            {"folder": str(run.folder), **run.report.model_dump(mode="json")} for run in self.runs
        ]
        frame = pandas.json_normalize(rows)
        reasons = [name for name in frame.columns if "not_measured" in name.split(".")]
        return frame.drop(columns=reasons)

    def _repr_html_(self) -> str:
        reports = [run.report for run in self.runs[:_SHOWN]]
        metrics = list(dict.fromkeys(name for report in reports for name in report.quality))
        rows = []
        for report in reports:
            relative = report.speed.relative if report.speed else None
            cells = [report.backbone, report.recipe, report.task, str(report.seed), report.status]
            cells.append(f"{relative:.2f} x" if relative else "")
            cells.append(f"{report.parameters.trainable:,}" if report.parameters else "")
            cells.append(f"{report.memory.peak_bytes / 2**30:.2f}" if report.memory else "")
            scores = (report.quality.get(name) for name in metrics)
            rows.append([*cells, *(f"{score.value:.2f}" if score else "" for score in scores)])
        fixed = ["backbone", "recipe", "task", "seed", "status", "speed", "trained", "peak GiB"]
        notes = [f"Skipped: {error.message}" for error in self.skipped]
        if len(self) > _SHOWN:
            notes.append(f"The first {_SHOWN} of {len(self):,} runs.")
        return html_table(f"Runs in {self.folder}", rows, [*fixed, *metrics], notes)
