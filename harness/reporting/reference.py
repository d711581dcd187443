"""Setting the paper's numbers, or another folder's, beside one's own."""

from __future__ import annotations

from harness.reporting.notes import differences
from harness.reporting.paper import paper_cell, paper_device
from harness.reporting.summary import Group, RecipeRow, Reference, Summary

_PAPER_SUMMAC = ("summac_conv", "summac_zs")
"""The paper does not say which of them it prints."""


def add_paper_reference(summary: Summary) -> None:
    """Add the paper's numbers to the rows that it has, and count memory as it does there."""
    summary.compared_with = "paper"
    for group in summary.groups:
        for row in group.rows:
            cell = paper_cell(_published(group.backbone), row.recipe, group.task)
            if cell is None:
                continue
            quality = {name: value for name, value in cell.metrics.items() if name != "summac"}
            if summac := cell.metrics.get("summac"):
                quality |= {name: summac for name in _PAPER_SUMMAC if name in row.quality}
            row.reference = Reference(
                source=f"Table {cell.table}",
                speed=cell.speed_pct / 100,
                trainable=cell.trained_params,
                memory_bytes=cell.mem_gb * 1e9,
                quality=quality,
            )
        if any(row.reference for row in group.rows):
            group.memory_unit = "GB"
            group.notes.append(
                f"The paper measured on {paper_device()}, and memory in GB of 1e9 bytes; its "
                "implementations of metrics and decoding are not ours, and it cuts its numbers of "
                "parameters to 0.1 M."
                + " It does not say which variant of SummaC it prints."
                * _has_summac(group)
            )
        else:
            group.notes.append("The paper has no numbers on this backbone and task.")


def _has_summac(group: Group) -> bool:
    return any(
        name in row.reference.quality
        for row in group.rows
        if row.reference
        for name in _PAPER_SUMMAC
    )


def beside_other(summary: Summary, other: Summary, name: str) -> None:
    """Add another folder's numbers to the rows that it has.

    Numbers that were not made in the same way are left out, and a note says why.
    """
    summary.compared_with = name
    theirs = {(g.backbone, g.task, g.settings): g for g in other.groups}
    for group in summary.groups:
        twin = theirs.get((group.backbone, group.task, group.settings))
        if twin is None:
            group.notes.append(f"{name} has no runs of this backbone and task with these settings.")
            continue
        rows = {row.recipe: row for row in twin.rows}
        ground = list(differences([*group.fingerprints, *twin.fingerprints]))
        if ground:
            group.notes.append(
                f"Speed and memory are not compared with {name}: the runs differ in "
                f"{'; '.join(ground)}."
            )
        for row in group.rows:
            if row.recipe in rows:
                row.reference = _reference(row, rows[row.recipe], name, not ground)
                group.notes += [f"{row.recipe}: {reason}." for reason in row.reference.unlike]


def _reference(ours: RecipeRow, theirs: RecipeRow, name: str, equal_ground: bool) -> Reference:
    reference = Reference(source=name, trainable=theirs.trainable)
    if equal_ground:
        reference.speed = theirs.speed.value if theirs.speed else None
        reference.memory_bytes = theirs.memory_bytes
    if ours.decoding != theirs.decoding:
        reference.unlike.append(f"quality is not compared with {name}: decoded in unlike ways")
    elif ours.data_sha256 != theirs.data_sha256:
        reference.unlike.append(f"quality is not compared with {name}: seeds or data differ")
    else:
        for metric, quality in theirs.quality.items():
            mine = ours.quality.get(metric)
            if mine is not None and mine.signature == quality.signature:
                reference.quality[metric] = quality.value.value
            elif mine is not None:
                reference.unlike.append(
                    f"{metric} is not compared with {name}: computed as {quality.signature} there"
                )
    return reference


def _published(backbone: str) -> str:
    """Return the name that the paper has for a hub id such as facebook/bart-large."""
    return backbone.rpartition("/")[2]
