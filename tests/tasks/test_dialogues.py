"""ChatDoctor's dialogues: where they are looked for, how they are read, and how they are split."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import Result

from harness import HarnessError, Splits
from tasks.dialogues import DialogueOptions, HealthCareMagic, ICliniq

ROWS = [
    {"instruction": "Answer as a doctor.", "input": f"question {i}", "output": f"answer {i}"}
    for i in range(50)
]


@pytest.fixture(autouse=True)
def _no_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HARNESS_DATA", raising=False)


def hcm(**options: Any) -> HealthCareMagic:
    return HealthCareMagic("hcm", DialogueOptions(**options))


def write(path: Path, rows: Sequence[Mapping[str, object]] = ROWS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def texts(splits: Splits) -> list[tuple[str, str]]:
    parts = (splits.train, splits.eval, splits.test)
    return sorted((row["source"], row["target"]) for part in parts for row in part)


EXPECTED = sorted((row["input"], row["output"]) for row in ROWS)


def test_where_nothing_is_found_one_error_names_each_way(
    harness: Callable[..., Result], tmp_path: Path
) -> None:
    result = harness(
        *("run", "--backbone", "t5-large", "--compressor", "lora_ff+lprun", "--task", "hcm"),
        *("--out", str(tmp_path)),
    )
    assert result.exit_code == 2
    assert result.stderr.count("Error:") == 1
    assert "Traceback" not in result.stderr
    for way in (
        "task_options.path=",
        "HARNESS_DATA=",
        "task_options.hub=lavita/ChatDoctor-HealthCareMagic-100k",
        "HealthCareMagic-100k.json",
    ):
        assert way in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["HealthCareMagic-100k.json", "hcm.json", "hcm/hcm.json"])
def test_found_by_its_name_in_the_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    write(tmp_path / name)
    write(tmp_path / "iCliniq.json", ROWS[:10])
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path))
    assert texts(hcm().splits(0)) == EXPECTED


@pytest.mark.parametrize("folder", [False, True])
def test_a_path_comes_before_the_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: bool
) -> None:
    monkeypatch.setenv("HARNESS_DATA", str(write(tmp_path / "all/hcm.json", ROWS[:9]).parent))
    path = write(tmp_path / "own/hcm.json")
    assert texts(hcm(path=path.parent if folder else path).splits(0)) == EXPECTED


@pytest.mark.parametrize("place", ["option", "variable"])
def test_a_place_without_the_file_is_named_beside_each_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    write(tmp_path / "iCliniq.json")
    options = {"path": tmp_path} if place == "option" else {}
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path))
    with pytest.raises(HarnessError, match="hcm were not found") as caught:
        hcm(**options).splits(0)
    assert str(tmp_path) in caught.value.message
    assert "task_options.hub=" in (caught.value.hint or "")


def test_two_files_that_fit_are_an_error_that_names_both(tmp_path: Path) -> None:
    write(tmp_path / "hcm.json")
    write(tmp_path / "HealthCareMagic-100k.json")
    with pytest.raises(HarnessError, match=r"HealthCareMagic-100k\.json, hcm\.json"):
        hcm(path=tmp_path).splits(0)


def test_a_hub_that_cannot_be_reached_is_a_clear_error() -> None:
    with pytest.raises(HarnessError, match="nobody/nothing is not available") as caught:
        hcm(hub="nobody/nothing").splits(0)
    assert "--task FOLDER" in (caught.value.hint or "")


def test_the_smaller_release_of_icliniq(tmp_path: Path) -> None:
    rows = [
        {"input": row["input"], "answer_icliniq": row["output"], "answer_chatgpt": "x"}
        for row in ROWS
    ]
    task = ICliniq("icliniq", DialogueOptions(path=write(tmp_path / "iCliniq.json", rows)))
    assert texts(task.splits(0)) == EXPECTED


def test_other_data_are_refused_with_their_fields(tmp_path: Path) -> None:
    path = write(tmp_path / "hcm.json", [{"question": "x", "answer": "y"}] * 5)
    with pytest.raises(HarnessError, match="Fields: question, answer"):
        hcm(path=path).splits(0)


def test_blank_and_missing_answers_are_counted(tmp_path: Path) -> None:
    rows = [*ROWS, {"input": "only"}, {"input": "x", "output": " "}, {"input": "", "output": "y"}]
    splits = hcm(path=write(tmp_path / "hcm.json", rows)).splits(0)
    assert splits.skipped == {"target is missing": 1, "target is empty": 1, "source is empty": 1}
    assert texts(splits) == EXPECTED


def test_the_split_is_the_papers_and_its_own_seed_decides_it(tmp_path: Path) -> None:
    path = write(tmp_path / "hcm.json")
    first, again = hcm(path=path).splits(0), hcm(path=path).splits(1)
    other = hcm(path=path, split_seed=1).splits(0)
    assert (len(first.train), len(first.eval), len(first.test)) == (40, 5, 5)
    assert first.test.to_list() == again.test.to_list()
    assert first.test.to_list() != other.test.to_list()


def test_defaults_are_the_papers() -> None:
    task = hcm()
    assert (task.prefix, task.max_source_length, task.max_target_length) == ("", 512, 128)
    assert (HealthCareMagic.eval_share, ICliniq.eval_share) == (0.5, 1.0)
    names = [name for metric in task.metrics() for name in metric.names]
    assert {"rouge1", "rouge2", "rougeL", "bleu1_precision", "bleu4_precision"} <= set(names)


TEXTS = st.text(max_size=6) | st.sampled_from(["word", "two words"])
OBJECTS = st.fixed_dictionaries({"input": TEXTS, "output": TEXTS | st.none()}) | st.dictionaries(
    st.sampled_from(["instruction", "input", "output", "other"]),
    TEXTS | st.none() | st.integers() | st.lists(TEXTS, max_size=2),
    max_size=4,
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(OBJECTS, max_size=12))
def test_any_objects_are_kept_or_counted_or_are_the_users_error(
    tmp_path_factory: pytest.TempPathFactory, rows: Sequence[Mapping[str, object]]
) -> None:
    path = write(tmp_path_factory.mktemp("any") / "hcm.json", rows)
    try:
        splits = hcm(path=path).splits(0)
    except HarnessError:
        return
    assert len(texts(splits)) + sum(splits.skipped.values()) == len(rows)
    assert all(source.strip() and target.strip() for source, target in texts(splits))


def test_leakage_is_counted(tmp_path: Path) -> None:
    rows = [{"input": "The same question, asked by all", "output": f"{i}"} for i in range(20)]
    splits = hcm(path=write(tmp_path / "hcm.json", rows)).splits(0)
    assert splits.leakage == {"exact": 16 * 2 + 16 * 2 + 2 * 2, "near": 0}


def test_a_csv_of_another_encoding_and_delimiter(tmp_path: Path) -> None:
    rows = [f"Frage {i};Prüfung, {i}" for i in range(20)]
    path = tmp_path / "hcm.csv"
    path.write_text("\n".join(["input;output", *rows]), encoding="latin-1")
    with pytest.raises(HarnessError, match="--encoding"):
        hcm(path=path).splits(0)

    splits = hcm(path=path, encoding="latin-1").splits(0)

    assert texts(splits)[0] == ("Frage 0", "Prüfung, 0")
    assert "semicolons" in splits.notes[0]
    assert hcm(path=path, encoding="latin-1", delimiter="semicolon").splits(0).notes == ()
