"""Statistics and preparation of data from Python."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from harness import HarnessError, prepare, stats

RADIOLOGY = "mimic_radiology"


def test_stats_are_those_of_the_command(
    notes: Path, harness: Callable[..., Result], tiny_t5: Path
) -> None:
    seen: list[tuple[int, int]] = []
    limit = {"max_target_length": 3}

    found = stats(
        str(notes),
        task_options=limit,
        backbone=str(tiny_t5),
        on_progress=lambda done, total: seen.append((done, total)),
    )

    words = ["--set", "task_options.max_target_length=3", "--backbone", str(tiny_t5), "--json"]
    shown = json.loads(harness("stats", str(notes), *words).stdout)
    assert found.model_dump(exclude={"notes"}) == shown
    assert sum(found.rows.values()) == 60
    assert found.cut_targets == 60
    assert seen[-1] == (60, 60)
    assert stats(str(notes)).cut_targets is None


def test_stats_of_a_mistyped_option_are_an_error(notes: Path) -> None:
    with pytest.raises(HarnessError, match="no option 'source_colum'"):
        stats(str(notes), task_options={"source_colum": "x"})


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Synthetic notes as the command writes them."""
    import gzip

    assert prepare(RADIOLOGY, tmp_path / "made", synthetic=60).kept > 20
    path = tmp_path / "notes.csv"
    path.write_bytes(gzip.decompress((tmp_path / "made" / "notes.csv.gz").read_bytes()))
    return path


def read(folder: Path) -> list[dict[str, object]]:
    from pyarrow import parquet

    rows: list[dict[str, object]] = parquet.read_table(folder / "examples.parquet").to_pylist()
    return rows


def rewrite(raw: Path, path: Path, delimiter: str, encoding: str) -> Path:
    import csv

    with raw.open(encoding="utf-8", newline="") as source:
        rows = list(csv.reader(source))
    # A letter that other encodings write in another way.
    rows = [[cell.replace(" the ", " thé ") for cell in row] for row in rows]
    with path.open("w", encoding=encoding, newline="") as target:
        csv.writer(target, delimiter=delimiter).writerows(rows)
    return path


@pytest.mark.parametrize(
    ("delimiter", "encoding", "options"),
    [
        (";", "utf-8", {}),
        ("\t", "utf-8", {"delimiter": "tab"}),
        (",", "latin-1", {"encoding": "latin-1"}),
        ("|", "utf-16", {"encoding": "utf-16", "delimiter": "pipe"}),
    ],
)
def test_a_raw_file_of_another_dialect_is_prepared_alike(
    raw: Path, tmp_path: Path, delimiter: str, encoding: str, options: dict[str, str]
) -> None:
    usual = rewrite(raw, tmp_path / "usual.csv", ",", "utf-8")
    other = rewrite(raw, tmp_path / "other.csv", delimiter, encoding)

    prepared = prepare(RADIOLOGY, tmp_path / "usual", notes=usual)

    assert prepare(RADIOLOGY, tmp_path / "other", notes=other, **options) == prepared  # type: ignore[arg-type]
    assert read(tmp_path / "other") == read(tmp_path / "usual")
    assert any("thé" in str(row["source"]) for row in read(tmp_path / "usual"))


def test_the_command_takes_encoding_and_delimiter(
    raw: Path, tmp_path: Path, harness: Callable[..., Result]
) -> None:
    other = rewrite(raw, tmp_path / "other.csv", ";", "latin-1")
    words = ["prepare", RADIOLOGY, "--notes", str(other), "--out", str(tmp_path / "out")]

    result = harness(*words, "--encoding", "latin-1", "--delimiter", "semicolon")

    assert result.exit_code == 0, result.output
    assert read(tmp_path / "out")
    wrong = harness(*words[:-1], str(tmp_path / "wrong"), "--encoding", "utf-61")
    assert wrong.exit_code == 2
    assert "Unknown encoding 'utf-61'" in wrong.stderr


def test_text_of_another_encoding_than_the_named_one_is_an_error(raw: Path, tmp_path: Path) -> None:
    other = rewrite(raw, tmp_path / "other.csv", ",", "utf-8")
    other.write_bytes(other.read_bytes() + b"x")  # UTF-16 has an even number of bytes.

    with pytest.raises(HarnessError, match=r"utf-16|header lacks"):
        prepare(RADIOLOGY, tmp_path / "out", notes=other, encoding="utf-16-le")

    assert not (tmp_path / "out").exists()
