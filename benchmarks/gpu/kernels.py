"""Step 3: the time of a step by torch.profiler: launches, host time, device time by kind.

The harness and the trainer take equal batches. An equal step is timed without the profiler; its
time without a running kernel is idle time, in which the device waits for launches.
"""

from __future__ import annotations

import re
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from gpu.step import StepResult, run_step

WARM = 4
"""Warm-up steps before the profiled step."""
KINDS = (
    ("attention", r"flash|fmha|attention|softmax"),
    ("products", r"gemm|gemv|cutlass|cublas|nvjet|xmma|splitk|aten::(addmm|mm|bmm)$"),
    ("copies", r"memcpy|memset|copy|catarray|gather|scatter|index|fill|aten::(cat|zero_)"),
    ("optimizer", r"multi_tensor|adam|foreach|lpnorm"),
)
"""Kind of a kernel -> pattern of its name; the first match counts. The rest is element-wise."""
REST = "element-wise"
SECONDS = 5.0
"""Seconds that must be left to profile a step."""
MOST_NAMES = 40
"""Number of kernels that are listed by name."""


@dataclass(frozen=True)
class Kernel:
    """One kernel or one copy that ran on the device.

    Attributes:
        name: name given by the profiler.
        start: start in nanoseconds.
        duration: duration in nanoseconds.
    """

    name: str
    start: int
    duration: int


def kind_of(name: str) -> str:
    """Return the kind of a kernel."""
    lower = name.lower()
    return next((kind for kind, words in KINDS if re.search(words, lower)), REST)


def sum_up(kernels: Sequence[Kernel], step_seconds: float) -> dict[str, Any]:
    """Return launches and milliseconds by kind.

    Args:
        kernels: the kernels of one step.
        step_seconds: seconds of an equal step without the profiler, until the device finished.
    """
    milliseconds: dict[str, float] = defaultdict(float)
    launches: Counter[str] = Counter()
    names: Counter[str] = Counter()
    times: defaultdict[str, float] = defaultdict(float)
    for kernel in kernels:
        milliseconds[kind_of(kernel.name)] += kernel.duration / 1e6
        launches[kind_of(kernel.name)] += 1
        names[kernel.name] += 1
        times[kernel.name] += kernel.duration / 1e6
    busy = busy_nanoseconds(kernels) / 1e6
    return {
        "launches": len(kernels),
        "launches_by_kind": dict(launches),
        "device_ms": busy,
        "idle_ms": max(0.0, step_seconds * 1e3 - busy),
        "device_ms_by_kind": dict(milliseconds),
        "most_launched": dict(names.most_common(MOST_NAMES)),
        "longest_ms": dict(sorted(times.items(), key=lambda item: -item[1])[:MOST_NAMES]),
    }


def busy_nanoseconds(kernels: Iterable[Kernel]) -> int:
    """Return the nanoseconds in which at least one of the kernels ran."""
    busy = end = 0
    for kernel in sorted(kernels, key=lambda k: k.start):
        stop = kernel.start + kernel.duration
        busy += max(0, stop - max(end, kernel.start))
        end = max(end, stop)
    return busy


def device_kernels(profiler: Any) -> list[Kernel]:
    """Return the kernels and copies that ran on the device while a profiler was active."""
    from torch._C._autograd import DeviceType

    return [
        Kernel(e.name(), e.start_ns(), e.duration_ns())
        for e in profiler.profiler.kineto_results.events()
        if e.device_type() == DeviceType.CUDA
        and not e.is_user_annotation()
        and not e.name().startswith(("Optimizer.", "ProfilerStep"))
    ]


class ProfilingClock:
    """Replaces the benchmark's clock: records one step with the profiler.

    Args:
        device: ``cuda`` or ``cpu``.
        warm: warm-up steps before the profiled step.
    """

    def __init__(self, device: str, warm: int = WARM) -> None:
        self.device = device
        self.warm = warm
        self.measurements: dict[str, Any] = {}
        self._profiler: Any = None
        self._began = 0.0
        self._seconds = 0.0

    def step_done(self, steps: int, tokens: int) -> None:
        """Count a step; the last warm-up step is timed without the profiler.

        Args:
            steps: number of steps queued so far.
            tokens: source and target tokens of the last one.
        """
        if steps == self.warm - 1:
            self._wait()
            self._began = time.perf_counter()
        elif steps == self.warm:
            host = time.perf_counter() - self._began
            self._wait()
            self._seconds = time.perf_counter() - self._began
            self.measurements = {"host_ms": host * 1e3, "step_ms": self._seconds * 1e3}
            self._start()
        elif steps == self.warm + 1:
            self._wait()
            self._profiler.stop()
            self.measurements |= sum_up(self._kernels(), self._seconds) | {"tokens": tokens}

    def read(self, losses: list[Any]) -> dict[str, Any]:
        """Return the measurements of the profiled step and its loss."""
        return {**self.measurements, "loss": float(losses[-1])}

    def _start(self) -> None:
        from torch.profiler import ProfilerActivity, profile

        activities = [ProfilerActivity.CPU]
        if self.device == "cuda":
            activities.append(ProfilerActivity.CUDA)
        self._profiler = profile(activities=activities)
        self._profiler.start()

    def _kernels(self) -> list[Kernel]:
        """Return the kernels of the device; on a CPU the operators, each with its own time."""
        if self.device == "cuda":
            return device_kernels(self._profiler)
        return [
            Kernel(e.name, int(e.time_range.start * 1e3), int(e.self_cpu_time_total * 1e3))
            for e in self._profiler.events()
            if e.name.startswith("aten::") and e.self_cpu_time_total > 0
        ]

    def _wait(self) -> None:
        if self.device == "cuda":
            import torch

            torch.cuda.synchronize()


def run(result: StepResult) -> str:
    """Profile a step of each contender on each shape and recipe."""
    from trainer import Settings

    device, tiny = result.request.device, result.request.tiny
    shapes = ("nano-t5",) if tiny else ("t5-large", "bart-large")
    recipes = ("lora_ff+lprun",) if tiny else ("lora_ff+lprun", "lora_ff", "full")
    peer = Settings("bfloat16", "grouped")
    batch = 1 if tiny else 8
    for recipe in recipes:
        for shape in shapes:
            work = shape, recipe, device, batch
            result.case(f"{shape} {recipe} harness", partial(profile_harness, *work), SECONDS)
            result.case(f"{shape} {recipe} trainer", partial(profile_trainer, *work, peer), SECONDS)
    return "; ".join(filter(None, (in_words(result.cases, shape) for shape in shapes)))


def in_words(cases: dict[str, Any], shape: str) -> str:
    """Return a sentence on the launches of both contenders, empty where one is unknown."""
    both_cases = [cases.get(f"{shape} lora_ff+lprun {who}", {}) for who in ("harness", "trainer")]
    if not all("launches" in case for case in both_cases):
        return ""
    own, other = (f"{case['launches']:,}" for case in both_cases)
    return f"{shape} lora_ff+lprun launches {own}, the trainer {other}"


def batches_of(case: Any) -> list[Any]:
    """Return an equal batch for each step up to the profiled one."""
    from work import make_examples

    vocabulary = case.backbone.config().vocab_size
    return [make_examples(case.batch, vocabulary, full_length=False)] * (WARM + 1)


def profile_harness(shape: str, recipe: str, device: str, batch: int) -> dict[str, Any]:
    """Profile a step of the harness."""
    import torch

    from gpu.device_weights import new_case
    from harness.spec.run_spec import RunSpec
    from harness.training.build import load_trainer
    from harness.training.engines.shapes import size_of
    from harness.training.recording import plan_shapes
    from harness.training.resolved_run import resolve_run

    case = new_case(shape, recipe, device, batch=batch)
    spec = RunSpec.model_validate(
        {
            "backbone": shape,
            "recipe": recipe,
            "weights": "random",
            "device": device,
            "train": {"precision": "bfloat16"},
        }
    )
    trainer = load_trainer(resolve_run(spec, case.backbone, case.parsed))
    trainer.model.train()
    clock = ProfilingClock(device)
    losses: list[torch.Tensor] = []
    batches = batches_of(case)
    plan_shapes(trainer, [*map(size_of, batches)], planned_steps=100)  # Steps but the first replay.
    collated = [trainer.engine.collate(examples) for examples in batches]
    for steps, step_batch in enumerate(collated, start=1):
        losses.append(trainer.step([step_batch], step_batch.target_tokens))
        clock.step_done(steps, step_batch.source_tokens + step_batch.target_tokens)
    return {**clock.read(losses), "engine": trainer.engine_name}


def profile_trainer(
    shape: str, recipe: str, device: str, batch: int, settings: Any
) -> dict[str, Any]:
    """Profile a step of the trainer."""
    import torch
    from trainer import build, train

    from gpu.device_weights import new_case
    from harness.training.resolved_run import choose_device

    choose_device(device)
    torch.manual_seed(0)
    case = new_case(shape, recipe, device, batch=batch)
    model = build(settings, case.backbone, case.parsed, "random")
    clock: Any = ProfilingClock(device)
    measurements: Any = train(settings, model, batches_of(case), device, clock)
    return dict(measurements)


if __name__ == "__main__":
    sys.exit(run_step(run))
