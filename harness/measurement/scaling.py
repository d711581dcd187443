"""Costs of training in several processes: their speed beside that of one, memory, bytes sent."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch

from harness import clock
from harness.errors import NotMeasurableError
from harness.measurement.memory import peak_so_far, reset_peak
from harness.measurement.network import sent_bytes
from harness.measurement.probe import FrozenSchedule
from harness.records.measurements import ProcessCosts, RankCosts
from harness.records.reasons import explain_nulls
from harness.statistics.intervals import geometric_mean_interval
from harness.training.exchange import merged
from harness.training.processes import Processes
from harness.training.schedule import Step, prefetch
from harness.training.trainer import Trainer

_WARMUPS = 2
"""Repetitions of the warm-up; every process must take as many."""


def measure_processes(
    trainer: Trainer,
    frozen: FrozenSchedule,
    processes: Processes,
    on_progress: Callable[[], None] = lambda: None,
) -> ProcessCosts:
    """Time all processes together beside the main process alone, in windows interleaved A B B A.

    Every process of the group must call this, with an equal trainer. In the windows of one process
    the main process takes whole steps, while the others wait. Both times the steps and their number
    are those of the probe of speed.

    Args:
        trainer: a trainer for this alone; its weights change.
        frozen: the steps to time.
        processes: the processes.
        on_progress: is called after every window.
    """
    single = replace(trainer, graphs=None)
    trainer.join(processes)
    trainer.model.train()
    trainer.events.begin(trainer.model, frozen.total_steps or len(frozen.steps))
    windows = _Windows(trainer, single, frozen, processes)
    for _ in range(_WARMUPS):
        windows.alone(0, frozen.warmup)
        windows.together(0, frozen.warmup)
    windows.own = _Own()
    if trainer.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(trainer.device)
    else:
        reset_peak()
    alone: list[float] = []
    together: list[float] = []
    for index in range(frozen.rounds):
        first = frozen.warmup + index * frozen.window
        for seconds, take in (
            (alone, windows.alone),
            (together, windows.together),
            (together, windows.together),
            (alone, windows.alone),
        ):
            seconds.append(take(first, frozen.window))
            on_progress()
    own = windows.own
    windows.take(trainer, [frozen.longest])
    own.peak_bytes = peak_so_far(trainer.device) or 0
    return _costs(windows, alone, together)


@dataclass
class _Own:
    """Measurements of this process in the windows of all."""

    tokens: int = 0
    sent: int = 0
    steps: int = 0
    peak_bytes: int = 0
    why_not_sent: str = ""

    def as_json(self) -> str:
        return json.dumps(self.__dict__)


@dataclass
class _Windows:
    """Timed windows of a trainer of all processes, and of one for the same model alone."""

    trainer: Trainer
    single: Trainer
    frozen: FrozenSchedule
    processes: Processes
    own: _Own = field(default_factory=_Own)

    def alone(self, first: int, count: int) -> float:
        """Let the main process take whole steps; return the seconds, in every process."""
        self._meet()
        began = clock.seconds()
        if self.processes.rank == 0:
            self.take(self.single, self.frozen.steps[first : first + count])
        self._meet()
        return clock.seconds() - began

    def together(self, first: int, count: int) -> float:
        """Let all processes take their shares of steps; return the seconds."""
        steps = self.frozen.steps[first : first + count]
        self._meet()
        before = self._sent()
        began = clock.seconds()
        self.take(self.trainer, steps)
        self._meet()
        seconds = clock.seconds() - began
        self.own.sent += self._sent() - before
        self.own.steps += count
        self.own.tokens += sum(_tokens(self.processes.share(step)) for step in steps)
        return seconds

    def take(self, trainer: Trainer, steps: Sequence[Step]) -> None:
        """Take optimizer steps, together with the trainer's processes."""
        for step, batches in prefetch(steps, trainer.engine.collate, trainer.processes.share):
            trainer.step(batches, step.target_tokens)

    def _meet(self) -> None:
        """Wait for the device and for the other processes."""
        if self.trainer.device.type == "cuda":
            torch.cuda.synchronize(self.trainer.device)
        self.processes.sum(torch.zeros(()))

    def _sent(self) -> int:
        if self.trainer.device.type == "cuda":
            self.own.why_not_sent = "NCCL does not count the bytes that it sends"
            return 0
        try:
            return sent_bytes()
        except NotMeasurableError as error:
            self.own.why_not_sent = str(error)
            return 0


def _costs(windows: _Windows, alone: list[float], together: list[float]) -> ProcessCosts:
    processes, frozen = windows.processes, windows.frozen
    texts = merged(processes, {processes.rank: windows.own.as_json()})
    ranks = [_Own(**json.loads(texts[rank])) for rank in range(processes.size)]
    why_not_sent = ranks[0].why_not_sent
    seconds = sum(together)
    tokens = 2 * sum(_tokens(step) for step in frozen.steps[frozen.warmup :])
    interval = geometric_mean_interval(
        [one / (processes.size * all_) for one, all_ in zip(alone, together, strict=True)]
    )
    gradients = sum(p.numel() * p.element_size() for p in windows.trainer.trained.values())
    costs = ProcessCosts(
        processes=processes.size,
        tokens_per_s=tokens / seconds,
        single_tokens_per_s=tokens / sum(alone),
        efficiency=interval.value,
        efficiency_ci=(interval.low, interval.high),
        ranks=[
            RankCosts(
                tokens_per_s=own.tokens / seconds,
                peak_bytes=own.peak_bytes,
                sent_bytes_per_step=None if why_not_sent else own.sent / own.steps,
            )
            for own in ranks
        ],
        sent_bytes_per_step=(
            None if why_not_sent else sum(own.sent for own in ranks) / ranks[0].steps
        ),
        least_bytes_per_step=2 * (processes.size - 1) * gradients,
    )
    explain_nulls(costs, why_not_sent, "sent_bytes_per_step")
    return costs


def _tokens(step: Step) -> int:
    """Return the tokens of a step or of a share, without fillers."""
    real = step.micro_batches[: len(step.micro_batches) - step.fillers]
    return sum(len(e.source) + len(e.target) for batch in real for e in batch)
