"""Any records go through in order, with all columns, however often the command is killed."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import HarnessError
from harness.data.dialect import Dialect
from harness.errors import BusyError
from harness.generation.batch_predictor import BatchPredictor
from harness.generation.file_job import writer_of
from harness.generation.formats import OUTPUT_FORMATS, format_of
from harness.generation.opening import open_reader
from harness.generation.progress import Progress
from harness.generation.sources import Fields, SourceFinder
from harness.generation.stream import Stream
from harness.generation.work_folder import WorkFolder, errors_file

TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)
OTHER_COLUMNS = st.dictionaries(
    TEXT.filter(lambda name: name not in ("source", "prediction")), VALUES, max_size=3
)
GUESSED = Fields()
RECORDS = st.lists(st.tuples(TEXT, OTHER_COLUMNS), min_size=1, max_size=12)


class Killed(BaseException):
    """Raised where a process would die."""


def run(
    model: Any,
    source: Path,
    out: Path,
    *,
    window: int = 4,
    identity: dict[str, str] | None = None,
    overwrite: bool = False,
    fields: Fields = GUESSED,
    dialect: Dialect | None = None,
) -> Progress:
    reader = open_reader(str(source), None, dialect)
    finder = SourceFinder(reader, fields, model.adapters)
    kind = format_of(str(out), None, OUTPUT_FORMATS, "--output-format")
    with WorkFolder(out, overwrite=overwrite) as folder:
        progress = folder.load(identity or {}, 40)
        writer = writer_of(kind, folder, fields.prediction, reader)
        stream = Stream(
            reader, writer, BatchPredictor(model, 40), finder, window=window, folder=folder
        )
        stream.run(progress)
    return progress


def write_records(path: Path, records: Sequence[tuple[str, dict[str, Any]]]) -> Path:
    rows = [{**columns, "source": source} for source, columns in records]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def upper_text(source: str) -> str:
    return source.upper() if source.strip() else ""


@settings(max_examples=30)
@given(records=RECORDS, window=st.integers(1, 6), compressed=st.booleans())
def test_json_lines_keep_order_columns_and_values(
    upper: Any, records: list[tuple[str, dict[str, Any]]], window: int, compressed: bool
) -> None:
    with TemporaryDirectory() as folder:
        source = write_records(Path(folder) / "in.jsonl", records)
        out = Path(folder) / ("out.jsonl.gz" if compressed else "out.jsonl")
        progress = run(upper(), source, out, window=window)
        data = out.read_bytes()
        lines = (gzip.decompress(data) if compressed else data).decode().split("\n")
        assert lines.pop() == ""
        assert [json.loads(line) for line in lines] == [
            {**columns, "source": text, "prediction": upper_text(text)} for text, columns in records
        ]
        assert progress.records == len(records)
        assert {path.name for path in Path(folder).iterdir()} == {"in.jsonl", out.name}


@settings(max_examples=30)
@given(records=RECORDS, window=st.integers(1, 6))
def test_tables_keep_order_and_columns(
    upper: Any, records: list[tuple[str, dict[str, Any]]], window: int
) -> None:
    from pyarrow import parquet

    with TemporaryDirectory() as folder:
        source = write_records(Path(folder) / "in.jsonl", records)
        run(upper(), source, Path(folder) / "out.csv", window=window)
        run(upper(), source, Path(folder) / "out.parquet", window=window)
        text = (Path(folder) / "out.csv").read_bytes().decode()
        header, *cells = csv.reader(io.StringIO(text, newline=""), strict=True)
        rows = parquet.read_table(Path(folder) / "out.parquet").to_pylist()
    names = list(dict.fromkeys(n for _, columns in records for n in (*columns, "source")))
    assert header == [*names, "prediction"]
    assert [list(row) for row in rows] == [header] * len(records)
    for (source_text, columns), row, line in zip(records, rows, cells, strict=True):
        assert row["source"] == line[header.index("source")] == source_text
        assert row["prediction"] == line[-1] == upper_text(source_text)
        for name, value in columns.items():
            cell = line[header.index(name)]
            if isinstance(value, str):
                assert cell == row[name] == value
            elif value is None:
                assert cell == ""
                assert row[name] is None
            else:
                assert json.loads(cell) == value


def test_types_of_parquet_are_kept(upper: Any, tmp_path: Path) -> None:
    from datetime import UTC, date, datetime
    from decimal import Decimal

    import pyarrow
    from pyarrow import parquet

    columns: dict[str, Any] = {
        "text": ["one", "two", "three"],
        "day": [date(2024, 5, 6), None, date(1999, 1, 1)],
        "at": [datetime(2024, 5, 6, 7, 8, tzinfo=UTC), None, None],
        "raw": [b"\0\xff", None, b""],
        "price": [Decimal("1.20"), None, Decimal("3.00")],
        "short": pyarrow.array([1, 2, None], pyarrow.int16()),
        "empty": pyarrow.array([None, None, None], pyarrow.float32()),
        "kind": pyarrow.array(["x", "y", "x"]).dictionary_encode(),
        "nested": [{"a": [1]}, None, {"a": []}],
    }
    table = pyarrow.table(columns)
    parquet.write_table(table, tmp_path / "in.parquet")
    run(upper(), tmp_path / "in.parquet", tmp_path / "out.parquet", window=2)
    result = parquet.read_table(tmp_path / "out.parquet")
    assert result.drop(["prediction"]).schema == table.schema
    assert result.drop(["prediction"]).to_pylist() == table.to_pylist()
    assert result["prediction"].to_pylist() == ["ONE", "TWO", "THREE"]


def test_a_column_of_several_types_becomes_text_in_parquet(upper: Any, tmp_path: Path) -> None:
    from pyarrow import parquet

    records: Any = [("a", {"x": 1}), ("b", {"x": "1"}), ("c", {"x": None}), ("d", {"x": [2]})]
    source = write_records(tmp_path / "in.jsonl", records)
    run(upper(), source, tmp_path / "out.parquet", window=1)
    assert parquet.read_table(tmp_path / "out.parquet")["x"].to_pylist() == ["1", "1", None, "[2]"]


@settings(max_examples=30)
@given(
    texts=st.lists(st.text("ab \t,;é", max_size=8), max_size=9),
    window=st.integers(1, 4),
)
def test_lines_of_text_belong_together(upper: Any, texts: list[str], window: int) -> None:
    with TemporaryDirectory() as folder:
        source = Path(folder) / "in.txt"
        source.write_text("".join(text + "\n" for text in texts), "utf-8")
        run(upper(), source, Path(folder) / "out.txt", window=window)
        lines = (Path(folder) / "out.txt").read_text("utf-8").split("\n")
    assert lines == [*map(upper_text, texts), ""]


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz", "csv", "txt", "parquet"])
@settings(max_examples=5)
@given(data=st.data())
def test_a_killed_command_resumes_to_the_same_bytes(
    upper: Any, suffix: str, data: st.DataObject
) -> None:
    texts = [chr(97 + n % 26) * (1 + 7 * n % 11) for n in range(23)]
    with TemporaryDirectory() as name:
        folder = Path(name)
        source = write_records(
            folder / "in.jsonl", [(text, {"n": n}) for n, text in enumerate(texts)]
        )
        with source.open("a") as file:
            file.write("{bad\n")
        whole, cut = folder / f"whole.{suffix}", folder / f"cut.{suffix}"
        model = upper()
        run(model, source, whole)
        batches: list[tuple[int, str | None]] = []
        for _ in range(5):
            dying = upper()
            left = data.draw(st.integers(0, 4))
            predict = dying.predict

            def die(
                *words: Any,
                left: int = left,
                dying: Any = dying,
                predict: Any = predict,
                **named: Any,
            ) -> Any:
                if len(dying.batches) == left:
                    raise Killed
                return predict(*words, **named)

            dying.predict = die
            try:
                run(dying, source, cut)
            except Killed:
                assert not cut.exists()
                batches += dying.batches
            else:
                batches += dying.batches
                break
        if not cut.exists():
            last = upper()
            run(last, source, cut)
            batches += last.batches
        assert cut.read_bytes() == whole.read_bytes()
        assert errors_file(cut).read_bytes() == errors_file(whole).read_bytes()
        assert batches == model.batches  # No batch is decoded twice, or differently.
        assert not list(folder.glob(".*"))


def interrupted(upper: Any, source: Path, out: Path, **options: Any) -> None:
    """Leave a partial output with two windows of four records."""
    model = upper()
    predict = model.predict

    def die(sources: Any, *words: Any, **named: Any) -> Any:
        if sum(size for size, _ in model.batches) == 8:
            raise Killed
        return predict(sources, *words, **named)

    model.predict = die
    with pytest.raises(Killed):
        run(model, source, out, **options)


def test_another_input_or_setting_is_refused_and_overwrite_starts_again(
    upper: Any, tmp_path: Path
) -> None:
    records: Any = [(f"text {n}", {}) for n in range(12)]
    source, out = write_records(tmp_path / "in.jsonl", records), tmp_path / "out.jsonl"
    interrupted(upper, source, out, identity={"beams": "6", "model": "x"})
    with pytest.raises(HarnessError, match=r"made with beams 6, and now it is 1.*\n.*--overwrite"):
        run(upper(), source, out, identity={"beams": "1", "model": "x"})
    write_records(source, [("changed", {}), *records[1:]])
    with pytest.raises(HarnessError, match="belongs to another input") as caught:
        run(upper(), source, out, identity={"beams": "6", "model": "x"})
    assert "changed" not in str(caught.value)
    write_records(source, records[:5])
    with pytest.raises(HarnessError, match="belongs to another input"):
        run(upper(), source, out, identity={"beams": "6", "model": "x"})
    model = upper()
    run(model, source, out, identity={"beams": "1"}, overwrite=True)
    assert sum(size for size, _ in model.batches) == 5
    with pytest.raises(HarnessError, match="exists already"):
        run(upper(), source, out)
    run(upper(), source, out, overwrite=True)
    assert len(out.read_text().splitlines()) == 5


def test_two_commands_cannot_write_the_same_output(upper: Any, tmp_path: Path) -> None:
    source = write_records(tmp_path / "in.jsonl", [("a", {})])
    with (
        WorkFolder(tmp_path / "out.jsonl", overwrite=False),
        pytest.raises(BusyError, match="Another process writes"),
    ):
        run(upper(), source, tmp_path / "out.jsonl")
    run(upper(), source, tmp_path / "out.jsonl")


def test_bad_records_are_listed_without_their_text(upper: Any, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_bytes(
        b'{"source": "good"}\n'
        b'{"source": "secret\n'
        b"\n"
        b'["secret"]\n'
        b'{"text": "secret"}\n'
        b'{"source": 12}\n'
        b'{"source": null}\n'
        b'{"source": "\\ud800 secret"}\n'
        b'{"source": "secret \xff"}\n'
        b'{"source": "secret", "prediction": "secret"}\n'
        b'{"source": "fine"}\n'
    )
    progress = run(upper(), source, tmp_path / "out.jsonl")
    errors = (tmp_path / "out.jsonl.errors.jsonl").read_text()
    assert "secret" not in errors
    reasons = {row["line"]: row["reason"] for row in map(json.loads, errors.splitlines())}
    assert reasons == {
        2: "not JSON at character 12",
        4: "a list instead of an object",
        5: "has no column 'source'",
        6: "column 'source': a number instead of text",
        7: "column 'source': null instead of text",
        8: "half of a surrogate pair",
        9: "the text is not in the encoding utf-8-sig",
        10: "has a column 'prediction' already",
    }
    assert (progress.records, progress.errors) == (10, 8)
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["prediction"] for row in rows] == ["GOOD", "FINE"]


def test_bad_rows_of_csv_are_listed_and_do_not_stop_the_rest(upper: Any, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_bytes(
        b'id,text\n1,one\n2\n3,"th"ree\n4,"fo\nur"\n5,f\xfcnf\n6,six\n'
    )
    run(upper(), tmp_path / "in.csv", tmp_path / "out.csv")
    errors = (tmp_path / "out.csv.errors.jsonl").read_text().splitlines()
    assert [json.loads(line)["line"] for line in errors] == [3, 4, 7]
    assert (tmp_path / "out.csv").read_text() == (
        'id,text,prediction\n1,one,ONE\n4,"fo\nur","FO\nUR"\n6,six,SIX\n'
    )


def test_a_bad_line_of_text_leaves_an_empty_line(upper: Any, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_bytes(b"one\nb\xe4d\nthree\r\nlast")
    progress = run(upper(), tmp_path / "in.txt", tmp_path / "out.txt")
    assert (tmp_path / "out.txt").read_text() == "ONE\n\nTHREE\nLAST\n"
    assert progress.errors == 1


def test_no_good_record_at_all_is_an_error(upper: Any, tmp_path: Path) -> None:
    source = write_records(tmp_path / "in.jsonl", [("a", {}), ("b", {})])
    with pytest.raises(HarnessError, match=r"None of the first 2 .* Line 1: has no column 'note'"):
        run(upper(), source, tmp_path / "out.jsonl", fields=Fields(source="note"))
    assert {path.name for path in tmp_path.iterdir()} == {"in.jsonl"}


def test_columns_that_are_unclear_missing_or_taken_are_errors(upper: Any, tmp_path: Path) -> None:
    def fail(header: str, match: str, fields: Fields = GUESSED) -> None:
        (tmp_path / "in.csv").write_text(f"{header}\n1,2\n")
        with pytest.raises(HarnessError, match=match):
            run(upper(), tmp_path / "in.csv", tmp_path / "out.csv", fields=fields)

    fail("text,article", "More than one column could be the source: text, article")
    fail("a,b", r"No column is obviously the source.\n.*Columns: a, b.*--source-column")
    fail("text,prediction", r"'prediction' already.\n.*--prediction-column")
    fail("text,b", r"no column 'c'.\nColumns: text, b.*--source-column", Fields(source="c"))
    fail("text,b", r"no column 'c'.*\n.*--adapter-column", Fields(adapter="c"))
    fail("text,text", "has a column twice: text")


def test_a_column_names_the_adapter(upper: Any, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("text,task\none,b\ntwo,\nthree,a\nfour,c\nfive,b\n")
    model = upper()
    run(model, tmp_path / "in.csv", tmp_path / "out.csv", fields=Fields(adapter="task"), window=9)
    assert (tmp_path / "out.csv").read_text() == (
        "text,task,prediction\none,b,b:ONE\ntwo,,TWO\nthree,a,a:THREE\nfive,b,b:FIVE\n"
    )
    assert [name for _, name in model.batches] == [None, "a", "b"]
    assert "no adapter has this name" in errors_file(tmp_path / "out.csv").read_text()


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("in.tsv", b'text\tn\nsay "a\t1\n', "TEXT"),
        ("in.csv", b"text;n\na;1\nb;2\n", "A"),
        ("in.csv.gz", gzip.compress(b"n,text\n1,a\n", mtime=0), "A"),
        ("in.jsonl", b'\xef\xbb\xbf{"text": "a"}\n', "A"),
        ("in.txt", "a\n".encode("utf-16"), "A"),
        ("in.src", b"a\n", "A"),
    ],
)
def test_dialects_are_found(
    upper: Any, tmp_path: Path, name: str, data: bytes, expected: str
) -> None:
    (tmp_path / name).write_bytes(data)
    run(upper(), tmp_path / name, tmp_path / "out.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert rows[0]["prediction"] == {"TEXT": 'SAY "A'}.get(expected, expected)


@pytest.mark.parametrize(
    ("name", "data", "match"),
    [
        ("in.json", b'[{"source": "a"}]', "jq -c"),
        ("in.xlsx", b"", "--input-format"),
        ("in.parquet", b"PAR1", "not a file of parquet"),
        ("in.jsonl.gz", b"not gzip", "cannot be read"),
        ("in.txt", b"a\0b\0", "zero bytes"),
    ],
)
def test_an_input_that_cannot_be_read_is_an_error(
    upper: Any, tmp_path: Path, name: str, data: bytes, match: str
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(HarnessError, match=match):
        run(upper(), tmp_path / name, tmp_path / "out.jsonl")
    assert {path.name for path in tmp_path.iterdir()} == {name}


def test_arrow_files_are_read_in_batches(upper: Any, tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import ipc

    table = pyarrow.table({"text": [f"t{n}" for n in range(700)], "n": list(range(700))})
    with ipc.new_file(tmp_path / "in.arrow", table.schema) as writer:
        writer.write_table(table, max_chunksize=300)
    run(upper(), tmp_path / "in.arrow", tmp_path / "out.jsonl", window=50)
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [(row["n"], row["prediction"]) for row in rows] == [(n, f"T{n}") for n in range(700)]


def test_a_file_system_without_hard_links_gets_the_output_too(
    upper: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("operation not supported")

    (tmp_path / "in.txt").write_text("a\nb\n")
    monkeypatch.setattr("os.link", refuse)
    run(upper(), tmp_path / "in.txt", tmp_path / "out.txt")
    assert (tmp_path / "out.txt").read_text() == "A\nB\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.txt", "out.txt"]


def test_an_empty_input_gives_an_empty_output(upper: Any, tmp_path: Path) -> None:
    from pyarrow import parquet

    (tmp_path / "in.jsonl").touch()
    (tmp_path / "in.csv").write_text("id,text\n")
    run(upper(), tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_bytes() == b""
    run(upper(), tmp_path / "in.csv", tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text() == "id,text,prediction\n"
    run(upper(), tmp_path / "in.csv", tmp_path / "out.parquet")
    table = parquet.read_table(tmp_path / "out.parquet")
    assert (table.column_names, len(table)) == (["id", "text", "prediction"], 0)
