"""Stored logits of a teacher: the most likely tokens at each target token of the examples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.data.cache_folder import VARIABLE
from harness.data.examples import Example
from harness.data.stored_rows import (
    Column,
    StoredRows,
    key_of,
    read_rows,
    rows_folder,
    write_rows,
)
from harness.errors import HarnessError

_IDS, _LOGITS = "ids", "logits"


@dataclass(frozen=True)
class TopLogits:
    """The most likely tokens of a teacher, with a row for each target token.

    Attributes:
        stored: the token ids as int32, and the logits less the largest of their row as float16. The
            most likely tokens, which matter most, are near 0, where half precision is finest.
    """

    stored: StoredRows

    @property
    def seconds(self) -> float:
        """The time that the teacher took to compute them."""
        return self.stored.seconds

    @property
    def logits(self) -> NDArray[np.float16]:
        """All logits, shape (target tokens, K)."""
        return self.stored.columns[_LOGITS]

    def rows(self, examples: Sequence[Example]) -> tuple[NDArray[np.int32], NDArray[np.float16]]:
        """Return the ids and the logits of some examples, end to end.

        Raises:
            HarnessError: an example is not among those that the teacher has read.
        """
        columns = self.stored.rows(
            (key_of(example.source, example.target), len(example.target)) for example in examples
        )
        return columns[_IDS], columns[_LOGITS]


def stored_bytes(target_tokens: int, top: int) -> int:
    """Return the bytes that the logits of some target tokens take on disk."""
    return target_tokens * sum(column.row_bytes for column in _columns(top))


def teacher_folder(identity: Sequence[object]) -> Path:
    """Return the folder of a teacher's logits.

    Args:
        identity: all that the logits depend on.

    Raises:
        HarnessError: no folder is named for them.
    """
    missing = HarnessError(
        "A teacher's logits need a folder to be stored in.",
        f"Name one on this machine: export {VARIABLE}=FOLDER. Or leave out the option cache; "
        "the teacher then computes them in every step.",
    )
    return rows_folder("teachers", identity, missing)


def write_top_logits(
    folder: Path,
    examples: Sequence[Example],
    top: int,
    parts: Iterable[tuple[NDArray[np.int32], NDArray[np.float16], float]],
) -> None:
    """Write the logits of all examples to a folder, which appears whole or not at all.

    Args:
        folder: the folder, which does not exist.
        examples: the examples, in the order of the parts.
        top: logits of each target token.
        parts: ids and logits of some target tokens, and the seconds since the first part began.
    """
    write_rows(
        folder,
        [key_of(example.source, example.target) for example in examples],
        [len(example.target) for example in examples],
        _columns(top),
        (({_IDS: ids, _LOGITS: logits}, seconds) for ids, logits, seconds in parts),
    )


def read_top_logits(folder: Path) -> TopLogits:
    """Map the files of a folder into memory.

    Raises:
        HarnessError: they are damaged.
    """
    return TopLogits(read_rows(folder, (_IDS, _LOGITS), "A teacher's stored logits"))


def _columns(top: int) -> tuple[Column, Column]:
    return Column(_IDS, top, np.int32), Column(_LOGITS, top, np.float16)
