"""Dialogues as lists of turns, and several references for one source."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from harness import HarnessError, Splits
from tasks.files import FileOptions, FileTask


def splits(path: Path, rows: list[dict[str, Any]], **options: Any) -> Splits:
    if path.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return FileTask(str(path), FileOptions(**options)).splits(seed=0)


def examples(dataset: Splits) -> list[dict[str, Any]]:
    return [row for part in (dataset.train, dataset.eval, dataset.test) for row in part]


def messages(*turns: str) -> list[dict[str, str]]:
    names = ("user", "assistant")
    return [{"role": names[n % 2], "content": text} for n, text in enumerate(turns)]


def sharegpt(*turns: str) -> list[dict[str, str]]:
    names = ("human", "gpt")
    return [{"from": names[n % 2], "value": text} for n, text in enumerate(turns)]


FORMS = [
    ("messages", messages, "user: hi\nassistant: hello\nuser: pain"),
    ("conversations", sharegpt, "human: hi\ngpt: hello\nhuman: pain"),
    ("dialogue", lambda *turns: list(turns), "hi\nhello\npain"),
]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@pytest.mark.parametrize(("column", "form", "source"), FORMS)
def test_the_last_answer_is_the_target(
    tmp_path: Path, suffix: str, column: str, form: Any, source: str
) -> None:
    rows = [{column: form("hi", "hello", "pain", "rest"), "topic": "x"}] * 5
    rows_read = examples(splits(tmp_path / f"a{suffix}", rows))
    assert [(row["source"], row["target"]) for row in rows_read] == [(source, "rest")] * 5


def test_turns_after_the_last_answer_are_left_out(tmp_path: Path) -> None:
    rows = [{"messages": messages("hi", "hello", "thanks")}] * 5
    (first, *_) = examples(splits(tmp_path / "a.jsonl", rows))
    assert (first["source"], first["target"]) == ("user: hi", "hello")


@pytest.mark.parametrize(("options", "target"), [({}, "advice"), ({"target_column": "b"}, "other")])
def test_a_column_of_targets_wins(tmp_path: Path, options: dict[str, str], target: str) -> None:
    rows = [{"messages": messages("hi", "hello"), "response": "advice", "b": "other"}] * 5
    (first, *_) = examples(splits(tmp_path / "a.jsonl", rows, **options))
    assert (first["source"], first["target"]) == ("user: hi\nassistant: hello", target)


def test_labels_and_joining_are_options(tmp_path: Path) -> None:
    rows = [{"messages": messages("hi", "hello", "pain", "rest")}] * 5
    labelled = splits(
        tmp_path / "a.jsonl",
        rows,
        speakers={"user": "Patient", "assistant": ""},
        speaker_separator=" - ",
        turn_separator=" | ",
    )
    assert examples(labelled)[0]["source"] == "Patient - hi | hello | Patient - pain"
    answered_by_user = splits(tmp_path / "a.jsonl", rows, answerer="user")
    assert examples(answered_by_user)[0]["target"] == "pain"


@pytest.mark.parametrize(("column", "form", "source"), FORMS)
def test_every_answer_is_a_target_once_and_a_dialogue_is_in_one_split(
    tmp_path: Path, column: str, form: Any, source: str
) -> None:
    rows = [{column: form("hi", f"one {n}", "pain", f"two {n}")} for n in range(30)]
    dataset = splits(tmp_path / "a.jsonl", rows, every_answer=True)
    rows_read = examples(dataset)
    assert sorted(row["target"] for row in rows_read) == sorted(
        f"{which} {n}" for which in ("one", "two") for n in range(30)
    )
    assert len({row["id"] for row in rows_read}) == 60
    clusters = [set(part["cluster"]) for part in (dataset.train, dataset.eval, dataset.test)]
    assert [len(part) for part in clusters] == [24, 3, 3]
    assert len(set.union(*clusters)) == 30
    assert {row["cluster"] for row in rows_read} == {row["id"].split("/")[0] for row in rows_read}
    first = next(row for row in rows_read if row["target"] == "one 0")
    assert first["source"].endswith("hi")
    assert source.replace("hello", "one 0") in {row["source"] for row in rows_read}
    again = splits(tmp_path / "a.jsonl", rows, every_answer=True)
    assert again.test.to_list() == dataset.test.to_list()


def test_dialogues_without_an_answer_are_counted(tmp_path: Path) -> None:
    good = [{"messages": messages("hi", "hello")}] * 5
    bad: list[dict[str, Any]] = [
        {"messages": []},
        {"messages": None},
        {"messages": messages("hi")},
    ]
    bad.append({"messages": [{"role": "assistant", "content": "unasked"}]})
    dataset = splits(tmp_path / "a.jsonl", [*good, *bad], answerer="assistant")
    assert dataset.skipped == {"source is missing": 3, "target is missing": 1}
    assert len(examples(dataset)) == 5


@pytest.mark.parametrize("value", [["hi", 5], [{"who": "x"}], "text", [None], [["nested"]]])
def test_a_value_that_is_no_dialogue_is_an_error_with_its_row(tmp_path: Path, value: Any) -> None:
    rows = [{"messages": messages("hi", "hello")}, {"messages": value}]
    with pytest.raises(HarnessError, match="row 2, column 'messages'"):
        splits(tmp_path / "a.jsonl", rows)


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_several_references(tmp_path: Path, suffix: str) -> None:
    rows: list[dict[str, Any]] = [
        {"source": f"s{n}", "target": [f"a{n}", f"b{n}"]} for n in range(5)
    ]
    rows += [{"source": "one", "target": ["only", " "]}, {"source": "none", "target": []}]
    dataset = splits(tmp_path / f"a{suffix}", rows)
    assert dataset.skipped == {"target is missing": 1}
    row_of = {row["source"]: row for row in examples(dataset)}
    assert row_of["s3"]["target"] == "a3"
    assert row_of["s3"]["references"] == ["a3", "b3"]
    assert row_of["one"]["references"] == ["only"]


def test_lists_of_one_reference_are_like_texts(tmp_path: Path) -> None:
    rows = [{"source": f"s{n}", "target": [f"a{n}"]} for n in range(5)]
    dataset = splits(tmp_path / "a.jsonl", rows)
    assert all(row.keys() == {"id", "source", "target"} for row in examples(dataset))
    with pytest.raises(HarnessError, match="row 6, column 'target': a number instead of text"):
        splits(tmp_path / "a.jsonl", [*rows, {"source": "x", "target": ["a", 1]}])
