"""Examples of large data files, kept on disk: read once, and mapped into memory afterwards.

The texts are in ``$HARNESS_CACHE/texts``, in an Arrow file for each split of the data files. Splits
that a seed draws are numbers of its rows, in the column ``row``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.data.cache_folder import (
    VARIABLE,
    cache_folder,
    create_private,
    made_once,
    unusable,
)
from harness.data.hashing import data_hash, file_hash, folder_hash
from harness.data.progress import rows_done
from harness.data.table_source import TableSource

if TYPE_CHECKING:
    from datasets import Dataset

LARGE_BYTES = 64 * 2**20
"""Size of the data files from which on their texts are kept on disk, if a folder is named."""
_ROW = "row"
_SUMMARY = "summary.json"
_HASH = "sha256"


@dataclass(frozen=True)
class Piece:
    """Some usable rows of a split.

    Attributes:
        columns: id, source and target, and references and cluster if the rows have them.
        reasons: reason why a row was left out -> number of rows.
        notes: sentences on guesses made while reading the split.
        several_references: whether a row has more than one reference.
    """

    columns: dict[str, list[Any]]
    reasons: Counter[str]
    notes: tuple[str, ...]
    several_references: bool


@dataclass(frozen=True)
class StoredExamples:
    """The usable rows of data files, in memory or on disk.

    Attributes:
        parts: split -> its rows.
        skipped: reason why a row was left out -> number of rows.
        notes: sentences on guesses made while reading.
    """

    parts: dict[str, Dataset]
    skipped: Counter[str]
    notes: list[str]


def size_of(sources: Mapping[str, TableSource]) -> int:
    """Return the bytes of all data files."""
    files = (file for source in sources.values() for file in source.files)
    return sum(file.stat().st_size for file in files if file.is_file())


def is_large(sources: Mapping[str, TableSource]) -> bool:
    """Return whether data files are so large that their texts should not be held in memory."""
    return size_of(sources) >= LARGE_BYTES


def memory_note(sources: Mapping[str, TableSource]) -> str:
    """Return a note for large data that each process holds in memory."""
    return (
        f"Every process of a run holds the texts of {size_of(sources) / 1e9:.1f} GB of data files "
        f"in memory; export {VARIABLE}=FOLDER keeps them and their token ids on disk, once for all."
    )


def store_examples(
    sources: Mapping[str, TableSource],
    settings: str,
    pieces: Callable[[str], Iterable[Piece]],
) -> StoredExamples | None:
    """Read data files into the cache, or map what an earlier run read; None without a cache.

    Args:
        sources: split -> its files.
        settings: all settings that the examples depend on.
        pieces: reads the usable rows of a split.

    Raises:
        HarnessError: a file is malformed, or the cache cannot be used.
    """
    folder = cache_folder("texts")
    if folder is None:
        return None
    place = folder / _key(sources, settings)
    if not place.exists():
        with made_once(place) as work:
            if work is not None:
                _write(work, sources, pieces)
    try:
        return _map(place)
    # Arrow's own errors are ValueErrors or OSErrors.
    except (OSError, ValueError, KeyError) as error:
        raise unusable(place, error) from error


def _key(sources: Mapping[str, TableSource], settings: str) -> str:
    """Hash the data files, the settings, and the code that reads them."""
    files = [
        (split, file.name, file_hash(file))
        for split, source in sources.items()
        for file in source.files
    ]
    code = folder_hash(Path(__file__).parent)
    return sha256(json.dumps([files, settings, code]).encode()).hexdigest()[:24]


def _write(
    work: Path, sources: Mapping[str, TableSource], pieces: Callable[[str], Iterable[Piece]]
) -> None:
    skipped: Counter[str] = Counter()
    notes: list[str] = []
    single: list[str] = []
    for split in sources:
        several = False
        with create_private(work / f"{split}.arrow") as file:
            for piece in _written(file, pieces(split)):
                skipped.update(piece.reasons)
                notes += [note for note in piece.notes if note not in notes]
                several |= piece.several_references
        if not several:
            single.append(split)
    summary = {"splits": list(sources), "skipped": skipped, "notes": notes, "single": single}
    with create_private(work / _SUMMARY) as file:
        file.write(json.dumps(summary).encode())


def _written(file: Any, pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Write the rows of pieces to a stream of Arrow, and yield each piece that is written."""
    import pyarrow as pa

    types = {"references": pa.list_(pa.string()), _ROW: pa.int64()}
    writer = None
    rows = 0
    try:
        for piece in pieces:
            count = len(piece.columns["id"])
            columns = {**piece.columns, _ROW: range(rows, rows + count)}
            schema = pa.schema([(name, types.get(name, pa.string())) for name in columns])
            writer = writer or pa.ipc.new_stream(file, schema)
            writer.write_batch(pa.record_batch(columns, schema=schema))
            rows += count
            rows_done(rows)
            yield piece
    finally:
        if writer is not None:
            writer.close()


def _map(place: Path) -> StoredExamples:
    from datasets import Dataset

    summary = json.loads((place / _SUMMARY).read_text())
    parts = {}
    for split in summary["splits"]:
        rows = Dataset.from_file(str(place / f"{split}.arrow"))
        if split in summary["single"] and "references" in rows.column_names:
            rows = rows.remove_columns("references")
        parts[split] = rows
    return StoredExamples(parts, Counter(summary["skipped"]), summary["notes"])


def stored_rows(split: Dataset) -> tuple[Path, NDArray[np.int64]] | None:
    """Return the file that a split's texts are in, and its rows there; None if there is none."""
    folder = cache_folder("texts")
    if folder is None or _ROW not in split.column_names or len(split.cache_files) != 1:
        return None
    file = Path(split.cache_files[0]["filename"])
    if file.parent.parent != folder or not (file.parent / _SUMMARY).is_file():
        return None
    rows = split.select_columns(_ROW).with_format("arrow")[:][_ROW].to_numpy()
    return file, rows


def splits_hash(*splits: Dataset) -> str:
    """Return ``data_hash`` of splits, computed once for each choice of rows of stored texts."""
    stored = [stored_rows(split) for split in splits]
    digest = sha256()
    for one in stored:
        if one is None:
            return data_hash(*splits)
        file, rows = one
        digest.update(f"{file.parent.name}/{file.name} {len(rows)}\0".encode() + rows.tobytes())
    assert stored[0] is not None
    place = stored[0][0].parent.with_name("hashes") / digest.hexdigest()[:24]
    if not place.exists():
        computed = data_hash(*splits)
        with made_once(place) as work:
            if work is not None:
                with create_private(work / _HASH) as hash_file:
                    hash_file.write(computed.encode())
    return (place / _HASH).read_text()
