"""Step 2: training compared with Seq2SeqTrainer + PEFT at its best settings, in turn.

The best settings are measured: batches grouped by length by the trainer, or batches that a sampler
forms by a token budget. For adapters, frozen weights in bfloat16 are tried too. All settings use
bfloat16, fused AdamW and PyTorch's own attention. ``torch_compile`` is tried once, if time is left.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from gpu.step import StepResult, run_step

COMPILE_SECONDS = 100.0
"""Seconds that must be left to try torch_compile, whose first steps take minutes."""
CASE_SECONDS = 30.0
"""Seconds that must be left to begin a comparison: two windows, each in a process of its own."""
NO_TIME = "too little time was left"
WORK = (
    ("t5-large", "lora_ff+lprun", False),
    ("bart-large", "lora_ff+lprun", False),
    ("t5-large", "lora_ff+lprun", True),
    ("bart-large", "full", False),
    ("t5-large", "full", False),
)
"""Shape, recipe, and whether all examples have the maximum length."""


def run(result: StepResult) -> str:
    """Compare each shape and recipe; try ``torch_compile`` once."""
    tiny, device = result.request.tiny, result.request.device
    work = (("nano-t5", "lora_ff+lprun", False),) if tiny else WORK
    for shape, recipe, full_length in work:
        least = 0 if tiny else CASE_SECONDS
        name = f"{shape} {recipe}{', 512/128' if full_length else ''}"
        measure = partial(compare, shape, recipe, device, tiny, full_length, result.deadline)
        result.case(name, measure, least)
    if not tiny:
        shape, recipe, _ = WORK[0]
        if result.seconds_left > COMPILE_SECONDS:
            name = f"{shape} {recipe} torch_compile"
            result.case(name, partial(compiled, shape, recipe, device, result.seconds_left - 10))
        else:
            result.record["torch_compile"] = f"not tried: {NO_TIME}"
    shown = [f"{n} {c['speed_ratio']:.2f}x" for n, c in result.cases.items() if "speed_ratio" in c]
    return f"tokens/s over the trainer's: {', '.join(shown)}" if shown else ""


def compare(
    shape: str, recipe: str, device: str, tiny: bool, full_length: bool, deadline: float
) -> dict[str, Any]:
    """Return the rates of all contenders, and the ratio of the harness to the best peer.

    Every setting of the peer has a window; the fastest one has another, beside the harness's two.
    Windows for which too little time is left are left out, but not the first two.

    Args:
        shape: name of the backbone; its weights are random.
        recipe: the recipe.
        device: ``cuda`` or ``cpu``.
        tiny: take two steps on batches of one example.
        full_length: all examples have the maximum length.
        deadline: time of ``time.monotonic`` at which the step ends.
    """
    from comparison import summary
    from contenders import OURS, Contender, can_round_weights
    from trainer import Settings

    from gpu.device_weights import new_case

    size = {"batch": 1, "warmup": 1, "steps": 2} if tiny else {"warmup": 5, "steps": 16}
    case = new_case(shape, recipe, device, full_length=full_length, **size)
    harness = next(c for c in OURS if c.dtype == "bfloat16")
    base = Contender(Settings("bfloat16", "grouped"))
    settings = [base.settings]
    if not tiny and not full_length:
        low = can_round_weights(base, case.parsed)
        settings.append(Settings("bfloat16", "budget", low_weights=low))
    windows, slower, skipped = measure(case, harness, [*map(Contender, settings)], deadline)
    steps = {
        name: [w.wall / case.steps for w in windows_of_one]
        for name, windows_of_one in windows.items()
    }
    return {
        **summary(windows, harness.name),
        "milliseconds_per_step": {n: 1e3 * statistics.median(s) for n, s in steps.items()},
        "skipped": skipped,
        "slower": {name: window.rate for name, window in slower.items()},
        "engine": windows[harness.name][0].engine,
        "last_losses": {
            name: windows_of_one[-1].losses[-1] for name, windows_of_one in windows.items()
        },
    }


def measure(
    case: Any, harness: Any, peers: Sequence[Any], deadline: float
) -> tuple[dict[str, list[Any]], dict[str, Any], dict[str, str]]:
    """Return windows of the harness and of the best peer, of slower peers, and why some are not."""
    from contenders import run_window
    from solitude import alone

    windows: dict[str, list[Any]] = {}
    skipped: dict[str, str] = {}
    slowest = 0.0

    def run_one(contender: Any) -> None:
        nonlocal slowest
        began = time.monotonic()
        window = alone(run_window, contender, case)
        windows.setdefault(contender.name, []).append(window)
        seconds = time.monotonic() - began
        slowest = max(slowest, seconds)
        print(f"  {contender.name}: {seconds:.1f} s", flush=True)

    def is_time_for(count: int) -> bool:
        return time.monotonic() + 1.2 * count * slowest < deadline

    run_one(harness)
    for peer in peers:
        if peer is not peers[0] and not is_time_for(1):
            skipped[peer.name] = NO_TIME
            continue
        try:
            run_one(peer)
        except Exception as error:  # A failing setting is skipped; the others are still measured.
            if peer is peers[0]:
                raise
            skipped[peer.name] = str(error)
    best = max((p for p in peers if p.name in windows), key=lambda p: windows[p.name][0].rate)
    if is_time_for(2):
        run_one(best)
        run_one(harness)
    slower = {p.name: windows.pop(p.name)[0] for p in peers if p is not best and p.name in windows}
    return windows, slower, skipped


def compiled(shape: str, recipe: str, device: str, seconds: float) -> dict[str, Any]:
    """Return the rate of the trainer with torch_compile."""
    from contenders import Contender, run_window
    from solitude import alone
    from trainer import Settings

    from gpu.device_weights import new_case

    case = new_case(shape, recipe, device, warmup=10, steps=20)
    contender = Contender(Settings("bfloat16", "grouped", compiled=True))
    window = alone(run_window, contender, case, limit=seconds)
    return {"tokens_per_s": window.rate, "peak_bytes": window.memory}


if __name__ == "__main__":
    sys.exit(run_step(run))
