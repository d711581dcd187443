"""Measurement of what several processes cost, the same in all of them."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace

import torch

from harness.api.plugins import Plugins
from harness.api.recipe import Recipe
from harness.measurement.scaling import measure_processes
from harness.records.measurements import ProcessCosts
from harness.records.reasons import explain_nulls
from harness.records.report import Report
from harness.running.setup import Setup
from harness.training.build import load_trainer
from harness.training.processes import Processes


def lacks_process_costs(report: Report, recipe: Recipe, processes: Processes) -> bool:
    """Return whether the costs of these processes must be measured; if not, the report says why.

    Args:
        report: the report so far.
        recipe: the recipe of the run.
        processes: the processes.
    """
    reason = "one process trained"
    known = report.process_costs.processes if report.process_costs else 1
    lacks = report.training is None and processes.size not in (1, known)
    if lacks and recipe.teacher is not None and recipe.teacher.top is not None:
        lacks, reason = False, "the logits of its teacher are stored after the measurements"
    explain_nulls(report, reason, "process_costs")
    return lacks


def process_costs(
    setup: Setup,
    plugins: Plugins,
    processes: Processes,
    *,
    on_ready: Callable[[], None],
    on_progress: Callable[[], None] = lambda: None,
) -> ProcessCosts:
    """Measure with a trainer that is freed afterwards, and return the costs.

    The compressors are not those of the training, since they may keep a state.

    Args:
        setup: the settings and the steps to measure.
        plugins: the plugins of this environment.
        processes: the processes; each must call this.
        on_ready: is called when the trainer is loaded; it waits for the other processes.
        on_progress: is called after every timed window.
    """
    recipe = plugins.recipe(setup.run.spec.recipe)
    trainer = load_trainer(replace(setup.run, recipe=recipe))
    on_ready()
    try:
        return measure_processes(trainer, setup.frozen, processes, on_progress)
    finally:
        del trainer
        gc.collect()
        if setup.run.device.type == "cuda":
            torch.cuda.empty_cache()
