"""Step 7: decoding with six beams; the harness and transformers run in turn, then reversed."""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from gpu.step import StepResult, run_step


def run(result: StepResult) -> str:
    """Time both searches on each shape."""
    device, tiny = result.request.device, result.request.tiny
    shapes = ("nano-t5",) if tiny else ("t5-large", "bart-large")
    count, tokens = (2, 4) if tiny else (16, 64)
    for shape in shapes:
        result.case(shape, partial(compare, shape, device, count, tokens))
    ratios = [f"{n} {c['ratio']:.1f}x" for n, c in result.cases.items() if "ratio" in c]
    return f"the library's time over ours: {', '.join(ratios)}" if ratios else ""


def compare(shape: str, device: str, count: int, tokens: int) -> dict[str, Any]:
    """Return the seconds of both searches in bfloat16, and the number of equal predictions."""
    from gpu.beams import model_and_sources, open_search
    from harness.spec.decoding import DecodingSettings

    model, backbone, sources = model_and_sources(shape, device, count)
    settings = DecodingSettings(max_new_tokens=tokens)
    first = settings.model_copy(update={"max_new_tokens": 2})
    names = ("harness", "transformers")
    seconds: dict[str, list[float]] = {name: [] for name in names}
    texts: dict[str, list[str]] = {}
    for name in (*names, *reversed(names)):
        with open_search(model, backbone, name == "harness", "bfloat16") as search:
            # Lazy loading is not timed, and neither is recording; the library records nothing.
            for warm in [settings, settings] if name == "harness" else [first]:
                search(sources, warm)
            wait(device)
            began = time.perf_counter()
            texts[name] = search(sources, settings)
            wait(device)
            seconds[name].append(time.perf_counter() - began)
    return {
        "examples": count,
        "beams": 6,
        "max_new_tokens": tokens,
        "seconds_of_windows": seconds,
        "examples_per_s": {n: count / statistics.median(s) for n, s in seconds.items()},
        "ratio": ratio(seconds["transformers"], seconds["harness"]),
        "same": sum(a == b for a, b in zip(*texts.values(), strict=True)),
    }


def ratio(seconds: Sequence[float], own_seconds: Sequence[float]) -> float:
    """Return the geometric mean of the ratios of matched windows: seconds over own seconds."""
    logarithms = [math.log(a / b) for a, b in zip(seconds, own_seconds, strict=True)]
    return math.exp(statistics.mean(logarithms))


def wait(device: str) -> None:
    """Wait for the device."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


if __name__ == "__main__":
    sys.exit(run_step(run))
