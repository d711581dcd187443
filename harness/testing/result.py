"""Results of checks: what passed, by how much, and where to look if something failed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from harness.records.record import Record

Outcome = Literal["passed", "failed", "does not apply"]
MARKS: dict[Outcome, str] = {"passed": "✓", "failed": "✗", "does not apply": "-"}


class DoesNotApplyError(Exception):
    """Raised by a check that has nothing to check; its text is the reason."""


class CheckFailedError(Exception):
    """Raised by a check that a plugin fails.

    Args:
        reason: what is wrong.
        method: name of the method to look at; by default the check's.
        difference: what was measured.
    """

    def __init__(
        self, reason: str, method: str | None = None, difference: float | None = None
    ) -> None:
        super().__init__(reason)
        self.method = method
        self.difference = difference


class CheckResult(Record):
    """Result of one check."""

    check: str
    """The promise that is checked."""
    on: str = ""
    """Model that it was checked on: a family, and ``+lprun`` with pruned layers."""
    outcome: Outcome
    """Outcome; a check that does not apply is not passed."""
    difference: float | None = None
    """The measured difference; null if the check measures none."""
    limit: float | None = None
    """The largest difference that passes; null if the check measures none."""
    reason: str | None = None
    """Reason why it failed or does not apply; null if it passed."""
    place: str | None = None
    """FILE:LINE to look at, if it failed."""


class CheckReport(Record):
    """Results of all checks of one plugin."""

    kind: Literal["compressor", "backbone", "task", "metric"]
    """Kind of the plugin."""
    name: str
    """The plugin, with its options."""
    beside: str | None = None
    """Compressor that it was checked beside, as it is refused alone; null if there is none."""
    results: list[CheckResult] = Field(default_factory=list)
    """One result for each check and each model that it was checked on."""
    seconds: float = 0.0
    """Wall time of the checks."""

    @property
    def failures(self) -> list[CheckResult]:
        """The checks that failed."""
        return [result for result in self.results if result.outcome == "failed"]

    def require_passed(self) -> None:
        """Raise an AssertionError that says what failed, for a test of the plugin.

        Raises:
            AssertionError: a check failed.
        """
        if self.failures:
            raise AssertionError(f"{self.kind} {self.name!r}:\n{describe(self.failures)}")


def describe(results: Sequence[CheckResult]) -> str:
    """Return a line for each result, with its reason and its place."""
    lines = []
    for result in results:
        where = f" ({result.on})" if result.on else ""
        lines.append(f"{MARKS[result.outcome]} {result.check}{where}: {result.reason or ''}")
        if result.place:
            lines.append(f"  {result.place}")
    return "\n".join(lines)
