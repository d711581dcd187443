"""Texts of examples: ids, sources and targets from the chosen columns of a table."""

from __future__ import annotations

from typing import Any

from harness.data.columns import ChosenColumns
from harness.data.table import Table, references_column, text_column
from harness.data.turns import Joining, exchanges, turn_column


def example_texts(
    table: Table, chosen: ChosenColumns, label: str, joining: Joining, every_answer: bool
) -> dict[str, list[Any]]:
    """Return the columns id, source and target, and references and cluster if they are needed.

    Args:
        table: the rows, which may be a piece of a file.
        chosen: the columns that are read.
        label: the beginning of the ids of rows that have none.
        joining: the settings for joining turns into one text.
        every_answer: make one example per answer of a dialogue.

    Raises:
        HarnessError: a value is not text; the message names the row.
    """
    first = table.first_row
    ids = [f"{label}-{number}" for number in range(first, first + len(table))]
    if chosen.id is not None:
        ids = [str(value) for value in table.columns[chosen.id]]
    if chosen.target is None:
        return _answers(table, chosen.source, ids, joining, every_answer)
    columns: dict[str, list[Any]] = {"id": ids}
    if chosen.dialogues:
        turns = turn_column(table, chosen.source)
        columns["source"] = [None if one is None else joining.text(one) for one in turns]
    else:
        columns["source"] = [*text_column(table, chosen.source)]
    if not chosen.references:
        return {**columns, "target": [*text_column(table, chosen.target)]}
    references = references_column(table, chosen.target)
    columns["target"] = [texts[0] if texts else None for texts in references]
    columns["references"] = references
    return columns


def _answers(
    table: Table, column: str, ids: list[str], joining: Joining, every_answer: bool
) -> dict[str, list[Any]]:
    """Return the answers of dialogues as targets, and the turns before them as sources."""
    columns: dict[str, list[Any]] = {"id": [], "source": [], "target": [], "cluster": []}
    for identity, turns in zip(ids, turn_column(table, column), strict=True):
        pairs = exchanges(turns or [], joining, every_answer)
        for number, exchange in enumerate(pairs, start=1):
            columns["id"].append(f"{identity}/{number}" if every_answer else identity)
            columns["source"].append(exchange.source)
            columns["target"].append(exchange.answer)
            columns["cluster"].append(identity)
    if not every_answer:
        del columns["cluster"]
    return columns
