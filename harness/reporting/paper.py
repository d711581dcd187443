"""The numbers that Zhu et al. 2023 print, to set beside one's own."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from pydantic import Field

from harness.records.record import Record

_FILE = Path(__file__).with_name("paper.json")


class PaperRow(Record):
    """A row of one of the paper's tables, as printed."""

    backbone: str
    """Name of the backbone."""
    recipe: str
    """The recipe in canonical form."""
    speed_pct: float
    """Training speed in percent of full fine-tuning's."""
    trained_params: int
    """Printed in millions with one decimal, and cut, not rounded: exact counts are up to 99,999
    larger."""
    mem_gb: float
    """Peak of the bytes that CUDA tensors took, in GB of 1e9 bytes."""
    metrics: dict[str, float] = Field(default_factory=dict)
    """Metric -> percent. Named as the harness names them, but for ``summac``: the harness keeps
    its two variants apart."""


class PaperCell(PaperRow):
    """A row together with where it stands."""

    table: str
    """Number of the table, such as 3 or 4a."""
    task: str
    """Name of the task."""


class _Table(Record):
    table: str
    source: str
    task: str
    rows: list[PaperRow]


class _Paper(Record):
    source: str
    device: str
    tables: list[_Table]


@cache
def _paper() -> _Paper:
    return _Paper.model_validate_json(_FILE.read_bytes())


def paper_device() -> str:
    """Return what the paper measured on."""
    return _paper().device


@cache
def paper_cells() -> tuple[PaperCell, ...]:
    """Return all rows of the paper's Tables 3 to 6, in the order printed."""
    return tuple(
        PaperCell(table=table.table, task=table.task, **row.model_dump())
        for table in _paper().tables
        for row in table.rows
    )


def paper_cell(backbone: str, recipe: str, task: str) -> PaperCell | None:
    """Return what the paper has on a combination, or None.

    Where several tables print it, they print the same numbers, and the one with the most metrics
    is returned.

    Args:
        backbone: name.
        recipe: in canonical form; whether it counts parameters as the paper does is not looked at.
        task: name.
    """
    wanted = (backbone, _without_compat(recipe), task)
    found = [c for c in paper_cells() if (c.backbone, c.recipe, c.task) == wanted]
    return max(found, key=lambda cell: len(cell.metrics), default=None)


def _without_compat(recipe: str) -> str:
    parts = []
    for part in recipe.split("+"):
        name, _, options = part.partition(":")
        left = [option for option in options.split(",") if option != "paper_compat=true"]
        parts.append(f"{name}:{','.join(left)}" if any(left) else name)
    return "+".join(parts)
