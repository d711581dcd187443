"""Conversion of a CSV file of notes to a folder with a Parquet file and counts."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from harness import Dialect, HarnessError, Preparation, Prepared, hash_text
from tasks.mimic.notes import Note, read_notes
from tasks.mimic.sections import BUILT_IN, SectionReader, read_titles

EXAMPLES = "examples.parquet"
COUNTS = "counts.json"
SYNTHETIC = "notes.csv.gz"

HASHES = ("hash", "band_1", "band_2")
"""Columns of ``harness.data.leakage.hash_text``, computed once here instead of in every run."""

_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("id", "subject_id", "source", "target")),
        *((name, pa.uint64()) for name in HASHES),
    ]
)
_ROWS_AT_A_TIME = 1000


def prepare(kind: str, preparation: Preparation) -> Prepared:
    """Build the data set of one kind of note, ``discharge`` or ``radiology``.

    Memory does not grow with the file: it holds a thousand examples at a time.

    Raises:
        HarnessError: the notes cannot be read, none is usable, or the folder cannot be written.
    """
    reader = SectionReader(read_titles(kind, preparation.sections or BUILT_IN))
    if (preparation.notes is None) == (preparation.synthetic is None):
        raise HarnessError(
            "Either a file of notes or a number of synthetic notes is needed.",
            f"--notes {kind}.csv.gz from MIMIC-IV-Note "
            "(https://physionet.org/content/mimic-iv-note), or --synthetic 1000",
        )
    # Synthetic notes are written in the usual dialect.
    usual = preparation.notes is None
    dialect = Dialect() if usual else Dialect(preparation.encoding, preparation.delimiter)
    with _new_folder(preparation.out) as work:
        notes = preparation.notes
        if notes is None:
            from tasks.mimic.synthetic import write_notes

            notes = work / SYNTHETIC
            assert preparation.synthetic is not None
            write_notes(kind, notes, preparation.synthetic, preparation.seed)
        left_out: Counter[str] = Counter()
        kept = 0
        with parquet.ParquetWriter(work / EXAMPLES, _SCHEMA, compression="zstd") as writer:
            stream = read_notes(notes, left_out, preparation.on_progress, dialect)
            for batch in _batches(stream, reader, left_out):
                writer.write_batch(batch)
                kept += len(batch)
        if not kept:
            raise HarnessError(
                f"{notes}: no note is usable: {_listed(left_out)}.",
                "Check that the file is the one that the task is made from; the titles of the "
                "sections it must hold can be given: --sections FILE",
            )
        prepared = Prepared(kept, dict(left_out))
        record = {"kept": kept, "left_out": prepared.left_out}
        (work / COUNTS).write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    return prepared


def _batches(
    notes: Iterator[Note], reader: SectionReader, left_out: Counter[str]
) -> Iterator[pa.RecordBatch]:
    rows: list[tuple[Any, ...]] = []
    for note in notes:
        source, target = reader.read(note.text)
        if target is None:
            left_out["no section has a title of the target"] += 1
        elif not target:
            left_out["the target is empty"] += 1
        elif not source:
            left_out["no section of the source holds text"] += 1
        else:
            rows.append((note.id, note.subject, source, target, *hash_text(source)))
            if len(rows) == _ROWS_AT_A_TIME:
                yield _batch(rows)
                rows.clear()
    if rows:
        yield _batch(rows)


def _batch(rows: list[tuple[Any, ...]]) -> pa.RecordBatch:
    columns = zip(_SCHEMA.types, zip(*rows, strict=True), strict=True)
    return pa.record_batch([pa.array(column, kind) for kind, column in columns], schema=_SCHEMA)


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """Yield a temporary folder, which is renamed to its final name after success."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise HarnessError(f"{out} exists already.", "Give another --out, or remove it first.")
    work: Path | None = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".tmp", dir=out.parent))
        yield work
        for path in work.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        work.replace(out)
    # pyarrow also reports a full disk as an OSError.
    except OSError as error:
        raise HarnessError(
            f"{out} cannot be written: {error}.",
            "Make room on the disk, or give an --out on another one. Nothing was left there.",
        ) from error
    finally:
        if work is not None:
            shutil.rmtree(work, ignore_errors=True)


def _listed(left_out: Counter[str]) -> str:
    return ", ".join(f"{reason} {count} times" for reason, count in left_out.items()) or "no rows"
