"""Formats of data files, recognized by the end of the file's name."""

from __future__ import annotations

from pathlib import Path

TEXT_SUFFIXES = tuple(
    f".{kind}{gz}" for gz in ("", ".gz") for kind in ("jsonl", "json", "csv", "tsv")
)
ARROW_SUFFIXES = (".parquet", ".arrow", ".feather")
SHEET_SUFFIXES = (".xlsx",)
LINE_PAIRS = {".source": ".target", ".src": ".tgt"}
"""Suffixes of pairs of text files with one source or target per line (fairseq, OpenNMT)."""

DATA_SUFFIXES = (*TEXT_SUFFIXES, *ARROW_SUFFIXES, *SHEET_SUFFIXES)
"""Ends of the names of files that hold a table."""

READ = (
    "JSONL, JSON, CSV and TSV (.jsonl, .json, .csv, .tsv, each also .gz), Parquet, Arrow and "
    "Feather, Excel workbooks (.xlsx), pairs of text files such as train.source and train.target "
    "or train.src and train.tgt, folders of datasets' save_to_disk, and the hub's shards such as "
    "data/train-00000-of-00002.parquet"
)
"""List of the supported formats, for messages."""


def stem(path: Path) -> str:
    """Return the file's name without its data suffix."""
    suffixes = (*DATA_SUFFIXES, *LINE_PAIRS)
    longest = max((s for s in suffixes if path.name.endswith(s)), key=len, default="")
    return path.name.removesuffix(longest)
