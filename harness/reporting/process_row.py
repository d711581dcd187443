"""Costs of several processes in tables: their columns and their notes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from harness.reporting.inference_row import InferenceCell, inference_cells, inference_headings
from harness.reporting.summary import Group, RecipeRow
from harness.reporting.wording import memory, percent, span

Cell = InferenceCell


def process_headings(group: Group) -> list[str]:
    """Return the headings of the columns of several processes; none if no row measured them."""
    if not any(row.process_costs for row in group.rows):
        return []
    return ["processes", "tokens/s", "efficiency", "sent MB", f"{group.memory_unit} each"]


def process_cells(group: Group, row: RecipeRow) -> list[Cell]:
    """Return a cell for each of ``process_headings``."""
    costs = row.process_costs
    if costs is None:
        return [Cell("-", "", "")] * len(process_headings(group))
    each = sorted(rank.tokens_per_s for rank in costs.ranks)
    largest = max(rank.peak_bytes for rank in costs.ranks)
    sent = costs.sent_bytes_per_step
    return [
        Cell(str(costs.processes), "", costs.processes),
        Cell(
            f"{costs.tokens_per_s:,.0f}", f"{each[0]:,.0f}-{each[-1]:,.0f} each", costs.tokens_per_s
        ),
        Cell(percent(costs.efficiency), span(costs.efficiency_ci), costs.efficiency),
        Cell(
            "-" if sent is None else megabytes(sent),
            f"least {megabytes(costs.least_bytes_per_step)}",
            "" if sent is None else sent,
        ),
        Cell(memory(largest, group.memory_unit), "", largest),
    ]


def cost_headings(group: Group) -> list[str]:
    """Return the headings of the columns of decoding and of several processes."""
    return [*inference_headings(group), *process_headings(group)]


def cost_cells(group: Group, row: RecipeRow) -> list[Cell]:
    """Return a cell for each of ``cost_headings``."""
    return [*inference_cells(group, row.inference), *process_cells(group, row)]


def process_record(row: RecipeRow) -> dict[str, object]:
    """Return the fields of several processes for a file of plain numbers."""
    costs = row.process_costs
    ranks = costs.ranks if costs else []
    return {
        "processes": costs.processes if costs else None,
        "processes_tokens_per_s": costs.tokens_per_s if costs else None,
        "process_tokens_per_s": " ".join(f"{rank.tokens_per_s:.6g}" for rank in ranks),
        "parallel_efficiency": costs.efficiency if costs else None,
        "parallel_efficiency_low": costs.efficiency_ci[0] if costs else None,
        "parallel_efficiency_high": costs.efficiency_ci[1] if costs else None,
        "sent_bytes_per_step": costs.sent_bytes_per_step if costs else None,
        "least_bytes_per_step": costs.least_bytes_per_step if costs else None,
        "process_memory_bytes": " ".join(str(rank.peak_bytes) for rank in ranks),
    }


def megabytes(size: float) -> str:
    """Write bytes in MB with three significant digits."""
    return f"{size / 1e6:.3g}" if size < 1e9 else f"{size / 1e6:,.0f}"


def process_legend(groups: Iterable[Group]) -> Iterator[str]:
    """Yield the sentences that explain the columns of several processes."""
    if any(row.process_costs for group in groups for row in group.rows):
        yield (
            "efficiency: speed of all processes, divided by their number and by the speed of one "
            "on the same steps; tokens/s: of all, and of each."
        )
        yield (
            "sent MB: what all processes sent in a step; least: what they must send to sum the "
            "gradients; GiB or GB each: the largest peak memory of a process."
        )


def process_notes(group: Group) -> Iterator[str]:
    """Yield why the bytes that processes sent are missing."""
    reasons: dict[str, list[str]] = {}
    for row in group.rows:
        if row.process_costs and (why := row.process_costs.not_measured.get("sent_bytes_per_step")):
            reasons.setdefault(why, []).append(row.recipe)
    for why, recipes in reasons.items():
        yield f"No sent bytes of {', '.join(recipes)} ({why})."
