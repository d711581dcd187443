"""Speed and memory of recipes, measured on this device without weights, data or training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Self, TypeVar

from harness.api.backbone import Backbone
from harness.api.recipe import Recipe
from harness.costs.memory_estimate import try_to_estimate
from harness.errors import HarnessError, is_out_of_memory
from harness.measurement.memory import WHY_NOT_REACHED
from harness.measurement.probe import (
    NO_BASELINE,
    NOT_TOGETHER,
    FrozenSchedule,
    add_flop_limit,
    measure_memory_of,
    measure_speed_of,
    measured_process,
    memory_within,
    warm_up,
    without_baseline,
)
from harness.measurement.process import MeasuredProcess
from harness.model.composition import compose
from harness.model.contexts import skeleton_context
from harness.records.measurements import Memory, Speed
from harness.records.phase import Phase
from harness.records.profile import ProfiledRecipe
from harness.records.reasons import explain_nulls
from harness.records.report import Failure
from harness.spec.run_spec import BASELINE, RunSpec
from harness.training.resolved_run import choose_device, resolve_run

OnProgress = Callable[[str], None]

T = TypeVar("T")


def profile_recipes(
    spec: RunSpec,
    backbone: Backbone,
    recipes: Sequence[Recipe],
    frozen: FrozenSchedule,
    on_progress: OnProgress,
) -> list[ProfiledRecipe]:
    """Measure all recipes; see ``each_recipe``."""
    return list(each_recipe(spec, backbone, recipes, frozen, on_progress))


def each_recipe(
    spec: RunSpec,
    backbone: Backbone,
    recipes: Sequence[Recipe],
    frozen: FrozenSchedule,
    on_progress: OnProgress,
    *,
    estimate_memory: bool = True,
) -> Iterator[ProfiledRecipe]:
    """Measure each recipe beside full fine-tuning, whose process stays alive for all recipes.

    A recipe that does not fit into memory is a result, and the next recipe follows. A recipe that
    does not fit beside full fine-tuning is measured alone. If full fine-tuning itself does not fit,
    all recipes are measured alone.

    Args:
        spec: the settings of the measurement; its recipe is not read.
        backbone: the backbone that the spec names.
        recipes: the recipes to measure.
        frozen: the batches to measure on.
        on_progress: is called with the name of each recipe before it is measured.
        estimate_memory: also estimate memory from shapes, which takes seconds for a large model.

    Yields:
        The row of each recipe, as soon as it is measured.
    """
    full_spec = spec.model_copy(update={"recipe": BASELINE})
    on_progress(f"{BASELINE}, the baseline")
    with _Baseline(full_spec, frozen) as baseline:
        for recipe in recipes:
            on_progress(str(recipe))
            row = ProfiledRecipe(recipe=str(recipe), status="ok")
            explain_nulls(row, "it was not requested", "inference")
            if estimate_memory:
                _add_estimate(row, spec, backbone, recipe, frozen)
            else:
                explain_nulls(row, "it was not requested", "predicted_memory")
            try:
                _measure(spec.model_copy(update={"recipe": str(recipe)}), frozen, baseline, row)
            except HarnessError:
                raise
            except Exception as error:
                _record_failure(row, error)
            if row.speed:
                add_flop_limit(row.speed, backbone, recipe, frozen, spec.seed)
            yield row


def _add_estimate(
    row: ProfiledRecipe,
    spec: RunSpec,
    backbone: Backbone,
    recipe: Recipe,
    frozen: FrozenSchedule,
) -> None:
    """Record the memory estimate of ``harness plan``, or the reason why there is none."""
    context = skeleton_context(backbone, spec.seed)
    skeleton = compose(backbone.skeleton(), backbone, recipe, context)
    run = resolve_run(spec, backbone, recipe)
    row.predicted_memory, reason = try_to_estimate(run, skeleton, frozen.longest)
    if reason is not None:
        explain_nulls(row, reason, "predicted_memory")
    process_reason = "memory of a CUDA device beside tensors is not estimated"
    explain_nulls(row, process_reason, "predicted_memory.process_bytes")


def _record_failure(row: ProfiledRecipe, error: Exception) -> None:
    """Record a recipe's failure, and give it as the reason for each number that is missing."""
    phase = (Phase.PROBE_SPEED if row.speed is None else Phase.PROBE_MEMORY).value
    row.status = "oom" if is_out_of_memory(error) else "error"
    row.failure = Failure(phase=phase, message=str(error))
    row.memory_reached = getattr(error, "reached", None)
    if row.status == "oom":
        explain_nulls(row, WHY_NOT_REACHED, "memory_reached")
    reason = f"{row.status} in the phase {phase!r}"
    explain_nulls(row, reason, "layers_kept", "parameters", "speed", "memory")


class _Baseline:
    """Full fine-tuning in a warm process that waits while recipes are measured; a context manager.

    On CUDA memory is measured in this process, see ``memory_within``.

    The waiting process keeps its memory. It ends for a recipe that does not fit beside it, and
    another process is started for the next recipe.

    Attributes:
        memory: the peak memory of full fine-tuning; None if it does not fit.
    """

    def __init__(self, spec: RunSpec, frozen: FrozenSchedule) -> None:
        self.memory: Memory | None = None
        self._spec = spec
        self._frozen = frozen
        self._process: MeasuredProcess | None = None

    def __enter__(self) -> Self:
        if not _measures_both(self._spec):
            with _unless_out_of_memory():
                self.memory = measure_memory_of(self._spec, self._frozen)
            return self
        with _unless_out_of_memory():
            self._process = measured_process(self._spec, self._frozen)
            self.memory = memory_within(self._process, self._spec)
            warm_up(self._process, self._frozen)
            return self
        self.memory = None
        self.make_room()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and self._process is not None:
            self._process.kill()  # It may still be measuring.
        self.make_room()

    def start(self) -> bool:
        """Start and warm up the process if there is none; return whether it fits."""
        if self.memory is None or self._process is not None:
            return self.memory is not None
        with _unless_out_of_memory():
            self._process = measured_process(self._spec, self._frozen)
            warm_up(self._process, self._frozen)
            return True
        self.make_room()
        return False

    def make_room(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.close()
            self._process = None

    def run_beside(self, work: Callable[[MeasuredProcess | None], T]) -> T:
        """Call ``work`` beside the process; if memory runs out, end it and call ``work`` alone."""
        with _unless_out_of_memory(self._process is not None):
            return work(self._process)
        self.make_room()
        return work(None)


@contextmanager
def _unless_out_of_memory(suppress: bool = True) -> Iterator[None]:
    """Suppress an error that says that memory ran out."""
    try:
        yield
    except Exception as error:
        if not (suppress and is_out_of_memory(error)):
            raise


def _measures_both(spec: RunSpec) -> bool:
    """Return whether a process that was timed can also measure its memory.

    CUDA's allocator counts tensors, whatever the process did before. On a CPU the resident memory
    of a process depends on all that it did, so that memory needs a process of its own.
    """
    return choose_device(spec.device).type == "cuda"


def _measure(
    spec: RunSpec, frozen: FrozenSchedule, baseline: _Baseline, row: ProfiledRecipe
) -> None:
    """Fill in a row; if an error ends the measurement, the numbers so far stay in the row."""

    def time(baseline_process: MeasuredProcess | None) -> Speed:
        with measured_process(spec, frozen) as process:
            row.attention = process.attention
            row.layers_kept = process.layers_kept
            row.parameters = process.parameters
            speed = measure_speed_of(process, baseline_process, frozen, lambda: None)
            if _measures_both(spec):
                row.memory = memory_within(process, spec)
        if baseline_process is None:
            without_baseline(speed, NOT_TOGETHER if fits else NO_BASELINE)
        return speed

    fits = baseline.start()
    row.speed = baseline.run_beside(time)
    if row.memory is None:
        row.memory = baseline.run_beside(lambda _: measure_memory_of(spec, frozen))
    if baseline.memory:
        row.memory.relative = row.memory.peak_bytes / baseline.memory.peak_bytes
    else:
        without_baseline(row.memory, NO_BASELINE)
