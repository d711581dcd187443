"""Speed and memory of recipes on this device, without weights, data or training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

from harness.backbone import Backbone
from harness.composition import compose
from harness.errors import HarnessError, is_out_of_memory
from harness.measurement.arm import Arm
from harness.measurement.memory import WHY_NOT_REACHED
from harness.measurement.prediction import try_to_predict
from harness.measurement.probe import (
    FrozenSchedule,
    measure_memory_of,
    set_beside_limit,
    time_arm,
    warm_up,
    without_baseline,
)
from harness.recipe import Recipe
from harness.reporting.profile import ProfiledRecipe
from harness.reporting.report import Failure, Memory
from harness.spec import BASELINE, RunSpec

Told = Callable[[str], None]

NO_BASELINE = f"{BASELINE} ran out of memory"


def profile_recipes(
    spec: RunSpec,
    backbone: Backbone,
    recipes: Sequence[Recipe],
    frozen: FrozenSchedule,
    told: Told,
) -> list[ProfiledRecipe]:
    """Measure each recipe beside full fine-tuning, which stays alive over all of them.

    A recipe that does not fit is a result, and then it is the next one's turn. If it is full
    fine-tuning that does not fit, the others are measured alone.

    Args:
        spec: the settings; its recipe is not looked at.
        backbone: the spec's.
        recipes: what to measure.
        frozen: the batches.
        told: called with what is done next.
    """
    full_spec = spec.model_copy(update={"recipe": BASELINE})
    rows = []
    with ExitStack() as stack:
        told(f"{BASELINE}, the baseline")
        baseline, baseline_memory = _baseline(full_spec, frozen, stack)
        for recipe in recipes:
            told(str(recipe))
            row = ProfiledRecipe(recipe=str(recipe), status="ok")
            skeleton = compose(backbone.skeleton(), backbone, recipe)
            row.predicted_memory, why = try_to_predict(
                spec, backbone, recipe, skeleton, frozen.longest
            )
            if why is not None:
                row.not_measured["predicted_memory"] = why
            elif row.predicted_memory and row.predicted_memory.process_bytes is None:
                why = "what a process takes of a CUDA device beside tensors is not predicted"
                row.not_measured["predicted_memory.process_bytes"] = why
            rows.append(row)
            try:
                _measure(spec.model_copy(update={"recipe": str(recipe)}), frozen, baseline, row)
            except HarnessError:
                raise
            except Exception as error:
                _failed(row, error)
            if row.memory and baseline_memory:
                row.memory.relative = row.memory.peak_bytes / baseline_memory.peak_bytes
            elif row.memory:
                without_baseline(row.memory, NO_BASELINE)
            if row.speed:
                set_beside_limit(row.speed, backbone, recipe, frozen)
    return rows


def _failed(row: ProfiledRecipe, error: Exception) -> None:
    """Say how a recipe ended, and that this is why it lacks what it lacks."""
    row.status = "oom" if is_out_of_memory(error) else "error"
    row.failure = Failure(
        phase="probe speed" if row.speed is None else "probe memory", message=str(error)
    )
    row.memory_reached = getattr(error, "reached", None)
    if row.status == "oom" and row.memory_reached is None:
        row.not_measured["memory_reached"] = WHY_NOT_REACHED
    for name in ("layers_kept", "parameters", "speed", "memory"):
        if getattr(row, name) is None:
            row.not_measured[name] = f"{row.status} in the phase {row.failure.phase!r}"


def _baseline(
    spec: RunSpec, frozen: FrozenSchedule, stack: ExitStack
) -> tuple[Arm | None, Memory | None]:
    """Return the warm baseline and its memory, or nothing where it does not fit."""
    try:
        memory = measure_memory_of(spec, frozen)
        arm = stack.enter_context(Arm(spec, frozen.steps, frozen.longest))
        warm_up(arm, frozen)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return None, None
    return arm, memory


def _measure(
    spec: RunSpec, frozen: FrozenSchedule, baseline: Arm | None, row: ProfiledRecipe
) -> None:
    """Fill in a row, as far as it gets."""
    with Arm(spec, frozen.steps, frozen.longest) as arm:
        row.attention = arm.attention
        row.layers_kept = arm.layers_kept
        row.parameters = arm.parameters
        row.speed = time_arm(arm, baseline, frozen, lambda: None)
        if baseline is None:
            without_baseline(row.speed, NO_BASELINE)
    row.memory = measure_memory_of(spec, frozen)
