"""Recommend the cheapest recipe that is good enough, with a reason against each other one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from harness.records.record import Record
from harness.reporting.inference_row import milliseconds
from harness.reporting.summary import Estimate, Group, Quality, RecipeRow
from harness.reporting.wording import bounds, count, heading, memory, percent
from harness.spec.run_spec import BASELINE

Cost = Literal["speed", "memory", "parameters", "latency"]
"""Cost by which recipes are ordered: training time, peak memory, trained parameters, or the time to
decode one example."""


class Needs(Record):
    """Conditions that a recipe must satisfy."""

    metric: str
    """Name of the metric that measures quality."""
    min_quality: float
    """Least share of full fine-tuning's quality; the interval's lower bound must reach it."""
    max_memory_bytes: int | None = None
    """Largest peak memory; null sets no limit."""
    min_speed: float | None = None
    """Least training speed relative to full fine-tuning; null sets no limit."""
    max_latency_seconds: float | None = None
    """Largest median time to decode one example at batch 1; null sets no limit."""
    by: Cost = "speed"
    """Cost that decides which recipe is cheaper."""


class Verdict(Record):
    """The judgement on one recipe."""

    recipe: str
    """The recipe in canonical form."""
    qualifies: bool
    """True if the recipe satisfies all needs."""
    reasons: list[str]
    """Reasons why the recipe was not chosen; empty for the chosen one."""
    retention: Estimate | None = None
    """Share of full fine-tuning's quality; null if it is not known. The chosen recipe can lack it
    if its difference shows that it is no worse than full fine-tuning."""
    speed: float | None = None
    """Training speed relative to full fine-tuning."""
    memory_bytes: int | None = None
    """Peak memory."""
    trainable: int | None = None
    """Number of trained parameters."""
    latency_seconds: float | None = None
    """Median time to decode one example at batch 1; null if it was not measured."""


class Recommendation(Record):
    """The recommended recipe for one backbone and task."""

    backbone: str
    """Name of the backbone."""
    task: str
    """Name of the task."""
    settings: str | None
    """Hash of the settings that the runs share."""
    needs: Needs
    """The conditions."""
    planned_for: str | None = None
    """Backbone that memory and parameters were planned for; null if they are those of the runs."""
    chosen: str | None
    """Cheapest recipe that satisfies the needs; null if none does."""
    verdicts: list[Verdict]
    """One verdict per recipe: the chosen one, the other qualified ones by cost, then the rest."""
    notes: list[str] = Field(default_factory=list)
    """Notes on the group."""


def recommend(group: Group, needs: Needs) -> Recommendation:
    """Choose among the recipes of a group.

    Args:
        group: the group of a summary.
        needs: the conditions that the recipe must satisfy.
    """
    verdicts = [_judge(row, needs) for row in group.rows]
    verdicts.sort(key=lambda verdict: (not verdict.qualifies, *_cost(verdict, needs.by)))
    chosen = verdicts[0] if verdicts[0].qualifies else None
    for verdict in verdicts[1:]:
        if chosen and verdict.qualifies:
            verdict.reasons.append(
                f"good enough, but more expensive: {_extra_cost(verdict, chosen, needs.by)}"
            )
    return Recommendation(
        backbone=group.backbone,
        task=group.task,
        settings=group.settings,
        needs=needs,
        chosen=chosen.recipe if chosen else None,
        verdicts=verdicts,
        notes=group.notes,
    )


def _judge(row: RecipeRow, needs: Needs) -> Verdict:
    quality = row.quality.get(needs.metric)
    retention = quality.retention if quality else None
    if row.recipe == BASELINE and quality:
        retention = Estimate(value=1, low=1, high=1)
    verdict = Verdict(
        recipe=row.recipe,
        qualifies=False,
        reasons=[],
        retention=retention,
        speed=row.speed.value if row.speed else None,
        memory_bytes=row.memory_bytes,
        trainable=row.trainable,
        latency_seconds=row.inference.latency_seconds if row.inference else None,
    )
    verdict.reasons = list(_shortfalls(row, verdict, needs))
    verdict.qualifies = not verdict.reasons
    return verdict


def _shortfalls(row: RecipeRow, verdict: Verdict, needs: Needs) -> Iterator[str]:
    """Yield a reason for each need that a recipe does not satisfy."""
    if row.status != "ok":
        yield "; ".join(f"seed {seed}: {how}" for seed, how in row.failures.items()) or row.status
        return
    kept = verdict.retention
    if kept is None and needs.min_quality <= 1 and _is_no_worse(row.quality.get(needs.metric)):
        pass
    elif kept is None or kept.low is None:
        why = (
            row.not_compared
            or row.missing.get(needs.metric)
            or row.no_share.get(needs.metric)
            or "there is no run of full fine-tuning to compare with"
        )
        yield f"the share of {heading(needs.metric)} that it keeps is not known: {why}"
    elif kept.low < needs.min_quality:
        yield (
            f"keeps {percent(kept.value, 1)} of {heading(needs.metric)} "
            f"({bounds(kept, 100, 1)}), and may keep less than {percent(needs.min_quality, 1)}"
        )
    yield from _too_expensive(verdict, needs)


def _too_expensive(verdict: Verdict, needs: Needs) -> Iterator[str]:
    """Yield a reason for each cost that is above its limit or not known."""
    limit = needs.max_memory_bytes
    if limit is not None:
        if verdict.memory_bytes is None:
            yield "its memory is not known"
        elif verdict.memory_bytes > limit:
            size, most = (memory(value, "GiB") for value in (verdict.memory_bytes, limit))
            yield f"takes {size} GiB, more than {most} GiB"
    if needs.min_speed is not None:
        if verdict.speed is None:
            yield "its speed relative to full fine-tuning is not known"
        elif verdict.speed < needs.min_speed:
            yield f"trains at {percent(verdict.speed)}, less than {percent(needs.min_speed)}"
    longest = needs.max_latency_seconds
    if longest is not None:
        if verdict.latency_seconds is None:
            yield "its latency was not measured"
        elif verdict.latency_seconds > longest:
            latency = milliseconds(verdict.latency_seconds)
            yield f"decodes an example in {latency}, more than {milliseconds(longest)}"


def _is_no_worse(quality: Quality | None) -> bool:
    """Return whether even the worse bound of the difference is no worse than full fine-tuning."""
    if quality is None or quality.difference is None:
        return False
    low, high = quality.difference.low, quality.difference.high
    if low is None or high is None:
        return False
    return low >= 0 if quality.higher_is_better else high <= 0


def _cost(verdict: Verdict, by: Cost) -> tuple[float, ...]:
    """Return the sort key: the chosen cost first, others to break ties."""
    unknown = float("inf")
    slowness = 1 / verdict.speed if verdict.speed else unknown
    size = verdict.memory_bytes or unknown
    trained = verdict.trainable or unknown
    if by == "latency":
        return verdict.latency_seconds or unknown, slowness, size
    if by == "speed":
        return slowness, size, trained
    return (size, slowness, trained) if by == "memory" else (trained, slowness, size)


def _extra_cost(verdict: Verdict, chosen: Verdict, by: Cost) -> str:
    if by == "speed":
        return f"trains at {percent(verdict.speed)}, the chosen one at {percent(chosen.speed)}"
    if by == "memory":
        size, chosen_size = (memory(v.memory_bytes, "GiB") for v in (verdict, chosen))
        return f"takes {size} GiB, the chosen one {chosen_size}"
    if by == "latency":
        if verdict.latency_seconds is None or chosen.latency_seconds is None:
            return "its latency was not measured"
        own, best = (milliseconds(v) for v in (verdict.latency_seconds, chosen.latency_seconds))
        return f"decodes an example in {own}, the chosen one in {best}"
    return f"trains {count(verdict.trainable)} parameters, the chosen one {count(chosen.trainable)}"
