"""Lines on a run's costs: the parts of its step time and memory, its FLOP limit and energy."""

from __future__ import annotations

from collections.abc import Iterator

from harness.records.inference import Inference
from harness.records.measurements import Energy, Memory, MemoryParts, TimeParts
from harness.records.report import Report
from harness.reporting.inference_row import milliseconds
from harness.reporting.wording import percent


def breakdown_lines(report: Report) -> Iterator[str]:
    """Yield a line for each measured part of the costs, from a step to decoding."""
    speed, memory = report.speed, report.memory
    if speed and speed.parts:
        seconds = {part: getattr(speed.parts, part) for part in TimeParts.model_fields}
        total = sum(seconds.values())
        shares = ", ".join(f"{part} {percent(value / total)}" for part, value in seconds.items())
        yield f"step: {shares}"
    if memory and memory.parts:
        mebibytes = {
            part: getattr(memory.parts, part) / 2**20
            for part in MemoryParts.model_fields
            if part != "teacher" or memory.parts.teacher
        }
        sizes = ", ".join(f"{part} {value:,.0f}" for part, value in mebibytes.items())
        yield f"tensors at the peak, MiB: {sizes}"
    if retries := allocation_retries(memory):
        yield f"memory: {retries}"
    if speed and speed.share_of_limit is not None:
        yield (
            f"speed: {percent(speed.relative)} of full fine-tuning's, "
            f"{percent(speed.share_of_limit)} of the {percent(speed.flop_limit_relative)} "
            "that its matrix products allow"
        )
    elif speed and (why := speed.not_measured.get("share_of_limit")):
        yield f"speed beside full fine-tuning's: not measured ({why})"
    if report.inference:
        yield f"decoding: {_decoding(report.inference)}"
    if speed and speed.energy:
        yield f"energy: {_energy(speed.energy)}"


def allocation_retries(memory: Memory | None) -> str | None:
    """Return a note on retries of CUDA's allocator and their remedy, or None without retries."""
    if not memory or not memory.allocation_retries:
        return None
    return (
        f"{memory.allocation_retries} allocations had to be tried again, which costs speed, as "
        "memory was short or fragmented; set PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True in "
        "the environment, or a smaller train.batch_size"
    )


def _decoding(inference: Inference) -> str:
    latency, size = inference.latency, inference.size
    parts = [f"{milliseconds(latency.median_seconds)} for one example"]
    parts.append(f"{milliseconds(inference.prefill.seconds)} to its first token")
    if inference.per_token:
        parts.append(f"{milliseconds(inference.per_token.seconds)} for each later one")
    if batch := inference.throughput:
        parts.append(f"{batch.output_tokens_per_s:,.0f} tokens/s at batch {batch.batch_size}")
    parts.append(f"{inference.memory.peak_bytes / 2**30:.2f} GiB")
    parts.append(f"{size.model_bytes / 1e6:,.1f} MB on disk")
    parts.append(f"{size.trained_bytes / 1e6:,.1f} MB of trained weights")
    return ", ".join(parts)


def _energy(energy: Energy) -> str:
    if energy.joules_per_1000_tokens is None or energy.idle_watts is None:
        return f"not measured ({energy.not_measured['joules']})"
    return (
        f"{energy.joules_per_1000_tokens:.3g} J for 1000 tokens by {energy.source.upper()}, beside "
        f"the {energy.idle_watts:.0f} W of an idle device"
    )
