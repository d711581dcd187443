"""Runs named checks, and finds the line of a plugin that a failure points to."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from harness.errors import HarnessError, first_line
from harness.testing.result import CheckFailedError, CheckResult, DoesNotApplyError

Subject = TypeVar("Subject")
OnResult = Callable[[CheckResult], None]


@dataclass(frozen=True)
class Check(Generic[Subject]):
    """One promise, and the function that checks it.

    Attributes:
        name: the promise, as a sentence without a subject.
        method: the method of the plugin that a failure most likely comes from.
        function: measures a difference, or returns None if there is none to measure.
        limit: the largest difference that passes.
    """

    name: str
    method: str
    function: Callable[[Subject], float | None]
    limit: float | None = None


def run_checks(
    checks: Iterable[Check[Subject]],
    subject: Subject,
    plugin: type,
    on: str = "",
    on_result: OnResult = lambda _: None,
) -> list[CheckResult]:
    """Run checks one by one; an exception fails the check and not the others.

    Args:
        checks: the checks.
        subject: passed to each of them.
        plugin: the class of the plugin, whose lines failures point to.
        on: what the subject is, for the results.
        on_result: is called with each result.
    """
    results = []
    for check in checks:
        result = _run(check, subject, plugin, on)
        on_result(result)
        results.append(result)
    return results


def _run(check: Check[Subject], subject: Subject, plugin: type, on: str) -> CheckResult:
    result = CheckResult(check=check.name, on=on, outcome="passed", limit=check.limit)
    try:
        difference = check.function(subject)
    except DoesNotApplyError as error:
        return result.model_copy(
            update={"outcome": "does not apply", "reason": str(error), "limit": None}
        )
    except CheckFailedError as error:
        place = place_in(plugin, error.method or check.method, error.__cause__)
        failed = {"outcome": "failed", "reason": str(error), "place": place}
        return result.model_copy(update={**failed, "difference": error.difference})
    except Exception as error:  # A plugin may raise anything, and the other checks go on.
        shown = isinstance(error, HarnessError)
        reason = first_line(error) if shown else f"{type(error).__name__}: {first_line(error)}"
        place = place_in(plugin, check.method, error)
        return result.model_copy(update={"outcome": "failed", "reason": reason, "place": place})
    result = result.model_copy(update={"difference": difference})
    if difference is None or check.limit is None or difference <= check.limit:
        return result
    place = place_in(plugin, check.method, None)
    reason = f"the difference is {difference:.3g}, and {check.limit:.3g} is allowed"
    return result.model_copy(update={"outcome": "failed", "reason": reason, "place": place})


def place_in(plugin: type, method: str, error: BaseException | None) -> str | None:
    """Return FILE:LINE of a plugin: the line that raised an error, or the start of a method.

    Args:
        plugin: the class of the plugin.
        method: a method of the class; if it is not there, the class itself is meant.
        error: an error that the plugin's code may have raised.
    """
    try:
        file = inspect.getsourcefile(plugin)
    except TypeError:
        return None
    if file is None:
        return None
    folder = Path(file).parent
    if error is not None:
        for frame in reversed(traceback.extract_tb(error.__traceback__)):
            if frame.filename == file or Path(frame.filename).parent == folder:
                return f"{frame.filename}:{frame.lineno}"
    try:
        target = getattr(plugin, method, plugin)
        return f"{inspect.getsourcefile(target)}:{inspect.getsourcelines(target)[1]}"
    except (OSError, TypeError):
        return file
