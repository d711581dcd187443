"""Search for the trainer's fastest setting, and comparison of the harness with it."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from clock import Window, in_the_running, matrix_rate
from contenders import (
    DEFAULT,
    OURS,
    Contender,
    can_round_weights,
    run_curve,
    run_window,
    together,
    variants,
)
from measured import Measured
from solitude import NoResultError, alone
from trainer import Settings, why_no_liger
from work import Case, tokens_of

from harness.model.composition import compose
from harness.model.flops import flop_limit, training_flops
from harness.statistics.intervals import geometric_mean_interval
from harness.training.resolved_run import choose_dtype

CURVES = (
    DEFAULT,
    Contender(Settings("bfloat16")),
    Contender(Settings("bfloat16", low_weights=True)),
    *OURS,
)
CLOSENESS = {"float32": 1e-4, "bfloat16": 1e-2}  # of losses, relative to the trainer's in float32
HELPED = 1.05
"""A setting that made a short window this much faster is also tried with others that did."""
MOST = 3
"""Peers in long windows."""
COMPILE_LIMIT = 900
"""Seconds for a short window of a compiled model, its compilation included."""


@dataclass(frozen=True)
class Plan:
    """Plan of measuring a case.

    Attributes:
        trial_steps: timed steps of a short window.
        rounds: rounds of long windows; each round runs all contenders, then again in reverse.
        compiled: whether ``torch_compile`` is tried, which takes minutes.
        excluded: name of a peer that is not compared with -> the reason.
    """

    trial_steps: int
    rounds: int
    compiled: bool
    excluded: dict[str, str]


def default(case: Case) -> Contender:
    """Return the harness in its default precision for the case."""
    chosen = choose_dtype("auto", torch.device(case.device), case.backbone)
    return next(c for c in OURS if getattr(torch, c.dtype) == chosen)


def compare(case: Case, plan: Plan, measured: Measured) -> dict[str, Any]:
    """Try the peers, run the fastest ones and the harness in turn; return rates and ratios."""
    case.check()
    ours = default(case)
    rate = measured.once("matrix_rate", lambda: alone(matrix_rate, case.device, case.threads))
    peers = try_peers(case, plan, measured)
    for contender in OURS:
        trial(contender, case, plan, measured)
    tried = {c.name: trial_rate(measured, c, case) for c in peers}
    near = in_the_running({name: r for name, r in tried.items() if not is_excluded(name, plan)})
    near = sorted(near, key=lambda name: -tried[name])[:MOST]
    finalists = [c for c in peers if c.name in near] + [ours]
    orders = [finalists, finalists[::-1]] * plan.rounds
    for number, order in enumerate(orders):
        for contender in order:
            measured.window(contender.name, number, partial(window, contender, case))
    shown = {name: [one] for name, one in measured.trials.items()} | measured.windows
    rates = {name: statistics.median(w.rate for w in ws) for name, ws in shown.items()}
    return {
        **case.record(),
        **summary(measured.windows, ours.name),
        **limits_of(case, rate, rates),
    }


def try_peers(case: Case, plan: Plan, measured: Measured) -> list[Contender]:
    """Run a short window of each setting of the trainer; return those that ran."""
    measured.skip("liger", why_no_liger(case.backbone.config().model_type))

    def tried(contenders: Iterable[Contender]) -> list[Contender]:
        return [c for c in contenders if trial(c, case, plan, measured)]

    def rate(contender: Contender) -> float:
        return trial_rate(measured, contender, case)

    if case.device == "cuda":  # Nobody would choose float32 on a GPU.
        first = tried([Contender(Settings("bfloat16", "grouped"))])
    else:
        first = tried([Contender(Settings(d, "grouped")) for d in ("bfloat16", "float32")])
    base = max(first, key=rate)
    others = tried(variants(base, case.parsed))
    if not can_round_weights(base, case.parsed):
        measured.skip("bf16 weights", "its products are in float32, or all weights are trained")
    better = [c for c in others if rate(c) > HELPED * rate(base) and not is_excluded(c.name, plan)]
    if len(better) > 1:
        others += tried([together(base, better)])
    defaults = tried([DEFAULT]) if case.device == "cpu" else []
    return list(dict.fromkeys([*first, *others, *defaults]))


def trial_rate(measured: Measured, contender: Contender, case: Case) -> float:
    """Return a contender's rate in its short window.

    On a CPU it is the rate by processor time, so that other work on the machine does not decide.
    """
    window = measured.trials[contender.name]
    return window.rate if case.device == "cuda" else window.rate_by_processor


def trial(contender: Contender, case: Case, plan: Plan, measured: Measured) -> bool:
    """Run a short window of a contender, once; return whether it ran."""
    if contender.settings.compiled and not plan.compiled:
        measured.skip(contender.name, "left out by --no-compile")
        return False
    short = replace(case, steps=plan.trial_steps)
    limit = COMPILE_LIMIT if contender.settings.compiled else None
    try:
        measured.trial(contender.name, lambda: window(contender, short, limit))
    except NoResultError as reason:
        if contender.ours:
            raise
        measured.skip(contender.name, str(reason))
    return contender.name in measured.trials


def window(contender: Contender, case: Case, limit: float | None = None) -> Window:
    """Run one window in a process of its own."""
    measured_window: Window = alone(run_window, contender, case, limit=limit)
    timed = case.batches(contender.settings.batching)[case.warmup :]
    if measured_window.tokens != sum(map(tokens_of, timed)):
        tokens = measured_window.tokens
        raise SystemExit(f"degenerate: {contender.name} trained {tokens} tokens, not all")
    return measured_window


def is_excluded(name: str, plan: Plan) -> bool:
    """Return whether a contender has a setting that the plan excludes."""
    return any(part in name for part in plan.excluded)


def summary(windows: dict[str, list[Window]], ours: str) -> dict[str, Any]:
    """Return medians and one contender's ratios to the best peer."""
    rates = {name: [w.rate for w in those] for name, those in windows.items()}
    processor = {name: [w.rate_by_processor for w in those] for name, those in windows.items()}
    memory = {name: statistics.median(w.memory for w in ws) for name, ws in windows.items()}
    peers = [name for name in windows if name != ours]
    best = max(peers, key=lambda name: statistics.median(rates[name]))
    matched = [a / b for a, b in zip(rates[ours], rates[best], strict=True)]
    interval = geometric_mean_interval(matched) if len(matched) > 1 else None
    return {
        "tokens_per_s": {name: statistics.median(values) for name, values in rates.items()},
        "peak_bytes": memory,
        "ours": ours,
        "peer": best,
        "speed_ratio": statistics.geometric_mean(matched),
        "speed_ratio_ci": [interval.low, interval.high] if interval else None,
        "speed_ratio_by_processor_time": statistics.median(processor[ours])
        / statistics.median(processor[best]),
        "memory_ratio": memory[ours] / memory[best],
    }


def limits_of(case: Case, rate: float, speeds: dict[str, float]) -> dict[str, Any]:
    """Return the limits that the matrix products of a step set.

    Args:
        case: the shape and the recipe.
        rate: the machine's rate of bfloat16 matrix products, in operations per second.
        speeds: name of a contender -> its tokens per second.
    """
    record = case.record()
    source, target = round(record["mean_source_tokens"]), round(record["mean_target_tokens"])
    model = compose(case.backbone.skeleton(), case.backbone, case.parsed)
    flops = training_flops(model, source, target).total / (source + target)
    return {
        "share_of_matrix_rate": {name: flops * s / rate for name, s in speeds.items()},
        "flop_limit": flop_limit(case.backbone, case.parsed, source, target),
    }


def curves(case: Case) -> dict[str, Any]:
    """Return the losses of 50 steps and how far each curve is from the trainer's in float32."""
    losses = {c.name: alone(run_curve, c, case) for c in CURVES}
    reference = losses[DEFAULT.name]
    differences = {
        name: max(abs(a / b - 1) for a, b in zip(curve, reference, strict=True))
        for name, curve in losses.items()
    }
    excluded = {}
    for contender in CURVES:
        if differences[contender.name] <= CLOSENESS[contender.dtype]:
            continue
        if not contender.settings.low_weights:
            raise SystemExit(f"degenerate: {contender.name} trains to other losses: {differences}")
        excluded["bf16 weights"] = f"losses are {differences[contender.name]:.1%} off"
    return {
        **case.record(),
        "losses": losses,
        "largest_relative_difference": differences,
        "excluded": excluded,
    }
