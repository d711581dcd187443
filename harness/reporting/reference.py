"""Add the paper's numbers, or those of another results folder, to the rows of a summary."""

from __future__ import annotations

from harness.reporting.notes import differences
from harness.reporting.paper import paper_cell, paper_device
from harness.reporting.summary import Group, RecipeRow, Reference, Summary

_PAPER_SUMMAC = ("summac_conv", "summac_zs")
"""Variants of SummaC; the paper does not say which one it prints."""


def add_paper_reference(summary: Summary) -> None:
    """Add the paper's numbers to the recipes that it has, and show memory in its unit.

    Args:
        summary: the summary whose rows, notes and units are changed.
    """
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
                f"The paper measured on {paper_device()} with its own metrics and decoding; it "
                "gives memory in GB of 1e9 bytes and truncates numbers of parameters to 0.1 M."
            )
            if _has_summac(group):
                group.notes.append("The paper does not say which variant of SummaC it prints.")
        else:
            group.notes.append("The paper has no numbers on this backbone and task.")


def _has_summac(group: Group) -> bool:
    return any(
        name in row.reference.quality
        for row in group.rows
        if row.reference
        for name in _PAPER_SUMMAC
    )


def add_folder_reference(summary: Summary, other: Summary, name: str) -> None:
    """Add another results folder's numbers to the recipes that it has.

    Numbers that are not comparable are left out, with a note on the reason.

    Args:
        summary: the summary whose rows and notes are changed.
        other: the summary of the other folder.
        name: the name of the other folder.
    """
    summary.compared_with = name
    others = {(g.backbone, g.task, g.settings): g for g in other.groups}
    for group in summary.groups:
        twin = others.get((group.backbone, group.task, group.settings))
        if twin is None:
            group.notes.append(f"{name} has no runs of this backbone and task with these settings.")
            continue
        rows = {row.recipe: row for row in twin.rows}
        different = list(differences([*group.fingerprints, *twin.fingerprints]))
        if different:
            group.notes.append(
                f"Speed and memory are not compared with {name}: the runs differ in "
                f"{'; '.join(different)}."
            )
        for row in group.rows:
            if row.recipe in rows:
                row.reference = _reference(row, rows[row.recipe], name, not different)
                group.notes += [f"{row.recipe}: {reason}." for reason in row.reference.unlike]


def _reference(row: RecipeRow, other: RecipeRow, name: str, same_device: bool) -> Reference:
    reference = Reference(source=name, trainable=other.trainable)
    if same_device:
        reference.speed = other.speed.value if other.speed else None
        reference.memory_bytes = other.memory_bytes
    if row.decoding != other.decoding:
        reference.unlike.append(f"quality is not compared with {name}: decoded in different ways")
    elif row.data_sha256 != other.data_sha256:
        reference.unlike.append(f"quality is not compared with {name}: seeds or data differ")
    else:
        for metric, quality in other.quality.items():
            own = row.quality.get(metric)
            if own is not None and own.signature == quality.signature:
                reference.quality[metric] = quality.value.value
            elif own is not None:
                reference.unlike.append(
                    f"{metric} is not compared with {name}: computed as {quality.signature} there"
                )
    return reference


def _published(backbone: str) -> str:
    """Return the paper's name of a backbone, for a hub id such as facebook/bart-large."""
    return backbone.rpartition("/")[2]
