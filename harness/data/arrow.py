"""Columnar files: Parquet, Arrow, Feather, and folders of ``datasets``' save_to_disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.data.table import malformed, require_distinct
from harness.errors import HarnessError, first_line

if TYPE_CHECKING:
    from datasets import Dataset

_BUFFER = 1 << 20
"""Bytes of a Parquet file that are read at once; whole columns would be read without it."""
_STREAM_OR_FILE = b"ARROW1"
_FEATHER_1 = b"FEA1"
SAVED_SPLITS, SAVED = "dataset_dict.json", "state.json"
"""Files that ``save_to_disk`` writes, with splits and without."""


def read_arrow(path: Path, rows: int) -> Iterator[dict[str, list[object]]]:
    """Yield the columns of a Parquet, Arrow or Feather file, some rows at a time.

    Args:
        path: the file.
        rows: number of rows at a time, at most.

    Raises:
        HarnessError: it is not such a file, or has values that Python cannot represent.
    """
    import pyarrow  # comes with datasets

    kind = {".parquet": "a Parquet"}.get(path.suffix, "an Arrow")
    try:
        for batch in _batches(path, rows):
            for start in range(0, len(batch), rows):
                piece = batch.slice(start, rows)
                names = piece.schema.names
                columns = [column.to_pylist() for column in piece.columns]
                require_distinct(path, names)
                yield dict(zip(names, columns, strict=True))
    # ValueError: a value that Python cannot represent, such as text that is not UTF-8.
    except (pyarrow.ArrowException, ValueError) as error:
        raise malformed(path, f"not {kind} file that can be read", str(error)) from error


def _batches(path: Path, rows: int) -> Iterator[Any]:
    from pyarrow import feather, ipc, parquet

    if path.suffix == ".parquet":
        with parquet.ParquetFile(path, pre_buffer=False, buffer_size=_BUFFER) as file:
            yield from file.iter_batches(batch_size=rows)
        return
    with path.open("rb") as file:
        start = file.read(8)
    if start.startswith(_FEATHER_1):
        yield from feather.read_table(path, memory_map=False).to_batches()
        return
    with path.open("rb") as file:
        if start.startswith(_STREAM_OR_FILE):
            reader = ipc.open_file(file)
            batches = (reader.get_batch(number) for number in range(reader.num_record_batches))
        else:
            batches = iter(ipc.open_stream(file))
        for batch in batches:
            # Unlike Parquet, Arrow does not check its bytes: offsets may point outside them.
            batch.validate(full=True)
            yield batch


def is_saved(folder: Path) -> bool:
    """Return whether ``datasets`` saved this folder."""
    return (folder / SAVED_SPLITS).is_file() or (folder / SAVED).is_file()


def open_saved(folder: Path) -> dict[str, Dataset]:
    """Open a folder of ``save_to_disk``; a data set without splits is the train split.

    Raises:
        HarnessError: it is damaged.
    """
    from datasets import DatasetDict, load_from_disk

    with _damage(folder):
        saved = load_from_disk(str(folder))
    return (
        {str(name): rows for name, rows in saved.items()}
        if isinstance(saved, DatasetDict)
        else {"train": saved}
    )


def read_rows(folder: Path, saved: Dataset, rows: int) -> Iterator[dict[str, list[object]]]:
    """Yield the columns of an opened data set, some rows at a time.

    Raises:
        HarnessError: it is damaged.
    """
    with _damage(folder):
        for batch in saved.iter(batch_size=rows):
            yield {name: list(batch[name]) for name in saved.column_names}


@contextmanager
def _damage(folder: Path) -> Iterator[None]:
    import pyarrow

    try:
        yield
    # The library passes on the errors of its JSON and Arrow readers.
    except (OSError, ValueError, KeyError, TypeError, pyarrow.ArrowException) as error:
        raise HarnessError(
            f"{folder}: this folder of datasets' save_to_disk cannot be read: {first_line(error)}.",
            "Save it again: dataset.save_to_disk(FOLDER)",
        ) from error
