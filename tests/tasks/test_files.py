"""Own data: what is read, what is skipped and counted, and what is refused in which words."""

import csv
import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from harness import HarnessError, Splits
from harness.data.references import is_data_path
from tasks.files import FileOptions, FileTask

ROWS = [{"source": f"text {i}", "target": f"summary {i}"} for i in range(20)]

Rows = Sequence[dict[str, Any]]
Writer = Callable[[Path, Rows], Path]


def task(path: Path, **options: Any) -> FileTask:
    return FileTask(str(path), FileOptions(**options))


def write_jsonl(path: Path, rows: Rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_json(path: Path, rows: Rows) -> Path:
    path.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return path


def write_csv(path: Path, rows: Rows) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_parquet(path: Path, rows: Rows) -> Path:
    parquet.write_table(pa.Table.from_pylist(rows), path)
    return path


def compressed(write: Writer) -> Writer:
    def write_compressed(path: Path, rows: Rows) -> Path:
        plain = write(path.with_suffix(""), rows)
        path.write_bytes(gzip.compress(plain.read_bytes()))
        plain.unlink()
        return path

    return write_compressed


WRITERS = {
    ".jsonl": write_jsonl,
    ".json": write_json,
    ".csv": write_csv,
    ".parquet": write_parquet,
    ".jsonl.gz": compressed(write_jsonl),
    ".json.gz": compressed(write_json),
    ".csv.gz": compressed(write_csv),
}


def write_folder(
    folder: Path, suffix: str = ".jsonl", names: tuple[str, ...] = ("train", "eval", "test")
) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        rows = [{"id": f"{name}{i}", **row} for i, row in enumerate(ROWS)]
        WRITERS[suffix](folder / f"{name}{suffix}", rows)
    return folder


def texts(splits: Splits) -> list[str]:
    return sorted(
        text for split in (splits.train, splits.eval, splits.test) for text in split["source"]
    )


# References


@pytest.mark.parametrize(
    "reference", ["./x", "../x", "/x/y", "~/x", "notes.jsonl", "a/b.csv.gz", "c.parquet", "."]
)
def test_paths_are_accepted_even_where_nothing_exists(reference: str) -> None:
    assert is_data_path(reference)


@pytest.mark.parametrize("reference", ["radiology_demo", "radiology_dmeo", "hcm", "org/name"])
def test_names_are_left_to_the_suggestions(reference: str) -> None:
    assert not is_data_path(reference)


def test_registering_imports_no_heavy_module() -> None:
    code = "import sys, tasks; print({'datasets', 'pyarrow', 'torch', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# What is read


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_folder_in_each_format(tmp_path: Path, suffix: str) -> None:
    splits = task(write_folder(tmp_path, suffix)).splits(seed=0)
    for name, split in (("train", splits.train), ("eval", splits.eval), ("test", splits.test)):
        assert split.to_list() == [{"id": f"{name}{i}", **row} for i, row in enumerate(ROWS)]
    assert splits.skipped == {}


@pytest.mark.parametrize("name", ["validation", "valid", "val", "dev"])
def test_other_names_of_the_eval_split(tmp_path: Path, name: str) -> None:
    splits = task(write_folder(tmp_path, names=("train", name, "test"))).splits(seed=0)
    assert splits.eval["id"][0] == f"{name}0"


@pytest.mark.parametrize("suffix", WRITERS)
def test_one_file_is_split_by_the_seed(tmp_path: Path, suffix: str) -> None:
    path = WRITERS[suffix](tmp_path / f"notes{suffix}", ROWS)
    first, again, other = (task(path).splits(seed) for seed in (1, 1, 2))
    assert (len(first.train), len(first.eval), len(first.test)) == (16, 2, 2)
    assert texts(first) == sorted(row["source"] for row in ROWS)
    assert first.test.to_list() == again.test.to_list()
    assert first.test.to_list() != other.test.to_list()
    fixed = task(path, split_seed=1)
    assert fixed.splits(seed=2).test.to_list() == first.test.to_list()
    assert fixed.name == "notes"


def test_a_row_keeps_its_number_as_its_id(tmp_path: Path) -> None:
    rows = [{"source": " ", "target": "x"}, *ROWS]
    splits = task(write_jsonl(tmp_path / "a.jsonl", rows)).splits(seed=0)
    for row in splits.train:
        assert rows[int(row["id"].removeprefix("row-")) - 1]["source"] == row["source"]


def test_eval_is_taken_from_train_where_it_is_missing(tmp_path: Path) -> None:
    splits = task(write_folder(tmp_path, names=("train", "test"))).splits(seed=0)
    assert (len(splits.train), len(splits.eval), len(splits.test)) == (18, 2, 20)
    assert not set(splits.train["id"]) & set(splits.eval["id"])


def test_json_lines_under_the_suffix_json(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.json", ROWS)
    assert texts(task(path).splits(0)) == sorted(row["source"] for row in ROWS)


def test_text_is_never_taken_for_another_type(tmp_path: Path) -> None:
    odd = ["2024-01-01", "NA", "null", "007", "1e5", "True", 'a "b", c\nd', "é\u2028ß"]
    rows = [{"source": text, "target": text} for text in odd]
    for suffix, write in WRITERS.items():
        path = write(tmp_path / f"odd{suffix}", rows)
        assert texts(task(path).splits(0)) == sorted(odd), suffix


def test_a_byte_order_mark_is_no_part_of_a_column_name(tmp_path: Path) -> None:
    path = tmp_path / "excel.csv"
    path.write_text("source,target\na,b\nc,d\ne,f\n", encoding="utf-8-sig")
    assert texts(task(path).splits(0)) == ["a", "c", "e"]


def test_long_cells(tmp_path: Path) -> None:
    rows = [{"source": "word " * 60_000, "target": str(i)} for i in range(3)]
    assert len(task(write_csv(tmp_path / "long.csv", rows)).splits(0).train) == 1


def test_options_become_the_task_s_lengths_and_suite(tmp_path: Path) -> None:
    own = task(tmp_path, prefix="go: ", max_source_length=99, max_target_length=9)
    assert (own.prefix, own.max_source_length, own.max_target_length) == ("go: ", 99, 9)
    names = {suite: task(tmp_path, suite=suite).metrics() for suite in ("summary", "dialogue")}
    for metrics in names.values():
        assert any(own.primary_metric in metric.names for metric in metrics)


# Columns


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("document", "summary"),
        ("article", "highlights"),
        ("dialogue", "response"),
        ("Findings", "Impression"),
        ("input", "output"),
    ],
)
def test_obvious_columns_are_guessed(tmp_path: Path, source: str, target: str) -> None:
    rows = [{"n": i, source: f"s{i}", target: f"t{i}"} for i in range(3)]
    splits = task(write_jsonl(tmp_path / "a.jsonl", rows)).splits(0)
    assert texts(splits) == ["s0", "s1", "s2"]


def test_named_columns_win(tmp_path: Path) -> None:
    rows = [{"source": "x", "target": "y", "a": f"a{i}", "b": "b", "k": i} for i in range(3)]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    splits = task(path, source_column="a", target_column="b", id_column="k").splits(0)
    assert texts(splits) == ["a0", "a1", "a2"]
    assert {row["id"]: row["source"] for row in splits.train}.items() <= {
        "0": "a0",
        "1": "a1",
        "2": "a2",
    }.items()


def test_a_column_named_for_one_role_is_not_guessed_for_the_other(tmp_path: Path) -> None:
    rows = [{"summary": "x", "headline": "y"}] * 3
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    assert task(path, source_column="summary").splits(0).train["target"][0] == "y"


@pytest.mark.parametrize(
    ("row", "options", "message"),
    [
        ({"article": "x", "text": "y", "summary": "z"}, {}, "more than one .* article, text"),
        ({"a": "x", "summary": "z"}, {}, "no column is obviously the source"),
        ({"source": "x", "b": "z"}, {}, "no column is obviously the target"),
        ({"source": "x", "target": "z"}, {"source_column": "sorce"}, "no column 'sorce'"),
        ({"source": "x", "target": "z"}, {"id_column": "key"}, "no column 'key'"),
        (
            {"source": "x", "target": "z"},
            {"source_column": "source", "target_column": "source"},
            "both source and target",
        ),
    ],
)
def test_column_errors_list_the_columns_and_the_flag(
    tmp_path: Path, row: dict[str, str], options: dict[str, str], message: str
) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [row] * 5)
    with pytest.raises(HarnessError, match=message) as caught:
        task(path, **options).splits(0)
    assert str(path) in caught.value.message
    assert all(column in (caught.value.hint or "") for column in row)
    assert "-column NAME" in (caught.value.hint or "")


# Ids


def test_named_ids_that_repeat_are_an_error_and_guessed_ones_are_not_used(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"id": "same", **row} for row in ROWS])
    with pytest.raises(HarnessError, match="not unique"):
        task(path, id_column="id").splits(0)
    assert all(i.startswith("row-") for i in task(path).splits(0).train["id"])


# Skipped and refused rows


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
def test_blank_and_missing_texts_are_skipped_and_counted(tmp_path: Path, suffix: str) -> None:
    bad: list[dict[str, Any]] = [
        {"source": "", "target": "x"},
        {"source": " \n\t", "target": "x"},
        {"source": None, "target": "x"},
        {"source": "x", "target": "\u00a0"},
        {"source": "x", "target": None},
        {"source": None, "target": None},
    ]
    splits = task(WRITERS[suffix](tmp_path / f"a{suffix}", [*ROWS, *bad])).splits(0)
    assert splits.skipped == {
        "source is empty": 2,
        "source is missing": 2,
        "target is empty": 1,
        "target is missing": 1,
    }
    assert texts(splits) == sorted(row["source"] for row in ROWS)


def test_skipped_rows_are_counted_over_all_splits(tmp_path: Path) -> None:
    write_folder(tmp_path)
    for name in ("train", "eval", "test"):
        write_jsonl(tmp_path / f"{name}.jsonl", [*ROWS, {"source": "only"}])
    assert task(tmp_path).splits(0).skipped == {"target is missing": 3}


@pytest.mark.parametrize("value", [1, 2.5, True, ["x"], {"a": "x"}])
@pytest.mark.parametrize("column", ["source", "target"])
def test_values_that_are_not_text_are_errors(tmp_path: Path, column: str, value: object) -> None:
    rows: list[dict[str, Any]] = [*ROWS, {**ROWS[0], column: value}]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    with pytest.raises(
        HarnessError, match=rf"a\.jsonl: row 21, column '{column}': .* instead of text"
    ):
        task(path).splits(0)


def test_a_numeric_parquet_column_is_an_error(tmp_path: Path) -> None:
    rows = [{"source": "x", "target": i} for i in range(5)]
    with pytest.raises(HarnessError, match="row 1, column 'target': a number"):
        task(write_parquet(tmp_path / "a.parquet", rows)).splits(0)


# Bad files


@pytest.mark.parametrize("reference", ["gone.jsonl", "gone"])
def test_a_missing_file_or_folder(tmp_path: Path, reference: str) -> None:
    with pytest.raises(HarnessError, match="no file or folder") as caught:
        task(tmp_path / reference).splits(0)
    assert "--task" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("names", "missing"),
    [(("eval", "test"), "no train"), (("train", "eval"), "no test"), ((), "no train and no test")],
)
def test_a_folder_without_a_needed_split(
    tmp_path: Path, names: tuple[str, ...], missing: str
) -> None:
    with pytest.raises(HarnessError, match=missing):
        task(write_folder(tmp_path, names=names)).splits(0)


def test_two_files_for_one_split(tmp_path: Path) -> None:
    write_folder(tmp_path, names=("train", "dev", "eval", "test"))
    with pytest.raises(HarnessError, match=r"dev\.jsonl, eval\.jsonl"):
        task(tmp_path).splits(0)


GOOD = b'{"source": "x", "target": "y"}\n'
BAD_FILES = {
    "empty.jsonl": b"",
    "empty.json": b"",
    "list.json": b"[]",
    "empty.csv": b"",
    "header.csv": b"source,target\n",
    "empty.parquet": b"",
    "not.parquet": b"PAR1 or so",
    "not.jsonl": GOOD * 3 + b"{source: x}\n",
    "number.jsonl": GOOD * 3 + b"5\n",
    "open.json": b'[{"source": "x"}',
    "nested.json": b'{\n"data": []\n}',
    "deep.jsonl": b"[" * 100_000,
    "digits.jsonl": b'{"source": ' + b"9" * 5000 + b"}",
    "surrogate.jsonl": GOOD * 3 + b'{"source": "\\ud800", "target": "y"}',
    "latin1.jsonl": b'{"source": "caf\xe9", "target": "y"}',
    "ragged.csv": b"source,target\na,b\nc\n",
    "wide.csv": b"source,target\na,b\nc,d,e\n",
    "open.csv": b'source,target\n"a,b\n',
    "twice.csv": b"source,source\na,b\n",
    "not.jsonl.gz": b"plain",
    "cut.jsonl.gz": gzip.compress(GOOD * 100)[:-9],
    "blank.jsonl": b'{"source": " ", "target": "x"}\n' * 5,
    "two.jsonl": GOOD * 2,
    "notes.txt": b"text",
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_are_clear_errors(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(BAD_FILES[name])
    with pytest.raises(HarnessError) as caught:
        task(path).splits(0)
    assert name in caught.value.message
    assert caught.value.hint


def test_malformed_lines_are_numbered(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(GOOD * 3 + b"\n{oops\n")
    with pytest.raises(HarnessError, match=r"a\.jsonl: line 5: not JSON"):
        task(tmp_path / "a.jsonl").splits(0)


# Anything at all: it loads, with every row kept or counted, or it is the user's error

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)
TEXTS = st.text(max_size=8) | st.sampled_from(["word", "two words", "x"])
COLUMNS = st.sampled_from(["source", "target", "text", "summary", "id", ""])
USUAL = st.fixed_dictionaries(
    {"source": TEXTS, "target": TEXTS | st.none()}, optional={"id": st.integers() | TEXTS}
)
JSON_ROWS = st.lists(USUAL, min_size=4, max_size=12) | st.lists(
    st.dictionaries(COLUMNS, VALUES | st.just("\ud800"), max_size=4) | USUAL, max_size=12
)
FUZZ = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def check(path: Path, rows: int | None) -> None:
    try:
        splits = task(path).splits(seed=0)
    except HarnessError as error:
        event(f"refused: {error.message.rpartition(': ')[2][:30]}")
        return
    event("loaded")
    parts = (splits.train, splits.eval, splits.test)
    assert all(len(part) > 0 for part in parts)
    kept = [row for part in parts for row in part]
    assert all(row["source"].strip() and row["target"].strip() for row in kept)
    assert len({row["id"] for row in kept}) == len(kept)
    if rows is not None:
        assert len(kept) + sum(splits.skipped.values()) == rows


@FUZZ
@given(JSON_ROWS)
def test_any_json_rows(tmp_path: Path, rows: Rows) -> None:
    check(write_jsonl(tmp_path / "a.jsonl", rows), len(rows))
    check(write_json(tmp_path / "a.json", rows), len(rows))


@FUZZ
@given(
    st.sampled_from([["source", "target"], ["source", "target", "id"], ["a", "text", "summary"]]),
    st.lists(st.lists(TEXTS, min_size=3, max_size=3), max_size=12),
    st.integers(0, 100),
)
def test_any_csv_cells(tmp_path: Path, header: list[str], rows: list[list[str]], cut: int) -> None:
    rows = [row[: len(header)] for row in rows]
    if cut < len(rows):
        rows[cut].pop()
    path = tmp_path / "a.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    check(path, len(rows))


STARTS = {
    ".jsonl": GOOD * 4,
    ".json": b"[" + b",".join([GOOD] * 4) + b"]",
    ".csv": b"source,target\na,b\nc,d\ne,f\n",
    ".parquet": b"PAR1",
    ".jsonl.gz": gzip.compress(GOOD * 4),
}


@FUZZ
@given(
    st.sampled_from(sorted(STARTS)),
    st.booleans(),
    st.binary(max_size=40) | st.text(max_size=20).map(str.encode),
)
def test_any_bytes(tmp_path: Path, suffix: str, begun: bool, rest: bytes) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes((STARTS[suffix] if begun else b"") + rest)
    check(path, None)


@FUZZ
@given(st.integers(0, 10_000), st.integers(0, 255))
def test_a_damaged_parquet_file(tmp_path: Path, place: int, byte: int) -> None:
    path = write_parquet(tmp_path / "a.parquet", ROWS)
    data = bytearray(path.read_bytes())
    data[place % len(data)] = byte
    path.write_bytes(data)
    check(path, None)


# Privacy, and real data


def test_loading_is_silent_and_leaves_no_copy(tmp_path: Path) -> None:
    home, scratch = tmp_path / "home", tmp_path / "scratch"
    home.mkdir()
    scratch.mkdir()
    path = write_jsonl(tmp_path / "a.jsonl", ROWS)
    code = f"from tasks.files import *\nFileTask({str(path)!r}, FileOptions()).splits(0)\n"
    environment = {**os.environ, "HOME": str(home), "TMPDIR": str(scratch), "HF_HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout + done.stderr == ""
    assert [*home.rglob("*"), *scratch.rglob("*")] == []


def test_real_text() -> None:
    folder = Path(os.environ.get("HARNESS_TEST_DATA", "")) / "debian_synopsis"
    if not folder.is_dir():
        pytest.skip("HARNESS_TEST_DATA names no folder that holds debian_synopsis/")
    own = task(folder)
    splits = own.splits(seed=0)
    assert own.name == "debian_synopsis"
    for name, split in (("train", splits.train), ("eval", splits.eval), ("test", splits.test)):
        lines = (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        assert split.to_list() == [json.loads(line) for line in lines]
