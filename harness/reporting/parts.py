"""Where a run's step time and memory go, in a line each."""

from __future__ import annotations

from collections.abc import Iterator

from harness.reporting.report import MemoryParts, Report, TimeParts
from harness.reporting.wording import percent


def parts_lines(report: Report) -> Iterator[str]:
    """Yield what a report knows: shares of a step, memory by what it is for, the FLOP limit."""
    speed, memory = report.speed, report.memory
    if speed and speed.parts:
        seconds = {part: getattr(speed.parts, part) for part in TimeParts.model_fields}
        total = sum(seconds.values())
        shares = ", ".join(f"{part} {percent(value / total)}" for part, value in seconds.items())
        yield f"step: {shares}"
    if memory and memory.parts:
        mebibytes = {part: getattr(memory.parts, part) / 2**20 for part in MemoryParts.model_fields}
        sizes = ", ".join(f"{part} {value:,.0f}" for part, value in mebibytes.items())
        yield f"tensors at the peak, MiB: {sizes}"
    if speed and speed.share_of_limit is not None:
        yield (
            f"speed: {percent(speed.relative)} of full fine-tuning's, "
            f"{percent(speed.share_of_limit)} of the {percent(speed.flop_limit_relative)} "
            "that its matrix products allow"
        )
