"""Outcomes of checks in a file, to compare with those of today."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from harness.errors import HarnessError
from harness.records.atomic import write_text
from harness.testing.result import CheckReport, CheckResult

Outcomes = dict[str, dict[str, str | dict[str, str]]]
"""Plugin -> check -> outcome, with its reason; by model where models differ."""


def outcomes_of(reports: Iterable[CheckReport]) -> Outcomes:
    """Return what reports say without what depends on the machine: differences, places, times."""
    return {
        report.name: {check: _shortened(f) for check, f in _by_check(report.results).items()}
        for report in reports
    }


def read_outcomes(file: Path) -> Outcomes:
    """Read expected outcomes.

    Raises:
        HarnessError: the file cannot be read.
    """
    try:
        outcomes: Outcomes = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise HarnessError(
            f"The expected outcomes {str(file)!r} cannot be read: {error}."
        ) from error
    return outcomes


def write_outcomes(file: Path, outcomes: Outcomes) -> None:
    """Write outcomes to compare with later."""
    write_text(file, json.dumps(outcomes, indent=2, ensure_ascii=False) + "\n")


def differences(expected: Outcomes, reports: Iterable[CheckReport]) -> list[str]:
    """Return a line for each check whose outcome is not the expected one.

    Models on which nothing was checked this time are left out.
    """
    lines = []
    for report in reports:
        for check, found in _by_check(report.results).items():
            before = expected.get(report.name, {}).get(check)
            for on, outcome in found.items():
                wanted = before if before is None or isinstance(before, str) else before.get(on)
                if wanted != outcome:
                    where = f" ({on})" if on else ""
                    then = "not expected" if wanted is None else f"expected: {wanted}"
                    lines.append(f"{report.name}: {check}{where}: {outcome}; {then}")
    return lines


def _by_check(results: Iterable[CheckResult]) -> dict[str, dict[str, str]]:
    """Return check -> model -> outcome, with its reason."""
    by_check: dict[str, dict[str, str]] = {}
    for result in results:
        reason = f": {result.reason}" if result.reason else ""
        by_check.setdefault(result.check, {})[result.on] = f"{result.outcome}{reason}"
    return by_check


def _shortened(found: Mapping[str, str]) -> str | dict[str, str]:
    """Return the outcome alone where it is the same on all models."""
    return next(iter(found.values())) if len(set(found.values())) == 1 else dict(found)
