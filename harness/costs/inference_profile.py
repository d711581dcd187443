"""Costs of decoding of recipes, measured without training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

from harness import clock
from harness.errors import HarnessError, first_line, is_out_of_memory
from harness.measurement.decoding_process import DecodingProcess
from harness.measurement.decoding_work import FrozenDecoding, freeze_decoding
from harness.measurement.inference import measure_inference_of, without_baseline
from harness.measurement.probe import NO_BASELINE, NOT_TOGETHER, FrozenSchedule
from harness.records.inference import Inference
from harness.records.profile import ProfiledRecipe
from harness.records.reasons import explain_nulls
from harness.spec.run_spec import BASELINE, RunSpec

SECONDS = 45.0
"""Time that decoding with one recipe may take."""
NO_MEMORY = "decoding ran out of memory"
"""Reason why a recipe has no costs of decoding."""

OnProgress = Callable[[str], None]


def add_inference(
    rows: Sequence[ProfiledRecipe],
    spec: RunSpec,
    frozen: FrozenSchedule,
    on_progress: OnProgress,
    budget: float = SECONDS,
) -> None:
    """Measure decoding with each recipe beside full fine-tuning, whose process stays alive.

    It is measured after training, so that no window of one is beside a process of the other. A
    recipe that does not fit beside full fine-tuning is measured alone.

    Args:
        rows: the rows of the profile, which get the costs.
        spec: the settings of the measurement; its recipe is not read.
        frozen: the batches whose sources are decoded.
        on_progress: is called with the name of each recipe before it is measured.
        budget: seconds that each recipe may take, with the start of its process.
    """
    work = freeze_decoding(frozen, spec.test)
    on_progress(f"decoding: {BASELINE}, the baseline")
    with _Baseline(spec.model_copy(update={"recipe": BASELINE}), work) as baseline:
        for row in rows:
            on_progress(f"decoding: {row.recipe}")
            own = spec.model_copy(update={"recipe": row.recipe})
            try:
                row.inference = _measure(own, work, baseline, budget)
                row.not_measured.pop("inference", None)
            except HarnessError:
                raise
            except Exception as error:
                reason = NO_MEMORY if is_out_of_memory(error) else f"error: {first_line(error)}"
                explain_nulls(row, reason, "inference")


class _Baseline(ExitStack):
    """Full fine-tuning in a process that waits while recipes decode; a context manager.

    Attributes:
        fits: whether its model fits into memory alone.
    """

    def __init__(self, spec: RunSpec, work: FrozenDecoding) -> None:
        super().__init__()
        self.fits = True
        self._spec = spec
        self._work = work
        self._process: DecodingProcess | None = None

    def start(self) -> DecodingProcess | None:
        """Start the process if there is none; return it, or None if it does not fit."""
        if self._process is None and self.fits:
            process = self.enter_context(DecodingProcess(self._spec, self._work))
            try:
                process.wait()
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                self.fits = False
                return None
            self._process = process
        return self._process

    def make_room(self) -> None:
        """End the process; ``start`` starts another."""
        if self._process is not None:
            self._process.kill()
            self._process = None


def _measure(spec: RunSpec, work: FrozenDecoding, baseline: _Baseline, budget: float) -> Inference:
    def beside(other: DecodingProcess | None) -> Inference:
        began = clock.seconds()
        with DecodingProcess(spec, work) as process:
            process.wait()
            inference = measure_inference_of(
                process, other, work, began + budget, spec.probe.rounds, lambda: None
            )
        inference.seconds = clock.seconds() - began
        return inference

    try:
        if process := baseline.start():
            return beside(process)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        baseline.make_room()
    inference = beside(None)
    without_baseline(inference, NOT_TOGETHER if baseline.fits else NO_BASELINE)
    return inference
