"""Token ids in an Arrow file, which is mapped into memory instead of being read.

The file has a row for each example, with the columns source and target (lists of int32) and
long_source and long_target (whether the text was longer than the limit). All its batches of rows
have the same size, except the last.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.data.cache_folder import create_private
from harness.data.examples import Examples, TokenizedSplit, TokenRows, Tokens
from harness.data.tokenizing import TokenizedRows


class _Piece(NamedTuple):
    """Token ids of some consecutive rows, as the file has them."""

    offsets: NDArray[np.int32]
    ids: NDArray[np.int32]


class MappedTokens(TokenRows):
    """Sequences of token ids in a file; the system reads pages of it as they are needed.

    Args:
        pieces: the batches of the file, each with equally many rows except the last.
        rows: number of the file's row for each sequence; None takes all rows in order.

    Raises:
        ValueError: the batches have different sizes.
    """

    def __init__(self, pieces: list[_Piece], rows: NDArray[np.int64] | None) -> None:
        self._pieces = pieces
        self._rows = rows
        counts = [np.diff(piece.offsets) for piece in pieces]
        self._size = max(map(len, counts), default=1)
        if any(len(count) != self._size for count in counts[:-1]):
            raise ValueError("its batches have different sizes")
        lengths = np.concatenate([np.zeros(0, np.int32), *counts])
        self.lengths = lengths if rows is None else lengths[rows]

    def row(self, index: int) -> list[int]:
        """Return a sequence."""
        row: list[int] = self._ids(index).tolist()
        return row

    def pieces(self) -> Iterator[NDArray[np.int32]]:
        """Yield the token ids of one sequence after the other."""
        return map(self._ids, range(len(self)))

    def _ids(self, index: int) -> NDArray[np.int32]:
        row = index if self._rows is None else int(self._rows[index])
        number, place = divmod(row, self._size)
        offsets, ids = self._pieces[number]
        return ids[offsets[place] : offsets[place + 1]]


def write_tokens(path: Path, chunks: Iterable[TokenizedRows]) -> None:
    """Write token ids to a new file, which only the user can read.

    Args:
        path: the file.
        chunks: the rows in order, in chunks of equal size except the last.
    """
    import pyarrow as pa

    ids = pa.list_(pa.field("item", pa.int32(), nullable=False))
    types = {"source": ids, "target": ids, "long_source": pa.bool_(), "long_target": pa.bool_()}
    schema = pa.schema([pa.field(name, kind, nullable=False) for name, kind in types.items()])
    with create_private(path) as file, pa.ipc.new_file(file, schema) as writer:
        for chunk in chunks:
            columns = [
                _list_array(chunk.sources, ids),
                _list_array(chunk.targets, ids),
                pa.array(chunk.long_sources),
                pa.array(chunk.long_targets),
            ]
            writer.write_batch(pa.record_batch(columns, schema=schema))


def _list_array(tokens: Tokens, kind: Any) -> Any:
    import pyarrow as pa

    offsets = np.concatenate([np.zeros(1, np.int32), tokens.ends.astype(np.int32)])
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(tokens.ids), type=kind)


def map_tokens(path: Path, rows: NDArray[np.int64] | None = None) -> TokenizedSplit:
    """Map a file that ``write_tokens`` wrote into memory.

    Args:
        path: the file.
        rows: the rows of the split in its order; None takes all rows of the file.

    Raises:
        ValueError: the file is damaged.
        OSError: it cannot be read.
    """
    import pyarrow as pa

    table = pa.ipc.open_file(pa.memory_map(str(path)))
    batches = [table.get_batch(number) for number in range(table.num_record_batches)]

    def tokens(side: str) -> MappedTokens:
        return MappedTokens([_piece(batch.column(side)) for batch in batches], rows)

    def count(side: str) -> int:
        flags = [batch.column(side).to_numpy(zero_copy_only=False) for batch in batches]
        cut = np.concatenate([np.zeros(0, np.bool_), *flags])
        return int(cut.sum() if rows is None else cut[rows].sum())

    examples = Examples(tokens("source"), tokens("target"))
    return TokenizedSplit(examples, count("long_source"), count("long_target"))


def _piece(column: Any) -> _Piece:
    piece = _Piece(column.offsets.to_numpy(), column.values.to_numpy())
    # Arrow does not check its bytes: offsets may point outside them.
    if (np.diff(piece.offsets) < 0).any() or piece.offsets[-1] > len(piece.ids):
        raise ValueError("its offsets do not fit its token ids")
    return piece
