"""A third party's plugin that costs what it says, to calibrate the instruments with."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import Field

from harness import (
    Backbone,
    Compressor,
    HarnessError,
    Metric,
    Options,
    Register,
    Score,
    Splits,
    Stage,
    Task,
    clock,
    hookimpl,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Costs(Options):
    """What every micro-batch costs beside the model itself."""

    seconds: float = 0
    """Slept, on a clock on which all else takes no time."""
    jitter: float = Field(0, ge=0)
    """Spread of the sleeps: the standard deviation of their logarithms."""
    seed: int = 0
    """Of the jitter."""
    mebibytes: int = Field(0, ge=0)
    """Allocated where the model is, touched and freed."""
    cycles: int = Field(0, ge=0)
    """For so many a CUDA kernel spins."""

    def slept(self, token: int, visit: int) -> float:
        """Return the seconds that a batch costs at a visit.

        Args:
            token: the batch's first one, by which it is known.
            visit: 1 when it comes for the first time.
        """
        drawn = random.Random(f"{self.seed} {token} {visit}")
        return self.seconds * drawn.lognormvariate(0, self.jitter)


class Costly(Compressor[Costs]):
    """Trains everything, and costs what its options say."""

    stage: ClassVar[Stage] = Stage.OBJECTIVE
    Options = Costs

    def apply(self, model: PreTrainedModel, backbone: Backbone) -> PreTrainedModel:
        """Cost it before every forward pass of training."""
        visits: Counter[int] = Counter()
        if self.options.seconds:
            clock.use(clock.ManualClock())

        def cost(module: torch.nn.Module, args: Any, kwargs: dict[str, torch.Tensor]) -> None:
            if not module.training:
                return
            token = int(kwargs["input_ids"][0, 0])
            visits[token] += 1
            clock.sleep(self.options.slept(token, visits[token]))
            if self.options.mebibytes:
                size = self.options.mebibytes * 2**20
                torch.ones(size, dtype=torch.uint8, device=model.device)
            if self.options.cycles:
                torch.cuda._sleep(self.options.cycles)

        model.register_forward_pre_hook(cost, with_kwargs=True)
        return model


class Refusing(Compressor[Options]):
    """Complains of what only the user can mend."""

    stage: ClassVar[Stage] = Stage.STRUCTURE
    Options = Options

    def apply(self, model: PreTrainedModel, backbone: Backbone) -> PreTrainedModel:
        """Refuse."""
        raise HarnessError("It has no such layers.", "Choose others.")


class Failing(Compressor[Options]):
    """Fails in a way that the first token of the first source chooses."""

    stage: ClassVar[Stage] = Stage.OBJECTIVE
    Options = Options

    def apply(self, model: PreTrainedModel, backbone: Backbone) -> PreTrainedModel:
        """Fail before the forward pass, or not."""

        def fail(module: torch.nn.Module, args: Any, kwargs: dict[str, torch.Tensor]) -> None:
            first = int(kwargs["input_ids"][0, 0])
            if first == 3:
                torch.empty(2**60)
            if first == 4:
                raise MemoryError
            if first == 5:
                raise ValueError("nothing to do with memory")

        model.register_forward_pre_hook(fail, with_kwargs=True)
        return model


class Stuck(Compressor[Options]):
    """Never comes to the end of a step."""

    stage: ClassVar[Stage] = Stage.OBJECTIVE
    Options = Options

    def apply(self, model: PreTrainedModel, backbone: Backbone) -> PreTrainedModel:
        """Sleep for ever before a forward pass of training."""

        def wait(module: torch.nn.Module, args: Any) -> None:
            while module.training:
                time.sleep(60)

        model.register_forward_pre_hook(wait)
        return model


class Killed(Compressor[Options]):
    """Has its process killed, as the kernel does where a machine's memory is gone."""

    stage: ClassVar[Stage] = Stage.OBJECTIVE
    Options = Options

    def apply(self, model: PreTrainedModel, backbone: Backbone) -> PreTrainedModel:
        """Kill it before the first forward pass on real weights."""

        def kill(module: torch.nn.Module, args: Any) -> None:
            # To read a value fails on shapes alone: whoever only predicts goes on living.
            float(next(module.parameters()).flatten()[0])
            os.kill(os.getpid(), signal.SIGKILL)

        model.register_forward_pre_hook(kill)
        return model


class Slowness(Options):
    """Options of the task."""

    seconds: float = 0
    """Slept whenever predictions are scored."""


class SlowToScore(Task[Slowness]):
    """Six rows, which take as long to score as they are told to."""

    Options = Slowness
    primary_metric: ClassVar[str] = "length"

    def splits(self, seed: int) -> Splits:
        """Make four rows to train on and one for each of the others."""
        from datasets import Dataset

        def rows(*numbers: int) -> Dataset:
            texts = [f"finding number {number}" for number in numbers]
            return Dataset.from_dict({"id": texts, "source": texts, "target": texts})

        return Splits(train=rows(1, 2, 3, 4), eval=rows(5), test=rows(6))

    def metrics(self) -> Sequence[Metric]:
        """Return the one."""
        return [SleepyLength(self.options.seconds)]


class SleepyLength(Metric):
    """The length of predictions in characters; it takes its time."""

    names = ("length",)

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def score(
        self, sources: Sequence[str], predictions: Sequence[str], references: Sequence[str]
    ) -> dict[str, Score]:
        """Sleep, and count."""
        clock.sleep(self.seconds)
        return {"length": Score.mean([float(len(p)) for p in predictions], "length")}


@hookimpl
def register_compressors(register: Register) -> None:
    """Register them."""
    register("costly", Costly, "sleeps and allocates")
    register("refusing", Refusing, "complains")
    register("failing", Failing, "fails")
    register("stuck", Stuck, "never ends")
    register("killed", Killed, "is killed")


@hookimpl
def register_tasks(register: Register) -> None:
    """Register it."""
    register("slow-to-score", SlowToScore, "six rows and a slow metric")
