"""Costs before training, from Python: ``harness.plan`` and ``harness.profile``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from harness.api.plugins import installed
from harness.costs.batches import Batches, choose_batches, profile_spec
from harness.costs.data_choice import DataChoice
from harness.costs.inference_profile import add_inference
from harness.costs.memory_estimate import process_bytes
from harness.costs.plan import DEVICE_BYTES, Plan, plan_recipes
from harness.costs.profile import profile_recipes
from harness.errors import HarnessError
from harness.measurement.fingerprint import explain_no_driver, fingerprint
from harness.records.measurements import Fingerprint
from harness.records.profile import Profile, ProfiledRecipe
from harness.spec.run_spec import RunSpec
from harness.training.resolved_run import resolve_run


def plan(
    backbone: str,
    compressor: str | Iterable[str],
    task: str | None = None,
    *,
    task_options: Mapping[str, Any] | None = None,
    data: str = "auto",
    source_tokens: int | None = None,
    target_tokens: int | None = None,
    tasks: int = 4,
    device: str = "auto",
    settings: Mapping[str, Any] | None = None,
    processes: int = 1,
    device_gb: float = DEVICE_BYTES / 1e9,
) -> list[Plan]:
    """Compute layers, parameters, the FLOP limit of speed, memory and storage of recipes.

    Needs no weights and no network.

    Args:
        backbone: a registered name, a hub id or a folder.
        compressor: recipes, as a list or separated by commas.
        task: plan for batches of this task; by default all sources have ``source_tokens`` tokens
            and all targets ``target_tokens``.
        task_options: options of the task.
        data: ``own`` takes the task's own data, ``lengths`` draws batches of its typical lengths,
            ``auto`` takes own data where they and the tokenizer are on this machine.
        source_tokens: mean length of the sources; 512 without a task.
        target_tokens: mean length of the targets; 128 without a task.
        tasks: the number of tasks that storage is computed for.
        device: the device to plan for: ``auto``, ``cpu`` or ``cuda``.
        settings: settings that memory depends on, such as ``{"train.batch_size": 4}``.
        processes: number of processes that train together, each with its own device; more than one
            are planned too, with the number of devices that training needs.
        device_gb: memory of such a device, in GB of 1e9 bytes.

    Returns:
        A plan for each recipe, in the order given.

    Raises:
        HarnessError: an unknown name or setting, or own data that are not on this machine.

    Example:
        >>> [plan] = harness.plan("t5-large", "lora_ff+lprun")
        >>> plan.memory.peak_bytes
    """
    choice = _data_choice(data, task)
    plugins = installed()
    recipes = plugins.recipes(compressor)
    chosen = plugins.backbone(backbone)
    spec = profile_spec(backbone, task, {"device": device, **(settings or {})}, task_options)
    _measure_process(resolve_run(spec, chosen, recipes[0]).device)
    batches = None
    if task is not None:
        chosen_task = plugins.task(spec.task, spec.task_options)
        batches = choose_batches(spec, chosen, chosen_task, choice, source_tokens, target_tokens)
    return plan_recipes(
        chosen,
        recipes,
        batches=batches,
        source_tokens=source_tokens or 512,
        target_tokens=target_tokens or 128,
        tasks=tasks,
        spec=spec,
        processes=processes,
        device_bytes=int(device_gb * 1e9),
    )


def profile(
    backbone: str = "nano-t5",
    compressor: str | Iterable[str] = "full,lprun,lora_qv,lora_ff,lora_qv+lprun,lora_ff+lprun",
    task: str = "radiology_demo",
    *,
    task_options: Mapping[str, Any] | None = None,
    data: str = "auto",
    source_tokens: int | None = None,
    target_tokens: int | None = None,
    device: str = "auto",
    settings: Mapping[str, Any] | None = None,
    inference: bool = False,
    on_progress: Callable[[str], None] = lambda _: None,
) -> Profile:
    """Measure speed, memory and parameters of recipes on this device, without training.

    Needs neither weights nor data. A recipe that does not fit into memory is a result, not an
    error.

    Args:
        backbone: a registered name, a hub id or a folder.
        compressor: recipes, as a list or separated by commas.
        task: the task whose data or lengths the batches have.
        task_options: options of the task.
        data: ``own`` takes the task's own data, ``lengths`` draws batches of its typical lengths,
            ``auto`` takes own data where they and the tokenizer are on this machine.
        source_tokens: mean length of the sources; implies ``lengths``.
        target_tokens: mean length of the targets; implies ``lengths``.
        device: the device to measure: ``auto``, ``cpu`` or ``cuda``.
        settings: settings of the measurement, such as ``{"probe.steps": 4}``.
        inference: also measure decoding with each recipe's merged model.
        on_progress: is called with the name of each step that begins.

    Returns:
        The measurements of all recipes.

    Raises:
        HarnessError: an unknown name or setting, or own data that are not on this machine.

    Example:
        >>> profile = harness.profile("nano-t5", ["full", "lora_ff+lprun"])
        >>> profile.recipes[1].speed.relative
    """
    choice = _data_choice(data, task)
    plugins = installed()
    spec = profile_spec(backbone, task, {"device": device, **(settings or {})}, task_options)
    recipes = plugins.recipes(compressor)
    chosen = plugins.backbone(backbone)
    chosen_task = plugins.task(spec.task, spec.task_options)
    run = resolve_run(spec, chosen, recipes[0])
    _measure_process(run.device)
    on_progress("reading data")
    batches = choose_batches(spec, chosen, chosen_task, choice, source_tokens, target_tokens)
    rows = profile_recipes(spec, chosen, recipes, batches.frozen, on_progress)
    if inference:
        add_inference(rows, spec, batches.frozen, on_progress)
    attentions = sorted({row.attention for row in rows if row.attention})
    measured_on = fingerprint(run.device, run.dtype, ", ".join(attentions) or "no recipe fitted")
    return _record(spec, chosen.name, chosen_task.name, batches, measured_on, rows)


def _record(
    spec: RunSpec,
    backbone: str,
    task: str,
    batches: Batches,
    measured_on: Fingerprint,
    rows: list[ProfiledRecipe],
) -> Profile:
    record = Profile(
        backbone=backbone,
        task=task,
        batches=batches.of,
        why_no_data=batches.why_no_data,
        data_notes=list(batches.data_notes),
        batch_size=spec.train.batch_size,
        accumulation=spec.train.accumulation,
        mean_source_tokens=batches.frozen.mean_source_tokens,
        mean_target_tokens=batches.frozen.mean_target_tokens,
        fingerprint=measured_on,
        recipes=rows,
    )
    explain_no_driver(record)
    return record


def _data_choice(data: str, task: str | None) -> DataChoice:
    try:
        choice = DataChoice(data)
    except ValueError as error:
        raise HarnessError(
            f"Unknown choice of data {data!r}.", f"Known: {', '.join(DataChoice)}."
        ) from error
    if choice is DataChoice.OWN and task is None:
        raise HarnessError("--data own needs a task.", "Add --task NAME")
    return choice


def _measure_process(device: torch.device) -> None:
    """Measure the memory of this process on a CPU, before data are read and would be counted."""
    if device.type == "cpu":
        process_bytes()
