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
    return {report.name: _by_check(report.results) for report in reports}


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


def differences(expected: Outcomes, found: Outcomes) -> list[str]:
    """Return a line for each check whose outcome is not the expected one.

    Models on which nothing was checked this time are left out.
    """
    lines = []
    for name, checks in found.items():
        for check, outcome in checks.items():
            before = expected.get(name, {}).get(check)
            if before is None:
                lines.append(f"{name}: {check}: not expected: {outcome}")
            elif not _fits(before, outcome):
                lines.append(f"{name}: {check}: {outcome}; expected: {before}")
    return lines


def _fits(expected: str | Mapping[str, str], found: str | Mapping[str, str]) -> bool:
    if isinstance(found, str):
        return found in ([expected] if isinstance(expected, str) else expected.values())
    if isinstance(expected, str):
        return set(found.values()) == {expected}
    return all(expected.get(on) == outcome for on, outcome in found.items())


def _by_check(results: Iterable[CheckResult]) -> dict[str, str | dict[str, str]]:
    by_check: dict[str, dict[str, str]] = {}
    for result in results:
        reason = f": {result.reason}" if result.reason else ""
        by_check.setdefault(result.check, {})[result.on] = f"{result.outcome}{reason}"
    return {
        check: next(iter(found.values())) if len(set(found.values())) == 1 else found
        for check, found in by_check.items()
    }
