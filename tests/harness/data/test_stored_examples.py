"""Large data files: kept on disk, they give the examples and the runs that memory gives."""

from __future__ import annotations

import csv
import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import feather, parquet
from typer.testing import Result

from harness import HarnessError, Splits
from harness.backbones.nano import NanoT5
from harness.data import files, folders, stored_examples, token_cache
from harness.data.hashing import data_hash
from harness.data.stored_examples import splits_hash
from harness.data.table_task import _carve
from harness.data.token_cache import tokenize_once
from tasks.files import FileOptions, FileTask

ROWS = [
    {"id": f"n{n}", "source": f"text {n} is clear" * (n % 3 + 1), "target": f"sum {n}"}
    for n in range(23)
]
TURNS = [
    {"role": role, "content": f"{role} {n}"} for n in range(3) for role in ("user", "assistant")
]


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep every file on disk, and read it by few rows."""
    monkeypatch.setattr(stored_examples, "LARGE_BYTES", 0)
    for module in (files, folders):
        monkeypatch.setattr(module, "PIECE_ROWS", 4)
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def read(path: Path, seed: int = 0, **options: Any) -> Splits:
    return FileTask(str(path), FileOptions(**options)).splits(seed)


def in_memory(path: Path, seed: int = 0, **options: Any) -> Splits:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("HARNESS_CACHE")
        splits = read(path, seed, **options)
    assert "in memory; export HARNESS_CACHE" in splits.notes[-1]
    return splits


def contents(splits: Splits) -> Any:
    parts = (splits.train, splits.eval, splits.test)
    rows = [
        {name: values for name, values in part.to_dict().items() if name != "row"} for part in parts
    ]
    notes = [note for note in splits.notes if "HARNESS_CACHE" not in note]
    return rows, splits.skipped, notes


def write_jsonl(path: Path, rows: list[Any]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def jsonl(folder: Path) -> tuple[Path, dict[str, Any]]:
    path = folder / "notes.jsonl"
    # The last rows lack columns, and one has a column of its own.
    rows = [
        *ROWS,
        {"source": "no target", "id": 7},
        {"target": "no source"},
        {"id": "x", "more": 1},
    ]
    write_jsonl(path, rows)
    return path, {}


def semicolons(folder: Path) -> tuple[Path, dict[str, Any]]:
    path = folder / "notes.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ROWS[0], delimiter=";")
        writer.writeheader()
        writer.writerows([*ROWS, {"id": "n1", "source": "twice", "target": " "}])
    return path, {}


def tabs(folder: Path) -> tuple[Path, dict[str, Any]]:
    path = folder / "notes.tsv"
    lines = [f'{n}\tan "inch\t{n} a' for n in range(9)]
    path.write_text("\n".join(["uid\tsource\ttarget", *lines]))
    return path, {}


def json_lines(folder: Path) -> tuple[Path, dict[str, Any]]:
    path = folder / "notes.json"
    path.write_text("\n \n".join(json.dumps(row) for row in ROWS))
    return path, {}


def json_list(folder: Path) -> tuple[Path, dict[str, Any]]:
    path = folder / "notes.json"
    path.write_text(" " + json.dumps(ROWS))
    return path, {}


def parquet_shards(folder: Path) -> tuple[Path, dict[str, Any]]:
    for number in range(3):
        part = pa.Table.from_pylist(ROWS[7 * number : 7 * number + 7])
        parquet.write_table(part, folder / f"train-0000{number}-of-00003.parquet")
    feather.write_feather(pa.Table.from_pylist(ROWS[:3]), str(folder / "test.arrow"))
    return folder, {}


def pairs(folder: Path) -> tuple[Path, dict[str, Any]]:
    for split in ("train", "test"):
        (folder / f"src-{split}.txt").write_text("".join(f"text {n}\n" for n in range(11)))
        (folder / f"tgt-{split}.txt").write_text(
            "".join(f"sum {n}\n" * (n != 4) or "\n" for n in range(11))
        )
    return folder, {"id_column": None}


def saved(folder: Path) -> tuple[Path, dict[str, Any]]:
    datasets.Dataset.from_list(ROWS).save_to_disk(str(folder), num_shards=2)
    return folder, {}


def answers(folder: Path) -> tuple[Path, dict[str, Any]]:
    path = folder / "chats.jsonl"
    write_jsonl(path, [{"messages": TURNS[: n % 5 + 2]} for n in range(13)])
    return path, {"every_answer": True, "speakers": {"user": "Patient"}}


def references(folder: Path) -> tuple[Path, dict[str, Any]]:
    path = folder / "several.jsonl"
    rows = [{"source": f"text {n}", "target": [f"a {n}", "b"][: n // 9 + 1]} for n in range(17)]
    write_jsonl(path, rows)
    return path, {}


def single_references(folder: Path) -> tuple[Path, dict[str, Any]]:
    path = folder / "one.jsonl"
    write_jsonl(path, [{"source": f"text {n}", "target": [f"a {n}", " "]} for n in range(17)])
    return path, {}


FORMS = [
    *(jsonl, semicolons, tabs, json_lines, json_list, parquet_shards, pairs, saved, answers),
    *(references, single_references),
]


@pytest.mark.parametrize("write", FORMS, ids=lambda write: write.__name__)
def test_texts_on_disk_are_those_in_memory(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    write: Callable[[Path], tuple[Path, dict[str, Any]]],
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    path, options = write(folder)
    expected = in_memory(path, 5, **options)
    assert contents(read(path, 5, **options)) == contents(expected)
    # Now they are mapped, and nothing but hashes is read.
    monkeypatch.setattr(files, "_pieces", None)
    mapped = read(path, 5, **options)
    assert contents(mapped) == contents(expected)
    parts, plain = ((s.train, s.eval, s.test) for s in (mapped, expected))
    assert splits_hash(*parts) == data_hash(*parts) == data_hash(*plain)


def test_token_ids_are_made_once_for_all_seeds(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = jsonl(tmp_path)
    task = FileTask(str(path), FileOptions(max_source_length=9, prefix="say: "))
    tokenizer = NanoT5("nano-t5").tokenizer()
    tokenize_once(task.splits(0).train, tokenizer, task)
    monkeypatch.setattr(token_cache, "tokenized_chunks", None)
    for seed in range(3):
        splits, plain = task.splits(seed), in_memory(path, seed)
        for split, rows in ((splits.train, plain.train), (splits.test, plain.test)):
            with pytest.MonkeyPatch.context() as patch:
                patch.delenv("HARNESS_CACHE")
                expected = tokenize_once(rows, tokenizer, task)
            stored = tokenize_once(split, tokenizer, task)
            assert list(stored.examples) == list(expected.examples)
            assert stored.truncated_sources == expected.truncated_sources
            chosen = tokenize_once(split.select([1, 0]), tokenizer, task)
            assert list(chosen.examples) == [expected.examples[1], expected.examples[0]]
    assert len([*(store / "tokens").iterdir()]) == 1


def test_other_files_and_settings_are_other_entries_and_lengths_are_not(
    tmp_path: Path, store: Path
) -> None:
    path, _ = jsonl(tmp_path)
    changes: list[dict[str, Any]] = [{}, {"max_source_length": 9, "prefix": "a: ", "split_seed": 3}]
    for options in changes:
        read(path, **options)
        assert len([*(store / "texts").iterdir()]) == 1
    read(path, source_column="source")
    write_jsonl(path, ROWS[:20])
    assert len(read(path).train) == 16
    assert len([*(store / "texts").iterdir()]) == 3


def test_only_the_user_can_read_the_texts(tmp_path: Path, store: Path) -> None:
    splits = read(jsonl(tmp_path)[0])
    splits_hash(splits.train, splits.eval, splits.test)
    paths = [store, *store.rglob("*")]
    assert len(paths) > 6
    for path in paths:
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077


def test_a_file_that_cannot_be_read_leaves_nothing(tmp_path: Path, store: Path) -> None:
    path, _ = jsonl(tmp_path)
    with path.open("a") as file:
        file.write("{\n")
    with pytest.raises(HarnessError, match="line 27: not JSON"):
        read(path)
    write_jsonl(path, [*ROWS, {"source": 1, "target": "x"}])
    with pytest.raises(HarnessError, match="row 24, column 'source': a number instead of text"):
        read(path)
    write_jsonl(path, [{"source": " ", "target": "x"}] * 9)
    with pytest.raises(HarnessError, match="no row is usable: source is empty 9 times"):
        read(path)
    assert [*(store / "texts").iterdir()] == []


def test_small_files_are_not_kept(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("HARNESS_CACHE", str(store))
    splits = read(jsonl(tmp_path)[0])
    assert splits.notes == ()
    assert splits.train.column_names == ["id", "source", "target"]
    assert not store.exists()


ANY_VALUE = st.one_of(
    st.none(), st.text(max_size=3), st.integers(0, 3), st.lists(st.text(max_size=2))
)
ANY_ROWS = st.lists(
    st.dictionaries(st.sampled_from(["id", "source", "target", "text", "x"]), ANY_VALUE),
    max_size=12,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ANY_ROWS)
def test_any_rows_are_read_alike_or_refused_alike(tmp_path: Path, rows: list[Any]) -> None:
    path = tmp_path / "any.jsonl"
    write_jsonl(path, rows)

    def outcome(reader: Callable[[Path], Splits]) -> Any:
        try:
            return contents(reader(path))
        except HarnessError as error:
            return str(error)

    assert outcome(read) == outcome(in_memory)


def test_a_draw_of_rows_is_that_of_the_library() -> None:
    rows = datasets.Dataset.from_list(ROWS)
    for seed in range(4):
        drawn = rows.train_test_split(test_size=5, seed=seed)
        rest, some = _carve(rows, 5, seed, "here")
        assert (rest["id"], some["id"]) == (drawn["train"]["id"], drawn["test"]["id"])


@pytest.mark.slow
def test_a_run_is_equal_bit_for_bit(
    harness: Callable[..., Result], short_run: list[str], tmp_path: Path, monkeypatch: Any
) -> None:
    quick = ["--set", "train.max_steps=4", "--set", "probe.training=false"]
    quick += ["--set", "probe.inference=false", "--set", "test.examples=4"]
    found = []
    for name in ("disk", "memory"):
        if name == "memory":
            monkeypatch.delenv("HARNESS_CACHE")
        result = harness("run", *short_run[1:], *quick, "--out", str(tmp_path / name))
        assert result.exit_code == 0, result.output
        (folder,) = (tmp_path / name).iterdir()
        report = json.loads((folder / "report.json").read_text())
        for field in ("seconds", "started"):
            del report[field]
        report["training"].pop("seconds")
        report["data"].pop("notes")
        texts = [(folder / f).read_text() for f in ("history.jsonl", "predictions.jsonl")]
        found.append((folder.name, report, texts, (folder / "weights.safetensors").read_bytes()))
    assert found[0] == found[1]
