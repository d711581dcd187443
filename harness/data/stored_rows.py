"""Rows of numbers that a model computed once for each example, in files mapped into memory.

They tell the texts about as well as token ids do, so they are stored where token ids are: in the
folder that ``$HARNESS_CACHE`` names, and nowhere without one. Only the user can read them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.data.cache_folder import VARIABLE, cache_folder, create_private, made_once
from harness.errors import HarnessError

_COUNTS = "counts.json"

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Column:
    """Numbers that are stored with each row.

    Attributes:
        name: name of the column, and of its file.
        width: numbers in a row.
        dtype: their type.
    """

    name: str
    width: int
    dtype: type[np.generic]

    @property
    def row_bytes(self) -> int:
        """The bytes of a row on disk."""
        return self.width * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class StoredRows:
    """Rows of several examples, with a row for each token of one side.

    Attributes:
        keys: a hash of each example.
        ends: end of each example's rows.
        columns: name -> numbers, shape (tokens, width).
        seconds: time that the model took to compute them.
        what: what they are, for messages.
    """

    keys: NDArray[np.uint64]
    ends: NDArray[np.int64]
    columns: Arrays
    seconds: float
    what: str
    _order: NDArray[np.int64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_order", np.argsort(self.keys, kind="stable"))

    def rows(self, wanted: Iterable[tuple[np.uint64, int]]) -> dict[str, NDArray[Any]]:
        """Return the rows of some examples, end to end: name of a column -> numbers.

        Args:
            wanted: the key and the number of tokens of each example.

        Raises:
            HarnessError: an example is not among those that the model has read.
        """
        places = [self._place(key, count) for key, count in wanted]
        return {
            name: np.concatenate([column[place] for place in places])
            for name, column in self.columns.items()
        }

    def _place(self, key: np.uint64, count: int) -> slice:
        found = int(np.searchsorted(self.keys, key, sorter=self._order))
        number = int(self._order[min(found, len(self.keys) - 1)])
        start = int(self.ends[number - 1]) if number else 0
        end = int(self.ends[number])
        if self.keys[number] != key or end - start != count:
            raise HarnessError(
                f"{self.what} lack an example of this run.",
                f"Remove what is stored in ${VARIABLE}, and repeat the command.",
            )
        return slice(start, end)


def key_of(*sequences: Sequence[int]) -> np.uint64:
    """Return a hash of sequences of token ids."""
    first, *others = (np.array(ids, np.int32).tobytes() for ids in sequences)
    digest = sha256(len(first).to_bytes(8, "little") + first + b"".join(others)).digest()
    return np.uint64(int.from_bytes(digest[:8], "little"))


def rows_folder(
    kind: str, identity: Sequence[object], missing: HarnessError, cache: Path | None = None
) -> Path:
    """Return the folder of some rows.

    Args:
        kind: name of the folder within the cache.
        identity: all that the rows depend on.
        missing: the error if no cache is named for them.
        cache: the cache; None takes that of ``$HARNESS_CACHE``.
    """
    parent = cache_folder(kind) if cache is None else cache / kind
    if parent is None:
        raise missing
    name = sha256(json.dumps([str(part) for part in identity]).encode()).hexdigest()[:24]
    return parent / name


def write_rows(
    folder: Path,
    keys: Sequence[np.uint64],
    counts: Sequence[int],
    columns: Sequence[Column],
    parts: Iterable[tuple[Arrays, float]],
) -> None:
    """Write the rows of all examples to a folder, which appears whole or not at all.

    Args:
        folder: the folder; if it is there already, nothing is computed.
        keys: the key of each example.
        counts: the number of rows of each example.
        columns: what is stored with each row.
        parts: the numbers of some rows by column, in the order of the examples, and the seconds
            since the first part began.

    Raises:
        HarnessError: the disk has not enough space, or cannot be written.
    """
    with made_once(folder) as work:
        if work is not None:
            _require_space(work, sum(counts) * sum(column.row_bytes for column in columns))
            _write(work, keys, counts, columns, parts)


def _require_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise HarnessError(
            f"${VARIABLE} needs {needed / 1e9:,.1f} GB for what is computed once, and its disk has "
            f"{free / 1e9:,.1f} GB free.",
            f"Make room, or name a folder on another disk: export {VARIABLE}=FOLDER",
        )


def _write(
    work: Path,
    keys: Sequence[np.uint64],
    counts: Sequence[int],
    columns: Sequence[Column],
    parts: Iterable[tuple[Arrays, float]],
) -> None:
    ends = np.cumsum(counts, dtype=np.int64)
    for name, values in (("ends", ends), ("keys", np.array(keys, np.uint64))):
        with create_private(work / f"{name}.npy") as file:
            np.save(file, values)
    files = {column.name: create_private(work / f"{column.name}.npy") for column in columns}
    written, seconds = 0, 0.0
    try:
        for column in columns:
            header = {
                "descr": np.lib.format.dtype_to_descr(np.dtype(column.dtype)),
                "fortran_order": False,
                "shape": (int(ends[-1]), column.width),
            }
            np.lib.format.write_array_header_1_0(files[column.name], header)
        for arrays, elapsed in parts:
            seconds = elapsed
            for column in columns:
                values = np.ascontiguousarray(arrays[column.name], dtype=column.dtype)
                files[column.name].write(values.data)
            written += len(arrays[columns[0].name])
    finally:
        for file in files.values():
            file.close()
    if written != ends[-1]:
        raise ValueError(f"{written} rows were computed for {ends[-1]} tokens.")
    with create_private(work / _COUNTS) as file:
        file.write(json.dumps({"seconds": seconds}).encode())


def read_rows(folder: Path, names: Sequence[str], what: str) -> StoredRows:
    """Map the files of a folder into memory.

    Args:
        folder: the folder that ``write_rows`` filled.
        names: names of the columns.
        what: what the rows are, for messages.

    Raises:
        HarnessError: they are damaged.
    """
    try:
        keys, ends, *arrays = (
            np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            for name in ("keys", "ends", *names)
        )
        seconds = float(json.loads((folder / _COUNTS).read_text())["seconds"])
    except (OSError, ValueError, KeyError) as error:
        raise HarnessError(
            f"{what} in {folder} cannot be used: {error}.", "Remove that folder."
        ) from error
    return StoredRows(keys, ends, dict(zip(names, arrays, strict=True)), seconds, what)
