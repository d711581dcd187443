"""Checks of a task: its data, its limits and its metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from harness import clock
from harness.api.options import Options
from harness.api.parts import read_part
from harness.api.plugins import installed
from harness.api.task import Splits, Task
from harness.errors import HarnessError
from harness.testing.options import check_options
from harness.testing.result import CheckFailedError, CheckReport, DoesNotApplyError
from harness.testing.runner import Check, OnResult, run_checks

if TYPE_CHECKING:
    from datasets import Dataset

SPLITS = ("train", "eval", "test")
_SCORED = 4


@dataclass
class TaskSubject:
    """A task and its data, which are read once.

    Attributes:
        task: the task.
        given: the options that were given.
    """

    task: Task[Any]
    given: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def splits(self) -> Splits:
        """The splits of seed 0."""
        try:
            return self.task.splits(0)
        except HarnessError as error:
            raise DoesNotApplyError(error.message) from error

    def rows(self) -> dict[str, Dataset]:
        """Return name -> split."""
        return {name: getattr(self.splits, name) for name in SPLITS}


def check_task(
    task: str | type[Task[Any]],
    options: Mapping[str, Any] | None = None,
    *,
    on_result: OnResult = lambda _: None,
) -> CheckReport:
    """Check that a task keeps the promises of its interface; its data must be here.

    Args:
        task: a registered name, with options as in ``name:path=FOLDER``, or a class.
        options: options of a class.
        on_result: is called with each result.

    Raises:
        HarnessError: there is no such task, or an option is not valid.
    """
    began = clock.seconds()
    if isinstance(task, str):
        name, given = _read(task)
        built = installed().task(name, given)
    else:
        name, given = task.__name__, dict(options or {})
        built = task(name, task.Options.model_validate(given))
    subject = TaskSubject(built, given)
    results = run_checks(CHECKS, subject, type(built), on_result=on_result)
    return CheckReport(kind="task", name=name, results=results, seconds=clock.seconds() - began)


def _read(text: str) -> tuple[str, dict[str, Any]]:
    """Read NAME:OPTION=VALUE; a path, a hub id and the like have colons of their own."""
    name, equals, _ = text.partition("=")
    if not equals:
        return text, {}
    place = name.rfind(":")
    return text[:place], dict(read_part(f"task{text[place:]}")[1])


def documented(subject: TaskSubject) -> None:
    """Check the documentation and the validation of the options."""
    model: type[Options] = subject.task.Options
    check_options(model, subject.given, f"task {subject.task.name!r}")


def columns(subject: TaskSubject) -> None:
    """Check that each split has rows, and texts in the columns id, source and target."""
    for name, rows in subject.rows().items():
        missing = {"id", "source", "target"} - set(rows.column_names)
        if missing:
            raise CheckFailedError(f"the split {name} has no column {min(missing)!r}")
        if not len(rows):
            raise CheckFailedError(f"the split {name} is empty")
        for column in ("id", "source", "target"):
            for text in rows[column]:
                if not isinstance(text, str) or not text.strip():
                    raise CheckFailedError(f"{column} of the split {name} has a row without text")


def unique(subject: TaskSubject) -> None:
    """Check that no id occurs twice."""
    seen: dict[str, str] = {}
    for name, rows in subject.rows().items():
        for id_ in rows["id"]:
            if id_ in seen:
                raise CheckFailedError(f"the id {id_!r} is in {seen[id_]} and in {name}")
            seen[id_] = name


def seeded(subject: TaskSubject) -> None:
    """Read the splits again with the same seed."""
    again = subject.task.splits(0)
    for name, rows in subject.rows().items():
        other = getattr(again, name)
        if any(rows[column] != other[column] for column in ("id", "source", "target")):
            raise CheckFailedError(f"the split {name} differs when it is read again")


def limits(subject: TaskSubject) -> None:
    """Check limits and typical lengths."""
    task, typical = subject.task, subject.task.length_profile
    if task.max_source_length < 1 or task.max_target_length < 1:
        raise CheckFailedError("a limit of tokens is not positive")
    if not 0 < task.eval_share <= 1:
        raise CheckFailedError("eval_share is no share")
    if not 0 < typical.source_mean <= task.max_source_length:
        raise CheckFailedError("the typical source is longer than max_source_length")
    if not typical.target_mean > 0:
        raise CheckFailedError("the typical target is empty")


def metrics(subject: TaskSubject) -> None:
    """Compute the suite on a few rows of the test split."""
    suite = subject.task.metrics()
    names = [name for metric in suite for name in metric.names]
    if subject.task.primary_metric not in names:
        raise CheckFailedError(
            f"the suite has no score {subject.task.primary_metric!r}, the primary metric: "
            f"{', '.join(names)}"
        )
    if len(set(names)) < len(names):
        raise CheckFailedError("two metrics of the suite have a score of the same name")
    rows = subject.splits.test.select(range(min(_SCORED, len(subject.splits.test))))
    for metric in suite:
        if subject.task.primary_metric in metric.names and metric.unavailable() is None:
            scores = metric.score(rows["source"], rows["target"], rows["target"])
            if set(scores) != set(metric.names):
                raise CheckFailedError(f"a metric of the suite computes {sorted(scores)}")


CHECKS: list[Check[TaskSubject]] = [
    Check("options are documented and validated", "Options", documented),
    Check("every split has sources and targets", "splits", columns),
    Check("ids are unique over all splits", "splits", unique),
    Check("the same seed gives the same splits", "splits", seeded),
    Check("limits and typical lengths make sense", "__init__", limits),
    Check("the suite computes the primary metric", "metrics", metrics),
]
