"""Columnar files: Parquet, Arrow, Feather, and folders of ``datasets``' save_to_disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.data.table import Table, malformed, require_distinct
from harness.errors import HarnessError, first_line

_STREAM_OR_FILE = b"ARROW1"
_FEATHER_1 = b"FEA1"
SAVED_SPLITS, SAVED = "dataset_dict.json", "state.json"
"""Files that ``save_to_disk`` writes, with splits and without."""


def read_arrow(path: Path) -> dict[str, list[object]]:
    """Read the columns of a Parquet, Arrow or Feather file.

    Raises:
        HarnessError: it is not such a file, or has values that Python cannot represent.
    """
    import pyarrow  # comes with datasets

    kind = {".parquet": "a Parquet"}.get(path.suffix, "an Arrow")
    try:
        table = _open(path)
        columns = [column.to_pylist() for column in table.columns]
    # ValueError: a value that Python cannot represent, such as text that is not UTF-8.
    except (pyarrow.ArrowException, ValueError) as error:
        raise malformed(path, f"not {kind} file that can be read", str(error)) from error
    require_distinct(path, table.column_names)
    return dict(zip(table.column_names, columns, strict=True))


def _open(path: Path) -> Any:
    from pyarrow import feather, ipc, parquet

    if path.suffix == ".parquet":
        return parquet.ParquetFile(path).read()
    with path.open("rb") as file:
        start = file.read(8)
    if start.startswith(_FEATHER_1):
        table = feather.read_table(path, memory_map=False)
    else:
        reader = ipc.open_file if start.startswith(_STREAM_OR_FILE) else ipc.open_stream
        with path.open("rb") as file:
            table = reader(file).read_all()
    # Unlike Parquet, Arrow does not check its bytes: offsets may point outside them.
    table.validate(full=True)
    return table


def is_saved(folder: Path) -> bool:
    """Return whether ``datasets`` saved this folder."""
    return (folder / SAVED_SPLITS).is_file() or (folder / SAVED).is_file()


def read_saved(folder: Path) -> dict[str, Table]:
    """Read a folder of ``save_to_disk``; a data set without splits is the train split.

    Raises:
        HarnessError: it is damaged.
    """
    import pyarrow
    from datasets import DatasetDict, load_from_disk

    try:
        saved = load_from_disk(str(folder))
        splits = saved if isinstance(saved, DatasetDict) else {"train": saved}
        return {
            str(name): Table(folder / str(name), {c: list(rows[c]) for c in rows.column_names})
            for name, rows in splits.items()
        }
    # The library passes on the errors of its JSON and Arrow readers.
    except (OSError, ValueError, KeyError, TypeError, pyarrow.ArrowException) as error:
        raise HarnessError(
            f"{folder}: this folder of datasets' save_to_disk cannot be read: {first_line(error)}.",
            "Save it again: dataset.save_to_disk(FOLDER)",
        ) from error
