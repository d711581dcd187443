"""A plugin whose recipes cost known amounts of time and memory: it calibrates the measurements."""

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
    Context,
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
    """Costs of every micro-batch beside those of the model."""

    seconds: float = 0
    """Seconds to sleep, on a manual clock: nothing else takes time."""
    jitter: float = Field(0, ge=0)
    """Spread of the sleeps: the standard deviation of their logarithms."""
    seed: int = 0
    """Seeds the jitter."""
    mebibytes: int = Field(0, ge=0)
    """Memory to allocate on the model's device, to write and to free."""
    cycles: int = Field(0, ge=0)
    """Cycles that a CUDA kernel spins."""

    def slept(self, token: int, visit: int) -> float:
        """Return the seconds of sleep for a batch at a visit.

        Args:
            token: the first token of the batch, which identifies it.
            visit: how often the batch was seen, this visit included.
        """
        generator = random.Random(f"{self.seed} {token} {visit}")
        return self.seconds * generator.lognormvariate(0, self.jitter)


class Costly(Compressor[Costs]):
    """Trains all weights; its options say what a batch costs."""

    stage: ClassVar[Stage] = Stage.OBJECTIVE
    Options = Costs

    def apply(
        self, model: PreTrainedModel, backbone: Backbone, context: Context
    ) -> PreTrainedModel:
        """Sleep and allocate before every forward pass of training."""
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
    """Raises an error that only the user can mend."""

    stage: ClassVar[Stage] = Stage.STRUCTURE
    Options = Options

    def apply(
        self, model: PreTrainedModel, backbone: Backbone, context: Context
    ) -> PreTrainedModel:
        """Raise the error."""
        raise HarnessError("It has no such layers.", "Choose others.")


class SlowLayers(Compressor[Costs]):
    """Sleeps in each call of a decoder layer, and allocates in each call of the model."""

    stage: ClassVar[Stage] = Stage.OBJECTIVE
    Options = Costs

    def apply(
        self, model: PreTrainedModel, backbone: Backbone, context: Context
    ) -> PreTrainedModel:
        """Sleep before every call of a decoder layer that is left."""
        if self.options.seconds:
            clock.use(clock.ManualClock())

        def sleep(module: torch.nn.Module, args: Any) -> None:
            clock.sleep(self.options.seconds)

        def allocate(module: torch.nn.Module, args: Any) -> None:
            if self.options.mebibytes:
                torch.ones(self.options.mebibytes * 2**20, dtype=torch.uint8, device=model.device)

        for layer in backbone.layers(model, "decoder"):
            layer.register_forward_pre_hook(sleep)
        model.register_forward_pre_hook(allocate)
        return model


class Failing(Compressor[Options]):
    """Fails in one of three ways, by the first token of the first source."""

    stage: ClassVar[Stage] = Stage.OBJECTIVE
    Options = Options

    def apply(
        self, model: PreTrainedModel, backbone: Backbone, context: Context
    ) -> PreTrainedModel:
        """Fail before the forward pass, where the first token says so."""

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
    """Never finishes a step."""

    stage: ClassVar[Stage] = Stage.OBJECTIVE
    Options = Options

    def apply(
        self, model: PreTrainedModel, backbone: Backbone, context: Context
    ) -> PreTrainedModel:
        """Sleep for ever before a forward pass of training."""

        def wait(module: torch.nn.Module, args: Any) -> None:
            while module.training:
                time.sleep(60)

        model.register_forward_pre_hook(wait)
        return model


class Killed(Compressor[Options]):
    """Kills its process, as the kernel does when a machine runs out of memory."""

    stage: ClassVar[Stage] = Stage.OBJECTIVE
    Options = Options

    def apply(
        self, model: PreTrainedModel, backbone: Backbone, context: Context
    ) -> PreTrainedModel:
        """Kill the process before the first forward pass on real weights."""

        def kill(module: torch.nn.Module, args: Any) -> None:
            # Reading a value fails on shapes alone: a memory estimate is not killed.
            float(next(module.parameters()).flatten()[0])
            os.kill(os.getpid(), signal.SIGKILL)

        model.register_forward_pre_hook(kill)
        return model


class Slowness(Options):
    """Options of the task."""

    seconds: float = 0
    """Seconds to sleep whenever predictions are scored."""


class SlowToScore(Task[Slowness]):
    """Six rows; scoring takes as long as the options say."""

    Options = Slowness
    primary_metric: ClassVar[str] = "length"

    def splits(self, seed: int) -> Splits:
        """Return four rows to train on, and one for each other split."""
        from datasets import Dataset

        def rows(*numbers: int) -> Dataset:
            texts = [f"finding number {number}" for number in numbers]
            return Dataset.from_dict({"id": texts, "source": texts, "target": texts})

        return Splits(train=rows(1, 2, 3, 4), eval=rows(5), test=rows(6))

    def metrics(self) -> Sequence[Metric]:
        """Return the one metric, which sleeps."""
        return [SleepyLength(self.options.seconds)]


class SleepyLength(Metric):
    """Length of predictions in characters; scoring sleeps first."""

    names = ("length",)

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def score(
        self, sources: Sequence[str], predictions: Sequence[str], references: Sequence[str]
    ) -> dict[str, Score]:
        """Sleep, then count characters."""
        clock.sleep(self.seconds)
        return {"length": Score.mean([float(len(p)) for p in predictions], "length")}


@hookimpl
def register_compressors(register: Register) -> None:
    """Register the compressors."""
    register("costly", Costly, "sleeps and allocates")
    register("slow_layers", SlowLayers, "sleeps in each decoder layer")
    register("refusing", Refusing, "complains")
    register("failing", Failing, "fails")
    register("stuck", Stuck, "never ends")
    register("killed", Killed, "is killed")


@hookimpl
def register_tasks(register: Register) -> None:
    """Register the task."""
    register("slow-to-score", SlowToScore, "six rows and a slow metric")
