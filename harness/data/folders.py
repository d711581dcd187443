"""Folders of data: finds the files of each split in common layouts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from harness.data.dialect import Dialect
from harness.data.files import PIECE_ROWS, read_pair
from harness.data.kinds import DATA_SUFFIXES, LINE_PAIRS, READ, stem
from harness.data.table import Table
from harness.data.table_source import TablePart, TableSource
from harness.errors import HarnessError

if TYPE_CHECKING:
    from datasets import Dataset

T = TypeVar("T")

SPLIT_NAMES = {
    "train": ("train",),
    "eval": ("eval", "validation", "valid", "val", "dev"),
    "test": ("test",),
}
_SHARD = re.compile(r"(?P<name>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})")
_PREFIXED = re.compile(r"src-(?P<name>\w+)(?P<suffix>\.txt)?")
"""OpenNMT's name of the sources of a split: src-train.txt, with targets in tgt-train.txt."""
_UTF8 = Dialect()
_LISTED = 12

Layout = dict[str, list[Path]]


def read_folder(folder: Path, dialect: Dialect = _UTF8) -> dict[str, Table]:
    """Read the splits of a folder into memory; see ``folder_sources``."""
    return {split: source.read() for split, source in folder_sources(folder, dialect).items()}


def folder_sources(folder: Path, dialect: Dialect = _UTF8) -> dict[str, TableSource]:
    """Find the splits of a folder: train, test and, if present, eval.

    Only folders written by the library datasets or the hub may lack a test split.

    Raises:
        HarnessError: a split is missing, files are ambiguous, or a file cannot be read.
    """
    from harness.data.arrow import is_saved, open_saved

    layout: Layout = {}
    needed = ["train"]
    if is_saved(folder):
        saved = {name: dataset_source(folder, name, d) for name, d in open_saved(folder).items()}
        sources = pick_splits(saved)
    else:
        layout = find_split_files(folder)
        if not layout and (folder / "data").is_dir():
            layout = find_split_files(folder / "data")
        sources = {split: _file_source(paths, dialect) for split, paths in layout.items()}
        # The hub has data sets without a test split. In other folders the file is a mistake to
        # report.
        if not any(map(_is_shard, layout.get("train", []))):
            needed.append("test")
    if missing := [split for split in needed if split not in sources]:
        raise HarnessError(
            f"{folder}: there is no {' and no '.join(missing)} file in this folder.", _hint(folder)
        )
    return sources


def pick_splits(tables: dict[str, T]) -> dict[str, T]:
    """Return split -> table for splits with a usual name; others are ignored."""
    return {
        split: tables[name]
        for split, names in SPLIT_NAMES.items()
        for name in names[::-1]
        if name in tables
    }


def find_split_files(folder: Path) -> Layout:
    """Return split -> its files for the splits in a folder; several files are shards.

    Raises:
        HarnessError: two files could be the same split, or a shard is missing.
    """
    files = sorted(path for path in folder.iterdir() if path.is_file())
    claims: dict[str, dict[str, list[Path]]] = {split: {} for split in SPLIT_NAMES}
    for path in files:
        if (name_and_shard := _split_name(path)) is None:
            continue
        name, shard = name_and_shard
        for split, names in SPLIT_NAMES.items():
            if name in names:
                claims[split].setdefault(f"{name} shards" if shard else path.name, []).append(path)
    layout = {}
    for split, claimed in claims.items():
        if len(claimed) > 1:
            listed = ", ".join(path.name for paths in claimed.values() for path in paths)
            raise HarnessError(
                f"{folder}: more than one file could be the {split} split: {listed}.",
                "Leave one of them in the folder.",
            )
        for paths in claimed.values():
            _require_all_shards(paths)
            layout[split] = paths
    return layout


def _split_name(path: Path) -> tuple[str, bool] | None:
    """Return the name of a file's split, and whether the file is a shard of it."""
    if path.name.endswith(DATA_SUFFIXES) or path.suffix in LINE_PAIRS:
        name = stem(path)
        shard = _SHARD.fullmatch(name)
        return (shard["name"], True) if shard else (name, False)
    prefixed = _PREFIXED.fullmatch(path.name)
    return (prefixed["name"], False) if prefixed else None


def _is_shard(path: Path) -> bool:
    return _SHARD.fullmatch(stem(path)) is not None


def _require_all_shards(paths: list[Path]) -> None:
    matches = [_SHARD.fullmatch(stem(path)) for path in paths]
    shards = [match for match in matches if match is not None]
    if not shards:
        return
    count = int(shards[0]["count"])
    numbers = {int(match["number"]) for match in shards}
    missing = sorted(set(range(count)) - numbers)
    if missing or len(paths) != count:
        which = ", ".join(f"{number:05d}" for number in missing[:_LISTED])
        raise HarnessError(
            f"{paths[0].parent}: {len(paths)} of {count} shards of "
            f"{shards[0]['name']} are there; missing: {which or 'none, but some are too many'}.",
            "Copy the missing shards there: a part of the data would give different scores.",
        )


def _file_source(paths: list[Path], dialect: Dialect) -> TableSource:
    path = paths[0]
    if _PREFIXED.fullmatch(path.name):
        targets = path.with_name(path.name.replace("src-", "tgt-", 1))
        pair = TablePart(path, (path, targets), lambda: read_pair(path, targets, dialect))
        return TableSource(path, (pair,))
    parts = tuple(TablePart.of_file(path, dialect) for path in paths)
    return TableSource(path if len(paths) == 1 else path.parent, parts)


def dataset_source(folder: Path, name: str, rows: Dataset) -> TableSource:
    """Return an opened data set as a source; the folder and the name are for messages."""
    from harness.data.arrow import read_rows

    files = tuple(Path(file["filename"]) for file in rows.cache_files)

    def pieces() -> Iterator[Table]:
        if not len(rows):
            yield Table(folder / name, {column: [] for column in rows.column_names})
        for columns in read_rows(folder, rows, PIECE_ROWS):
            yield Table(folder / name, columns)

    return TableSource(folder / name, (TablePart(folder / name, files, pieces),))


def _hint(folder: Path) -> str:
    names = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    listed = ", ".join(names[:_LISTED]) + more
    return (
        f"It holds: {listed or 'nothing'}.\n"
        f"Supported formats: {READ}; a split is a file named train, test, or eval (validation, "
        "valid, val, dev). Or give one file, which is split 80/10/10."
    )
