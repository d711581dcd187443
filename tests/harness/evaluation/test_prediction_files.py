"""``harness score`` on tables of any kind and on two text files, with the same scores."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet
from typer.testing import Result

ROWS = [
    {"prediction": "the lungs are clear", "reference": "lungs clear"},
    {"prediction": "café; small effusion, seen today", "reference": "a small effusion is seen"},
    {"prediction": "", "reference": "normal"},
]


def write(
    path: Path, rows: list[dict[str, Any]], delimiter: str = ",", encoding: str = "utf-8"
) -> Path:
    if path.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows), encoding)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding)
    else:
        with path.open("w", newline="", encoding=encoding) as file:
            writer = csv.DictWriter(file, rows[0], delimiter=delimiter)
            writer.writeheader()
            writer.writerows(rows)
    return path


@pytest.fixture
def scores(harness: Callable[..., Result]) -> Callable[..., Any]:
    def score(*arguments: str | Path) -> Any:
        result = harness("score", *map(str, arguments), "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    return score


@pytest.fixture
def expected(scores: Callable[..., Any], tmp_path: Path) -> Any:
    return scores(write(tmp_path / "expected.jsonl", ROWS))


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".tsv", ".parquet"])
@pytest.mark.parametrize("named", [False, True])
def test_tables_are_read_like_data(
    scores: Callable[..., Any], expected: Any, tmp_path: Path, suffix: str, named: bool
) -> None:
    rows = [{"n": str(n), **row} for n, row in enumerate(ROWS)]
    options: list[str] = []
    if named:
        rows = [{"prediction": "x", "out": r["prediction"], "gold": r["reference"]} for r in rows]
        options = ["--prediction-column", "out", "--reference-column", "gold"]
    path = write(tmp_path / f"p{suffix}", rows, "\t" if suffix == ".tsv" else ",")
    assert scores(path, *options) == expected


def test_semicolons_are_detected_and_noted(
    harness: Callable[..., Result], scores: Callable[..., Any], expected: Any, tmp_path: Path
) -> None:
    path = write(tmp_path / "p.csv", ROWS, ";")
    assert scores(path) == expected
    assert "semicolons between cells" in harness("score", str(path)).stderr


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_another_encoding(
    harness: Callable[..., Result],
    scores: Callable[..., Any],
    expected: Any,
    tmp_path: Path,
    suffix: str,
) -> None:
    path = write(tmp_path / f"p{suffix}", ROWS, encoding="cp1252")
    refused = harness("score", str(path))
    assert refused.exit_code == 2
    assert "--encoding" in refused.stderr
    assert scores(path, "--encoding", "cp1252") == expected


def test_two_text_files(scores: Callable[..., Any], expected: Any, tmp_path: Path) -> None:
    files = []
    for role in ("prediction", "reference"):
        files.append(tmp_path / f"{role}.txt")
        files[-1].write_text("".join(row[role] + "\n" for row in ROWS), encoding="utf-8")
    assert scores(*files) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("p.csv", "--prediction-column", "out"), "there is no column 'out'"),
        (("p.csv", "--reference-column", "gold"), "Choose one with --reference-column NAME"),
        (("p.jsonl", "--prediction-column", "out"), "the field out is missing"),
        (("p.txt",), "harness score"),
        (("p.txt", "short.txt"), "has 3 lines, and"),
        (("p.txt", "p.csv"), "is a table"),
        (("p.txt", "gone.txt"), "cannot be read"),
        (("gap.jsonl",), "the field reference holds None"),
        (("gap.parquet",), "row 2, column 'reference' is empty"),
    ],
)
def test_mistakes_name_the_remedy(
    harness: Callable[..., Result],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("p.csv"), ROWS)
    write(Path("p.jsonl"), ROWS)
    gap: list[dict[str, Any]] = [ROWS[0], {"prediction": "a", "reference": None}]
    write(Path("gap.jsonl"), gap)
    write(Path("gap.parquet"), gap)
    Path("p.txt").write_text("a\nb\nc\n")
    Path("short.txt").write_text("a\n")
    result = harness("score", *arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
