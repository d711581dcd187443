"""Compare a profile with the paper's columns Speed, Trained Params and Mem."""

from __future__ import annotations

from harness.records.profile import PaperComparison, Profile, ProfiledRecipe
from harness.records.reasons import explain_nulls
from harness.reporting.paper import paper_cell


def compare_with_paper(profile: Profile) -> list[PaperComparison]:
    """Return the paper's numbers and the profile's own for each recipe of a profile."""
    return [_compare(profile, row) for row in profile.recipes]


def _compare(profile: Profile, row: ProfiledRecipe) -> PaperComparison:
    cell = paper_cell(profile.backbone, row.recipe, profile.task)
    relative = row.speed.relative if row.speed else None
    comparison = PaperComparison(
        recipe=row.recipe,
        table=cell.table if cell else None,
        paper_speed_pct=cell.speed_pct if cell else None,
        own_speed_pct=None if relative is None else 100 * relative,
        paper_trained_params=cell.trained_params if cell else None,
        own_trained_params=row.parameters.trainable if row.parameters else None,
        paper_mem_gb=cell.mem_gb if cell else None,
        own_mem_gb=row.memory.peak_bytes / 1e9 if row.memory else None,
    )
    if cell is None:
        reason = "the paper has no such row"
        explain_nulls(comparison, reason, "paper_speed_pct", "paper_trained_params", "paper_mem_gb")
    why_no_speed = row.speed.not_measured.get("relative", "") if row.speed else row.status
    explain_nulls(comparison, why_no_speed, "own_speed_pct")
    explain_nulls(comparison, row.status, "own_trained_params", "own_mem_gb")
    return comparison
