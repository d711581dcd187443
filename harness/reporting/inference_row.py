"""Costs of decoding in tables: the means over a recipe's seeds, their columns and their notes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from statistics import fmean
from typing import NamedTuple

from harness.records.inference import Inference, Timing
from harness.records.reasons import explain_nulls
from harness.reporting.mean_speed import mean_speed
from harness.reporting.summary import Estimate, Group, InferenceRow
from harness.reporting.wording import bounds, memory, percent

OF_BATCH = ("batch_size", "output_tokens_per_s", "throughput")
"""Fields of a row that a timed batch gives."""


def inference_row(measured: Sequence[Inference]) -> InferenceRow | None:
    """Average the costs of decoding over seeds.

    Args:
        measured: the costs of each seed that measured them.

    Returns:
        The means, or None without any costs.
    """
    if not measured:
        return None
    first = measured[0]
    batches = [each.throughput for each in measured if each.throughput]
    per_token = [each.per_token.seconds for each in measured if each.per_token]
    p95 = [each.latency.p95_seconds for each in measured if each.latency.p95_seconds is not None]
    shares = [each.memory.relative for each in measured if each.memory.relative is not None]
    row = InferenceRow(
        latency_seconds=fmean(each.latency.median_seconds for each in measured),
        p95_seconds=fmean(p95) if p95 else None,
        prefill_seconds=fmean(each.prefill.seconds for each in measured),
        per_token_seconds=fmean(per_token) if per_token else None,
        latency=_relative(each.latency for each in measured),
        batch_size=batches[0].batch_size if batches else None,
        output_tokens_per_s=fmean(b.output_tokens_per_s for b in batches) if batches else None,
        throughput=_relative(batches),
        memory_bytes=max(each.memory.peak_bytes for each in measured),
        memory_relative=fmean(shares) if shares else None,
        model_bytes=first.size.model_bytes,
        trained_bytes=first.size.trained_bytes,
        beams=first.beams,
        output_tokens=first.output_tokens,
        noise_floor=max(each.latency.noise_floor or 0 for each in measured) or None,
    )
    no_batch = first.not_measured.get("throughput")
    explain_nulls(row, no_batch or _why(batches[0] if batches else None), *OF_BATCH)
    explain_nulls(row, first.latency.not_measured.get("p95_seconds", ""), "p95_seconds")
    explain_nulls(row, first.not_measured.get("per_token", ""), "per_token_seconds")
    explain_nulls(row, _why(first.latency), "latency", "noise_floor")
    explain_nulls(row, first.memory.not_measured.get("relative", ""), "memory_relative")
    return row


def _relative(timings: Iterable[Timing]) -> Estimate | None:
    return mean_speed([(timing.relative, timing.relative_ci) for timing in timings])


def _why(timing: Timing | None) -> str:
    return timing.not_measured.get("relative", "") if timing else ""


def batch_sizes(group: Group) -> list[int]:
    """Return the batch sizes of a group's rows; usually one."""
    sizes = {row.inference.batch_size for row in group.rows if row.inference}
    return sorted(size for size in sizes if size)


def inference_headings(group: Group) -> list[str]:
    """Return the headings of the columns of decoding; none if no row measured it."""
    if not group.has_inference:
        return []
    sizes = " or ".join(map(str, batch_sizes(group)))
    unit = group.memory_unit
    return [
        "latency",
        "decode",
        *([f"decode x{sizes}"] if sizes else []),
        f"decode {unit}",
        "model MB",
    ]


class InferenceCell(NamedTuple):
    """A cell of a table of decoding.

    Attributes:
        value: the value as text.
        more: its interval or share as text; empty without one.
        number: the value to sort by; empty if it is unknown.
    """

    value: str
    more: str
    number: float | str


def inference_cells(group: Group, row: InferenceRow | None) -> list[InferenceCell]:
    """Return a cell for each of ``inference_headings``."""
    if row is None:
        return [InferenceCell("-", "", "")] * len(inference_headings(group))
    tail = "" if row.p95_seconds is None else f"p95 {milliseconds(row.p95_seconds)}"
    share = "" if row.memory_relative is None else percent(row.memory_relative)
    size = memory(row.memory_bytes, group.memory_unit)
    return [
        InferenceCell(milliseconds(row.latency_seconds), tail, row.latency_seconds),
        _speed(row.latency),
        *([_speed(row.throughput)] if batch_sizes(group) else []),
        InferenceCell(size, share, row.memory_bytes),
        InferenceCell(f"{row.model_bytes / 1e6:,.0f}", "", row.model_bytes),
    ]


def milliseconds(seconds: float) -> str:
    """Write a time in milliseconds with three significant digits."""
    return f"{1000 * seconds:.3g} ms" if seconds < 1 else f"{1000 * seconds:,.0f} ms"


def _speed(estimate: Estimate | None) -> InferenceCell:
    if estimate is None:
        return InferenceCell("-", "", "")
    return InferenceCell(percent(estimate.value), bounds(estimate, 100), estimate.value)


def inference_legend(groups: Iterable[Group]) -> Iterator[str]:
    """Yield the sentences that explain the columns of decoding."""
    rows = [row.inference for group in groups for row in group.rows if row.inference]
    if not rows:
        return
    beams = " or ".join(map(str, sorted({row.beams for row in rows})))
    tokens = " or ".join(map(str, sorted({row.output_tokens for row in rows})))
    yield (
        f"latency: median time to decode one text with the merged model, {beams} beams; every text "
        f"gets {tokens} tokens."
    )
    yield (
        "decode: decoding speed relative to full fine-tuning's on the same sources, one text at a "
        "time; x: so many at once."
    )
    yield (
        "decode GiB or GB: peak memory while decoding; model MB: weights of the merged model, on "
        "disk."
    )


def inference_notes(group: Group) -> Iterator[str]:
    """Yield the noise of decoding speeds, and why numbers of decoding are missing."""
    rows = {row.recipe: row for row in group.rows if row.status == "ok"}
    if not group.has_inference:
        return
    floors = [row.inference.noise_floor or 0 for row in rows.values() if row.inference]
    if floor := max(floors, default=0):
        yield (
            f"A difference of decoding speed below {100 * (floor - 1):.0f} % is noise, as full "
            "fine-tuning differed from itself by as much."
        )
    lacking: dict[str, list[str]] = {}
    for recipe, row in rows.items():
        own = row.inference
        if own is None:
            reason = row.not_measured.get("inference", "the run is of an older version")
            lacking.setdefault(f"No decoding was measured ({reason})", []).append(recipe)
            continue
        for name, what in (("latency", "relative decoding speed"), ("batch_size", "decoded batch")):
            if why := own.not_measured.get(name):
                lacking.setdefault(f"No {what} ({why})", []).append(recipe)
    for sentence, recipes in lacking.items():
        of = "" if len(recipes) == len(rows) else f": {', '.join(recipes)}"
        yield f"{sentence}{of}."
