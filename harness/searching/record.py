"""Record of a search: what was tried, the finalists on the test split, and what is not known."""

from __future__ import annotations

from pydantic import Field

from harness.records.record import Record
from harness.reporting.recommendation import Recommendation
from harness.reporting.summary import Summary
from harness.searching.needs import Needs


class CandidateRow(Record):
    """A candidate that the search looked at."""

    recipe: str
    """The recipe in canonical form; as it was written, if it could not be read."""
    learning_rate: float | None = None
    """Peak learning rate; null if the recipe was rejected before one was needed."""
    speed_limit: float | None = None
    """Speed relative to full fine-tuning if only operations took time; null if not computed."""
    memory: float | None = None
    """Planned peak memory relative to full fine-tuning; null if not computed."""
    rejected: str | None = None
    """Reason for which it was not trained; null if it was."""
    failed: str | None = None
    """Reason why its training failed; null if it did not."""
    scores: list[float | None] = Field(default_factory=list)
    """Best score on the eval split up to each rung that it reached."""
    share: float | None = None
    """Its last score relative to the best of full fine-tuning at the same step."""


class Finalist(Record):
    """A recipe that was trained anew with fresh seeds."""

    recipe: str
    """The recipe in canonical form."""
    learning_rate: float
    """Peak learning rate that the search chose."""
    rates_tried: int
    """Number of learning rates of this recipe that the search tried."""
    command: str
    """Command that trains it."""


class SearchResult(Record):
    """The result of a search."""

    schema_version: int = 1
    """Version of the fields of this record."""
    folder: str
    """Folder of the search."""
    backbone: str
    """Name of the backbone."""
    task: str
    """Name of the task."""
    needs: Needs
    """Limits relative to full fine-tuning."""
    metric: str
    """Score on the eval split that the search compared candidates by."""
    budget_seconds: float
    """Wall time that the search may take."""
    spent_seconds: float
    """Wall time that it took, over all starts."""
    rungs: list[int]
    """Optimizer steps after which the worse half of the candidates was stopped."""
    space: int
    """Number of combinations of recipes, options and learning rates to choose from."""
    search_seed: int
    """Seed of all runs before the finals."""
    fresh_seeds: list[int]
    """Seeds of the finals."""
    baseline: list[CandidateRow] = Field(default_factory=list)
    """Full fine-tuning with each learning rate."""
    candidates: list[CandidateRow] = Field(default_factory=list)
    """All candidates, in the order in which they were looked at."""
    finalists: list[Finalist] = Field(default_factory=list)
    """Full fine-tuning first, then the recipes of the finals, the most promising first."""
    summary: Summary | None = None
    """Costs and quality of the finals on the test split, with the Pareto front; null if no run of
    the finals ended well."""
    recommendation: Recommendation | None = None
    """The cheapest recipe that satisfies the needs; null without a summary."""
    command: str | None = None
    """Command that trains the recommended recipe; null if none is recommended."""
    to_know_more: list[str] = Field(default_factory=list)
    """Sentences on what more seeds, examples or time could show."""
    notes: list[str] = Field(default_factory=list)
    """Sentences that a reader must know."""

    @property
    def trained(self) -> int:
        """The number of candidates that were trained, if only in part."""
        return sum(row.rejected is None for row in self.candidates)

    @property
    def finished(self) -> int:
        """The number of candidates that were trained to the end."""
        return sum(len(row.scores) == len(self.rungs) for row in self.candidates)

    @property
    def front(self) -> list[str]:
        """The recipes on the Pareto front of quality, speed and memory."""
        groups = self.summary.groups if self.summary else []
        return [row.recipe for group in groups for row in group.rows if row.on_front]
