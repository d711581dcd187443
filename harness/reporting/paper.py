"""The published numbers of Zhu et al. 2023."""

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
    """Trained parameters. The paper prints millions with one decimal, truncated: exact counts are
    up to 99,999 larger."""
    mem_gb: float
    """Peak memory of CUDA tensors, in GB of 1e9 bytes."""
    metrics: dict[str, float] = Field(default_factory=dict)
    """Metric -> percent. The names are the harness's, except ``summac``, of which the harness has
    two variants."""


class PaperCell(PaperRow):
    """A row with its table and task."""

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
    """Return the name of the device that the paper measured on."""
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
    """Return the paper's numbers on a backbone, recipe and task, or None.

    If several tables print the combination, their numbers agree; the row with the most metrics is
    returned.

    Args:
        backbone: name of the backbone.
        recipe: the recipe in canonical form; its option ``paper_compat`` is ignored.
        task: name of the task.
    """
    wanted = (backbone, _without_compat(recipe), task)
    cells = [c for c in paper_cells() if (c.backbone, c.recipe, c.task) == wanted]
    return max(cells, key=lambda cell: len(cell.metrics), default=None)


def _without_compat(recipe: str) -> str:
    parts = []
    for part in recipe.split("+"):
        name, _, options = part.partition(":")
        left = [option for option in options.split(",") if option != "paper_compat=true"]
        parts.append(f"{name}:{','.join(left)}" if any(left) else name)
    return "+".join(parts)
