"""Training of a recipe in a process of its own, which takes steps on request."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from harness import clock
from harness.errors import NotMeasurableError
from harness.measurement.memory import memory_reached
from harness.measurement.recipe_process import RecipeProcess
from harness.measurement.request_server import Service
from harness.spec.run_spec import RunSpec
from harness.training.schedule import Step, prefetch

if TYPE_CHECKING:
    import torch

    from harness.api.backbone import Backbone
    from harness.data.calibration import CalibrationData
    from harness.measurement.energy import Meter
    from harness.records.measurements import Energy, Memory, MemoryParts, TimeParts
    from harness.records.report import LayersKept, Parameters
    from harness.spec.decoding import DecodingSettings
    from harness.training.engines.shapes import BatchSize
    from harness.training.trainer import Trainer

_MANY_STEPS = 10_000
"""Length of a training for the schedules of compressors where it is unknown: a measurement sees the
beginning of the training."""


class MeasuredProcess(RecipeProcess):
    """Trains a recipe in a fresh process of its own; a context manager.

    Two of them can take turns on the same steps (A B B A) without sharing an allocator, a thread
    pool or a cache; the one that waits is blocked in a read and takes no processor time.

    Args:
        spec: the recipe, the backbone and the settings.
        steps: the fixed schedule of steps that windows are taken from.
        longest: the step that memory is measured on.
        calibration: the examples that compressors may look at; None gives them random tokens.
        total_steps: optimizer steps of the training that the steps stand for, if known.
        sizes: sizes of that training's batches, from which shapes for CUDA graphs are chosen;
            empty launches each kernel on its own.

    Raises:
        OutOfMemoryError: the process ran out of memory; also raised by every method.
        HarnessError: raised in the process; also raised by every method.
    """

    def __init__(
        self,
        spec: RunSpec,
        steps: Sequence[Step],
        longest: Step,
        calibration: CalibrationData | None = None,
        total_steps: int | None = None,
        sizes: Sequence[BatchSize] = (),
    ) -> None:
        # The profiler that counts tensor bytes would otherwise write to the user's terminal.
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
        super().__init__(spec.recipe, spec.device, _TrainingService)
        self.attention: str
        self.layers_kept: LayersKept
        self.parameters: Parameters
        try:
            self.attention, self.layers_kept, self.parameters = self._ask(
                "prepare", spec, list(steps), longest, calibration, total_steps, list(sizes)
            )
        except BaseException:
            self.close()
            raise

    @property
    def engine(self) -> str:
        """The engine; on CUDA also whether the steps of windows are CUDA graphs."""
        engine: str = self._ask("engine")
        return engine

    def window(self, first: int, count: int) -> float:
        """Take ``count`` steps of the schedule from step ``first`` on, and return the seconds."""
        seconds: float = self._ask("window", first, count)
        return seconds

    def start_meter(self) -> None:
        """Sample idle power and count the energy of windows from now on, if there is a counter."""
        self._ask("start_meter")

    def energy(self, tokens: int) -> Energy:
        """Return the energy of the windows since ``start_meter``, which had ``tokens`` tokens."""
        energy: Energy = self._ask("energy", tokens)
        return energy

    def memory(self, steps: int) -> Memory:
        """Measure the peak over ``steps`` steps on the longest batch."""
        memory: Memory = self._ask("memory", steps)
        return memory

    def time_parts(self, first: int, count: int) -> TimeParts | None:
        """Return the mean time of each part of a step, over ``count`` steps from ``first`` on.

        None if a step is a CUDA graph, which has no parts that could be timed.
        """
        parts: TimeParts | None = self._ask("time_parts", first, count)
        return parts

    def memory_parts(self) -> MemoryParts:
        """Return the tensor bytes of the longest step by purpose; call it after ``memory``."""
        parts: MemoryParts = self._ask("memory_parts")
        return parts

    def decode(self, sources: Sequence[Sequence[int]], settings: DecodingSettings) -> float:
        """Generate predictions for the sources and return the seconds."""
        seconds: float = self._ask("decode", sources, settings)
        return seconds


class _TrainingService(Service):
    """Trains a recipe and measures it, within the process of a request server."""

    backbone: Backbone
    device: torch.device | None = None
    trainer: Trainer
    steps: Sequence[Step]
    longest: Step
    is_recorded = True
    """False if the next window must record the shapes of the steps."""
    sized = False
    meter: Meter | None = None
    why_no_meter = "it was not requested"

    def prepare(
        self,
        spec: RunSpec,
        steps: Sequence[Step],
        longest: Step,
        calibration: CalibrationData | None,
        total_steps: int | None,
        sizes: Sequence[BatchSize],
    ) -> tuple[str, LayersKept, Parameters]:
        """Build the trainer; return its attention, kept layers and parameter counts."""
        from harness.api.plugins import installed
        from harness.training.build import load_trainer
        from harness.training.engine_check import check_engine
        from harness.training.recording import plan_shapes
        from harness.training.resolved_run import resolve_run

        self.steps, self.longest = steps, longest
        plugins = installed()
        self.backbone = plugins.backbone(spec.backbone)
        recipe = plugins.recipe(spec.recipe)
        # The cost of a step does not depend on the weights' values.
        run = replace(resolve_run(spec, self.backbone, recipe), calibration=calibration)
        self.device, self.shared_beams = run.device, run.shared_beams
        trainer = load_trainer(run, drawn_on_device=True)
        check_engine(trainer, spec.train, steps[0])
        trainer.model.train()
        total_steps = total_steps or spec.train.max_steps or _MANY_STEPS
        trainer.events.begin(trainer.model, total_steps)
        self.trainer = trainer
        plan_shapes(trainer, sizes, total_steps)
        self.sized = bool(sizes)
        self.is_recorded = not sizes
        attention = trainer.engine.attention(trainer.model)
        return attention, trainer.layers_kept, trainer.parameters

    def memory_reached(self, error: Exception) -> int | None:
        return memory_reached(error, self.device)

    def engine(self) -> str:
        return self.trainer.engine_name

    def window(self, first: int, count: int) -> float:
        from harness.training.recording import record_ahead

        if not self.is_recorded:
            record_ahead(self.trainer, self.steps)
            self.is_recorded = True
        self._wait()
        with self.meter.window() if self.meter else contextlib.nullcontext():
            began = clock.seconds()
            for step, batches in prefetch(
                self.steps[first : first + count], self.trainer.engine.collate
            ):
                self.trainer.step(batches, step.target_tokens)
            self._wait()
            return clock.seconds() - began

    def start_meter(self) -> None:
        from harness.measurement.energy import Meter, open_counter

        try:
            self.meter = Meter(open_counter(self.trainer.device))
        except NotMeasurableError as error:
            self.why_no_meter = str(error)

    def energy(self, tokens: int) -> Energy:
        from harness.measurement.energy import no_energy

        return self.meter.energy(tokens) if self.meter else no_energy(self.why_no_meter)

    def memory(self, steps: int) -> Memory:
        from harness.measurement.memory import bytes_alive, measure_memory, return_freed_blocks

        trainer = self.trainer
        return_freed_blocks()
        if trainer.graphs is not None:
            trainer.graphs.forget()  # The peak is reached when a step is recorded.
            self.is_recorded = not self.sized

        def step() -> None:
            for step, batches in prefetch([self.longest], trainer.engine.collate):
                trainer.step(batches, step.target_tokens)

        return measure_memory(step, steps, trainer.device, bytes_alive)

    def time_parts(self, first: int, count: int) -> TimeParts | None:
        from harness.measurement.breakdown import time_parts

        if self.trainer.uses_graphs:
            return None
        return time_parts(self.trainer, self.steps[first : first + count])

    def memory_parts(self) -> MemoryParts:
        from harness.measurement.breakdown import memory_parts

        collate = self.trainer.engine.collate
        return memory_parts(self.trainer, [collate(b) for b in self.longest.micro_batches])

    def decode(self, sources: Sequence[Sequence[int]], settings: DecodingSettings) -> float:
        from harness.evaluation.decoding import generate

        tokenizer = self.backbone.tokenizer()
        shared, dtype = self.shared_beams, self.trainer.dtype
        self._wait()
        began = clock.seconds()
        with self.trainer.unpatched() as model:
            generate(model, tokenizer, sources, settings, shared_beams=shared, dtype=dtype)
        self._wait()
        return clock.seconds() - began

    def _wait(self) -> None:
        import torch

        if self.trainer.device.type == "cuda":
            torch.cuda.synchronize(self.trainer.device)
