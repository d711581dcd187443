"""Folders and files of data in the layouts that libraries write."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest
from pyarrow import feather, ipc, parquet

from harness import HarnessError, Splits
from tasks.files import FileOptions, FileTask

ROWS = [{"source": f"text {n}", "target": f"summary {n}"} for n in range(20)]


def splits(path: Path, **options: Any) -> Splits:
    return FileTask(str(path), FileOptions(**options)).splits(seed=0)


def sources(dataset: Splits) -> list[str]:
    parts = (dataset.train, dataset.eval, dataset.test)
    return sorted(text for part in parts for text in part["source"])


def sizes(dataset: Splits) -> tuple[int, int, int]:
    return len(dataset.train), len(dataset.eval), len(dataset.test)


def test_a_folder_of_save_to_disk_with_splits(tmp_path: Path) -> None:
    rows = datasets.Dataset.from_list(ROWS)
    named = {"train": rows, "validation": rows.select([1]), "test": rows.select([2, 3])}
    datasets.DatasetDict({**named, "unused": rows}).save_to_disk(str(tmp_path / "saved"))
    dataset = splits(tmp_path / "saved")
    assert sizes(dataset) == (20, 1, 2)
    assert dataset.test["source"] == ["text 2", "text 3"]


def test_a_folder_of_save_to_disk_without_splits(tmp_path: Path) -> None:
    datasets.Dataset.from_list(ROWS).save_to_disk(str(tmp_path / "saved"))
    dataset = splits(tmp_path / "saved")
    assert sizes(dataset) == (16, 2, 2)
    assert sources(dataset) == sorted(row["source"] for row in ROWS)


def test_a_damaged_folder_of_save_to_disk(tmp_path: Path) -> None:
    datasets.Dataset.from_list(ROWS).save_to_disk(str(tmp_path))
    (tmp_path / "state.json").write_text("{}")
    with pytest.raises(HarnessError, match="save_to_disk cannot be read"):
        splits(tmp_path)


@pytest.mark.parametrize("place", [".", "data"])
def test_the_hub_s_shards(tmp_path: Path, place: str) -> None:
    folder = tmp_path / place
    folder.mkdir(exist_ok=True)
    (tmp_path / "README.md").write_text("A data set.")
    for number in range(2):
        part = pa.Table.from_pylist(ROWS[10 * number : 10 * number + 10])
        parquet.write_table(part, folder / f"train-0000{number}-of-00002.parquet")
    parquet.write_table(pa.Table.from_pylist(ROWS[:3]), folder / "test-00000-of-00001.parquet")
    dataset = splits(tmp_path)
    assert sizes(dataset) == (18, 2, 3)
    assert sources(dataset) == sorted(row["source"] for row in [*ROWS, *ROWS[:3]])
    (folder / "train-00001-of-00002.parquet").unlink()
    with pytest.raises(HarnessError, match="1 of 2 shards of train are there; missing: 00001"):
        splits(tmp_path)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("{}.source", "{}.target"),
        ("{}.src", "{}.tgt"),
        ("src-{}.txt", "tgt-{}.txt"),
    ],
)
def test_pairs_of_text_files(tmp_path: Path, source: str, target: str) -> None:
    for split in ("train", "val", "test"):
        lines = [f"{split} {n} \u2028 one line" for n in range(5)]
        (tmp_path / source.format(split)).write_text("\n".join([*lines, ""]), encoding="utf-8")
        (tmp_path / target.format(split)).write_bytes(b"t\r\n" * 4 + b"\n")
    dataset = splits(tmp_path)
    assert sizes(dataset) == (4, 4, 4)
    assert dataset.skipped == {"target is empty": 3}
    assert dataset.test["source"][0] == "test 0 \u2028 one line"
    assert dataset.test["target"][0] == "t"
    (tmp_path / target.format("test")).write_text("t\n")
    with pytest.raises(HarnessError, match=r"has 5 lines, and .* has 1"):
        splits(tmp_path)
    (tmp_path / target.format("test")).unlink()
    with pytest.raises(HarnessError, match=r"file of its targets, .* is not in the same folder"):
        splits(tmp_path)


def write_stream(table: pa.Table, path: Path) -> None:
    with ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table)


def write_file(table: pa.Table, path: Path) -> None:
    with ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.arrow", write_stream),
        ("a.arrow", write_file),
        ("a.feather", feather.write_feather),
        ("a.feather", lambda table, path: feather.write_feather(table, path, version=1)),
    ],
)
def test_arrow_and_feather(
    tmp_path: Path, name: str, write: Callable[[pa.Table, Path], None]
) -> None:
    path = tmp_path / name
    write(pa.Table.from_pylist(ROWS), path)
    assert sources(splits(path)) == sorted(row["source"] for row in ROWS)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(HarnessError, match="not an Arrow file that can be read"):
        splits(path)


def test_a_workbook(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for sheet, prefix in ((book.active, ""), (book.create_sheet("Second"), "other ")):
        sheet.append(["source", "target", None])
        for row in ROWS:
            sheet.append([prefix + row["source"], row["target"]])
        sheet.append([])
        sheet.append(["no target"])
    path = tmp_path / "a.xlsx"
    book.save(path)
    dataset = splits(path)
    assert sources(dataset) == sorted(row["source"] for row in ROWS)
    assert dataset.skipped == {"target is missing": 1}
    assert "first of its 2 sheets" in dataset.notes[0]
    second = splits(path, sheet="Second")
    assert sources(second) == sorted(f"other {row['source']}" for row in ROWS)
    assert second.notes == ()
    with pytest.raises(HarnessError, match="no sheet 'Third'"):
        splits(path, sheet="Third")
    path.write_bytes(b"PK no workbook")
    with pytest.raises(HarnessError, match="the workbook cannot be read"):
        splits(path)


def test_without_the_extra_a_workbook_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    (tmp_path / "a.xlsx").write_bytes(b"PK")
    with pytest.raises(HarnessError, match="needs the package openpyxl") as caught:
        splits(tmp_path / "a.xlsx")
    assert "[xlsx]" in str(caught.value.hint)


def test_an_error_lists_what_is_read_and_what_was_found(tmp_path: Path) -> None:
    (tmp_path / "notes.docx").write_text("x")
    (tmp_path / "more").mkdir()
    with pytest.raises(HarnessError, match="no train and no test file") as caught:
        splits(tmp_path)
    hint = str(caught.value.hint)
    assert "It holds: more/, notes.docx" in hint
    for kind in ("JSONL", "TSV", "Parquet", "Feather", ".xlsx", "train.source", "save_to_disk"):
        assert kind in hint
    with pytest.raises(HarnessError, match="this format of data file is not supported") as caught:
        splits(tmp_path / "notes.docx")
    assert "Parquet" in str(caught.value.hint)
