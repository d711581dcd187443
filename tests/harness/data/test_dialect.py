"""Delimiters and encodings of text files, and the notes on guesses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from harness import HarnessError, Splits
from harness.data.dialect import Dialect, likely_encodings
from tasks.files import FileOptions, FileTask

FRENCH = "Le patient présente une douleur à la poitrine, évaluée hier; aucune lésion décelée"
RUSSIAN = "Пациент жалуется на боль в груди, осмотр без особенностей, рекомендовано наблюдение"


def splits(path: Path, **options: Any) -> Splits:
    return FileTask(str(path), FileOptions(**options)).splits(seed=0)


def pairs(dataset: Splits) -> set[tuple[str, str]]:
    parts = (dataset.train, dataset.eval, dataset.test)
    return {(row["source"], row["target"]) for part in parts for row in part}


def write(path: Path, delimiter: str, texts: list[str], encoding: str = "utf-8") -> Path:
    rows = [f'"{text}"{delimiter}summary {n}' for n, text in enumerate(texts)]
    header = f"source{delimiter}target"
    path.write_bytes("\r\n".join([header, *rows, ""]).encode(encoding))
    return path


TEXTS = ["one, two; three", "a|b, c", "tab\tinside", "line\nbreak", "plain"]


@pytest.mark.parametrize(
    ("name", "delimiter", "is_noted"),
    [
        ("a.csv", ",", False),
        ("a.csv", ";", True),
        ("a.csv", "\t", True),
        ("a.csv", "|", True),
        ("a.tsv", "\t", False),
        ("a.tsv", ",", True),
    ],
)
def test_the_delimiter_is_detected_and_a_guess_is_noted(
    tmp_path: Path, name: str, delimiter: str, is_noted: bool
) -> None:
    dataset = splits(write(tmp_path / name, delimiter, TEXTS))
    assert pairs(dataset) == {(text, f"summary {n}") for n, text in enumerate(TEXTS)}
    assert len(dataset.notes) == is_noted
    assert all("--delimiter" in note and name in note for note in dataset.notes)


def test_a_named_delimiter_is_taken_as_it_is(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "^", TEXTS)
    expected = {(text, f"summary {n}") for n, text in enumerate(TEXTS)}
    assert pairs(splits(path, delimiter="^")) == expected
    tabs = write(tmp_path / "b.csv", "\t", TEXTS)
    for spelled in ("tab", "\\t", "\t"):
        assert pairs(splits(tabs, delimiter=spelled)) == expected
    with pytest.raises(HarnessError, match="not a single character"):
        splits(path, delimiter="::")


def test_texts_full_of_semicolons_do_not_hide_commas(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    rows = [f"a;b;c {n},x;y" for n in range(5)]
    path.write_text("source,target\n" + "\n".join(rows), encoding="utf-8")
    assert pairs(splits(path)) == {(f"a;b;c {n}", "x;y") for n in range(5)}


def test_a_file_with_tabs_whose_quotation_marks_are_text(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    rows = [f'"open {n}\tit said "no" {n}' for n in range(5)]
    path.write_text("source\ttarget\n" + "\n".join(rows), encoding="utf-8")
    assert pairs(splits(path)) == {(f'"open {n}', f'it said "no" {n}') for n in range(5)}


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json", "a.source"])
@pytest.mark.parametrize(
    ("text", "encoding", "option"),
    [
        (FRENCH, "latin-1", "cp1252"),
        (FRENCH, "utf-16-le", "utf-16-le"),
        (FRENCH, "utf-16-be", "utf-16-be"),
        (RUSSIAN, "cp1251", "cp1251"),
    ],
)
def test_the_error_names_the_likely_encoding_and_the_option_reads_it(
    tmp_path: Path, name: str, text: str, encoding: str, option: str
) -> None:
    texts = [f"{text} {n}" for n in range(5)]
    content = {
        "a.csv": "source,target\n" + "".join(f'"{t}","{t}"\n' for t in texts),
        "a.jsonl": "".join(f'{{"source": "{t}", "target": "{t}"}}\n' for t in texts),
        "a.json": "[" + ",".join(f'{{"source": "{t}", "target": "{t}"}}' for t in texts) + "]",
        "a.source": "".join(f"{t}\n" for t in texts),
    }[name]
    path = tmp_path / name
    path.write_bytes(content.encode(encoding))
    if name == "a.source":
        path.with_suffix(".target").write_bytes(content.encode(encoding))
    with pytest.raises(HarnessError, match="the text is not UTF-8") as caught:
        splits(path)
    assert f"--encoding {option}" in str(caught.value.hint)
    assert pairs(splits(path, encoding=option)) == {(t, t) for t in texts}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig"])
def test_a_byte_order_mark_determines_the_encoding(tmp_path: Path, encoding: str) -> None:
    path = write(tmp_path / "a.csv", ";", [f"{FRENCH} {n}" for n in range(5)], encoding)
    assert (f"{FRENCH} 0", "summary 0") in pairs(splits(path))


def test_wrong_encodings_are_errors(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", ",", [FRENCH] * 5, "latin-1")
    with pytest.raises(HarnessError, match="the text is not in the encoding ascii") as caught:
        splits(path, encoding="ascii")
    assert "cp1252" in str(caught.value.hint)
    for name in ("latin-11", "hex"):
        with pytest.raises(HarnessError, match=f"Unknown encoding '{name}'"):
            Dialect(encoding=name)


def test_the_encoding_is_detected_from_the_bytes_that_are_not_utf8(tmp_path: Path) -> None:
    ascii_rows = [f"plain {n} " + "x" * 200 for n in range(1000)]
    path = write(tmp_path / "a.csv", ",", [*ascii_rows, *[FRENCH] * 20], "cp1252")
    with pytest.raises(HarnessError) as caught:
        splits(path)
    assert "--encoding cp1252" in str(caught.value.hint)
    assert likely_encodings("źle sypia, łagodny ból".encode("cp1250"))


COMMANDS = ("stats", "run", "sweep", "plan", "profile")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_that_reads_data_has_the_same_options(
    harness: Callable[..., Result], command: str
) -> None:
    shown = harness(command, "--help", columns=200).output
    for option in ("source-column", "target-column", "id-column", "encoding", "delimiter"):
        assert f"--{option}" in shown


def test_stats_takes_the_options_and_notes_the_guess(
    harness: Callable[..., Result], tmp_path: Path
) -> None:
    path = write(tmp_path / "a.csv", ";", [f"{FRENCH} {n}" for n in range(5)], "latin-1")
    refused = harness("stats", str(path))
    assert refused.exit_code == 2
    assert "--encoding cp1252" in refused.stderr
    shown = harness("stats", str(path), "--encoding", "latin-1")
    assert shown.exit_code == 0, shown.output
    assert "semicolons between cells" in shown.output
