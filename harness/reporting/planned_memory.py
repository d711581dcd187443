"""Recommendations for another backbone: its memory is planned, and quality is that of the runs."""

from __future__ import annotations

from harness.errors import HarnessError
from harness.reporting.recommendation import Needs, Recommendation, recommend
from harness.reporting.summary import Group


def recommend_for(group: Group, needs: Needs, backbone: str, device: str) -> Recommendation:
    """Choose among the recipes of a group for another backbone.

    Memory and trained parameters are computed for that backbone, as ``harness plan`` does, of all
    recipes that satisfy the other needs. Quality, speed and latency are those of the group.

    Args:
        group: the group of a summary.
        needs: the conditions that the recipe must satisfy.
        backbone: the backbone that will be trained: a registered name, a hub id or a folder.
        device: the device that it will be trained on.

    Raises:
        HarnessError: there is no such backbone.
    """
    others = needs.model_copy(update={"max_memory_bytes": None})
    good = [v.recipe for v in recommend(group, others).verdicts if v.qualifies]
    planned = group.model_copy(deep=True)
    failed = []
    for row in planned.rows:
        row.memory_bytes = row.memory_relative = None
        if row.recipe in good:
            try:
                row.memory_bytes, row.trainable = _plan(backbone, row.recipe, device)
            except HarnessError as error:
                failed.append(f"{row.recipe} has no plan for {backbone}: {error.message}")
    planned.notes = [
        f"Memory and parameters are planned for {backbone} with a micro-batch of 8 and 512 and 128 "
        f"tokens (harness plan). Quality is that of {group.backbone} on {group.task}, and need not "
        "be the same on your model and data.",
        *failed,
        *group.notes,
    ]
    recommendation = recommend(planned, needs)
    return recommendation.model_copy(update={"planned_for": backbone})


def _plan(backbone: str, recipe: str, device: str) -> tuple[int | None, int]:
    import harness

    (plan,) = harness.plan(backbone, [recipe], device=device)
    return plan.memory.peak_bytes if plan.memory else None, plan.parameters.trainable
