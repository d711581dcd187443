"""A log of what happens in a run: a line of JSON for each event, for a dashboard or ``tail -f``.

It is written to the file that the environment variable HARNESS_EVENTS names. The module itself is
the plugin: its hooks are called by every run of an environment in which it is installed.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from harness import hookimpl

if TYPE_CHECKING:
    from harness import Evaluated, PhaseStarted, Report, RunSpec, StepDone


def write(event: str, **values: object) -> None:
    """Add an event to the log, where there is one."""
    if name := os.environ.get("HARNESS_EVENTS"):
        now = datetime.now(UTC).isoformat(timespec="seconds")
        with Path(name).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"time": now, "event": event, **values}) + "\n")


@hookimpl
def run_started(spec: RunSpec) -> None:
    """Log what is run."""
    write("run", backbone=spec.backbone, recipe=spec.recipe, task=spec.task, seed=spec.seed)


@hookimpl
def phase_started(event: PhaseStarted) -> None:
    """Log the phase, and how many steps it will take where that is known."""
    write("phase", phase=event.phase, steps=event.steps)


@hookimpl
def step_done(event: StepDone) -> None:
    """Log the step with its loss and learning rate, which the phase of training has."""
    write("step", step=event.step, **event.values)


@hookimpl
def evaluated(event: Evaluated) -> None:
    """Log the scores of the eval split."""
    write("eval", step=event.step, best=event.best, **event.values)


@hookimpl
def run_finished(report: Report) -> None:
    """Log how the run ended, with the scores of the test split."""
    scores = {name: metric.value for name, metric in report.quality.items()}
    write("end", status=report.status, seconds=report.seconds, **scores)
