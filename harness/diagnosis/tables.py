"""The numbers of a diagnosis as rows of text, for the terminal and the page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from harness.diagnosis.record import Diagnosis, QualityLoss
from harness.reporting.summary import Estimate


@dataclass(frozen=True)
class TextTable:
    """A table of texts.

    Attributes:
        title: what the table shows.
        columns: headings.
        rows: cells.
        texts: number of columns that hold names; the others hold numbers.
        notes: sentences below the table.
    """

    title: str
    columns: list[str]
    rows: list[list[str]]
    texts: int = 1
    notes: list[str] = field(default_factory=list)


def heading(diagnosis: Diagnosis) -> Iterator[str]:
    """Yield lines on what was looked into."""
    model = f"the run {diagnosis.run}" if diagnosis.run else "before training"
    yield f"{diagnosis.backbone} on {diagnosis.task}, {model}"
    yield (
        f"Loss on {diagnosis.examples} examples of the eval split: {_loss(diagnosis.loss)} nats "
        "per target token"
    )


def tables(diagnosis: Diagnosis) -> Iterator[TextTable]:
    """Yield the tables of a diagnosis that have rows."""
    found = [_layers(diagnosis), _gradients(diagnosis), _changes(diagnosis)]
    yield from (table for table in found if table and table.rows)
    for loss in diagnosis.lost or ():
        yield _quality(loss)


def _layers(diagnosis: Diagnosis) -> TextTable:
    rows = [
        [layer.stack, str(layer.number), _loss(layer.loss_increase), f"{layer.influence:.3f}"]
        for layer in diagnosis.layers
    ]
    notes = [
        "Loss without it: increase in nats per target token if the layer is removed, with a 95 % "
        "interval over examples. Influence: 1 - cosine of its input and output.",
        *diagnosis.notes,
    ]
    columns = ["stack", "layer", "loss without it", "influence"]
    return TextTable("How removable each layer is", columns, rows, 1, notes)


def _gradients(diagnosis: Diagnosis) -> TextTable:
    rows = [
        [g.stack, g.role, f"{g.weights:,}", f"{g.root_mean_square:.2e}", f"{g.relative:.2e}"]
        for g in diagnosis.gradients
    ]
    return TextTable(
        "Gradients by role",
        ["stack", "role", "weights", "root mean square", "relative to the weights"],
        rows,
        2,
    )


def _changes(diagnosis: Diagnosis) -> TextTable | None:
    changes = diagnosis.changes
    if not changes:
        return None
    ranks = [rank for rank in changes[0].rank_shares if rank in (1, 8, 32)]
    rows = [
        [
            change.stack,
            change.role,
            f"{change.relative:.1%}",
            f"{change.energy_share:.1%}",
            *(f"{change.rank_shares.get(rank, 1):.0%}" for rank in ranks),
            str(change.rank_90),
            f"{change.effective_rank:.0f}",
        ]
        for change in changes
    ]
    columns = ["stack", "role", "relative", "share", *(f"rank {rank}" for rank in ranks)]
    notes = [
        "Relative: norm of the change over the norm of the weights. Share: of the sum of squares "
        "of all changes. Rank N: share of a change that its best approximation of rank N holds.",
    ]
    return TextTable(
        "What training changed", [*columns, "rank of 90 %", "effective rank"], rows, 2, notes
    )


def _quality(loss: QualityLoss) -> TextTable:
    rows = [
        [
            f"{one.low:.0f} to {one.high:.0f}",
            str(one.examples),
            f"{one.against:.1f}",
            f"{one.value:.1f}",
            _score(one.difference) + (" *" if one.p_value < 0.05 else ""),
        ]
        for one in loss.bins
    ]
    notes = [
        "*: differs after Holm's correction for all bins (p < 0.05). Intervals cover the test "
        "examples, not the spread between training seeds.",
    ]
    columns = [loss.by, "examples", "other run", "this run", "difference"]
    return TextTable(f"{loss.metric} by {loss.by}", columns, rows, 1, notes)


def _loss(estimate: Estimate) -> str:
    half = estimate.half_width
    return f"{estimate.value:.3f}" + (f" ±{half:.3f}" if half is not None else "")


def _score(estimate: Estimate) -> str:
    half = estimate.half_width
    return f"{estimate.value:+.1f}" + (f" ±{half:.1f}" if half is not None else "")
