"""``harness prepare`` and ``harness stats``, and all commands from notes to a report."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

RADIOLOGY = "mimic_radiology"


@pytest.fixture
def prepared(harness: Callable[..., Result], tmp_path: Path) -> Path:
    """The folder of a task prepared from 200 synthetic notes."""
    folder = tmp_path / "data" / RADIOLOGY
    result = harness("prepare", RADIOLOGY, "--synthetic", "200", "--out", str(folder))
    assert result.exit_code == 0, result.output
    return folder


def path_of(folder: Path) -> tuple[str, str]:
    return ("--set", f"task_options.path={folder}")


def test_prepare_prints_its_counts_and_the_next_command(
    harness: Callable[..., Result], prepared: Path, tmp_path: Path
) -> None:
    counts = json.loads((prepared / "counts.json").read_text())
    # The synthetic notes are a file like those of MIMIC-IV-Note, and are prepared the same way.
    notes = prepared / "notes.csv.gz"
    assert gzip.decompress(notes.read_bytes()).startswith(b"note_id,subject_id,hadm_id,note_type,")
    result = harness("prepare", RADIOLOGY, "--notes", str(notes), "--out", str(tmp_path / "again"))
    assert result.exit_code == 0
    assert f"{counts['kept']:,} examples are in" in result.stdout
    for reason, count in counts["left_out"].items():
        assert f"{count:,} notes were left out: {reason}" in result.stdout
    assert f"harness stats {RADIOLOGY} --set task_options.path=" in result.stdout
    assert json.loads((tmp_path / "again" / "counts.json").read_text()) == counts


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((RADIOLOGY,), "Either a file of notes"),
        ((RADIOLOGY, "--notes", "gone.csv"), "gone.csv cannot be read"),
        ((RADIOLOGY, "--synthetic", "9", "--sections", "gone.toml"), "gone.toml"),
        (("radiology_demo", "--synthetic", "9"), "needs no preparation"),
        (("mimic_radiolgy", "--synthetic", "9"), "Did you mean 'mimic_radiology'"),
    ],
)
def test_mistakes_in_options_of_prepare_are_explained(
    harness: Callable[..., Result], tmp_path: Path, arguments: list[str], message: str
) -> None:
    result = harness("prepare", *arguments, "--out", str(tmp_path / "out"))
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_stats_as_json_have_the_columns_of_table_1(
    harness: Callable[..., Result], prepared: Path
) -> None:
    result = harness("stats", RADIOLOGY, *path_of(prepared), "--json")
    assert result.exit_code == 0, result.output
    statistics = json.loads(result.stdout)
    counts = json.loads((prepared / "counts.json").read_text())
    assert sum(statistics["rows"].values()) == counts["kept"]
    assert statistics["skipped"] == counts["left_out"]
    assert statistics["leakage"].keys() == {"exact", "near"}
    for side in ("source", "target"):
        assert 1 < statistics[side]["sentences"] < statistics[side]["words"]
    assert 0 < statistics["novel_unigrams_pct"] < statistics["novel_bigrams_pct"] < 100


def test_stats_as_a_table(harness: Callable[..., Result], prepared: Path) -> None:
    result = harness("stats", RADIOLOGY, *path_of(prepared))
    assert result.exit_code == 0, result.output
    for word in ("train", "eval", "test", "source", "words", "2-grams", "left out", "near"):
        assert word in result.stdout


def test_stats_of_a_file(harness: Callable[..., Result], tmp_path: Path) -> None:
    rows = [{"article": "Aa bb cc. Dd ee.", "summary": "aa bb xx"} for _ in range(20)]
    path = tmp_path / "own.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    statistics = json.loads(harness("stats", str(path), "--json").stdout)
    assert statistics == {
        "task": "own",
        "rows": {"train": 16, "eval": 2, "test": 2},
        "source": {"sentences": 2.0, "words": 5.0},
        "target": {"sentences": 1.0, "words": 3.0},
        "novel_unigrams_pct": pytest.approx(100 / 3),
        "novel_bigrams_pct": 50.0,
        "skipped": {},
        "leakage": {},
    }


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train.batch_size=4", "only options of the task"),
        ("task_options.pth=x", "no option 'pth'"),
        ("task_options.path=gone", "were not found"),
    ],
)
def test_mistakes_in_options_of_stats_are_explained(
    harness: Callable[..., Result], setting: str, message: str
) -> None:
    result = harness("stats", RADIOLOGY, "--set", setting)
    assert result.exit_code == 2
    assert message in result.stderr


def test_notes_are_prepared_trained_on_and_reported(
    harness: Callable[..., Result], prepared: Path, short_run: list[str], tmp_path: Path
) -> None:
    results = tmp_path / "results"
    small = {"train.max_steps": 2, "train.eval_examples": 2, "test.examples": 3}
    settings = [word for key, value in small.items() for word in ("--set", f"{key}={value}")]
    command = [*short_run, "--task", RADIOLOGY, *path_of(prepared), *settings]
    result = harness(*command, "--out", str(results))
    assert result.exit_code == 0, result.output
    (folder,) = (path for path in results.iterdir() if path.is_dir())
    report = json.loads((folder / "report.json").read_text())
    stats = json.loads(harness("stats", RADIOLOGY, *path_of(prepared), "--json").stdout)
    assert report["status"] == "ok"
    assert report["data"]["train"] == stats["rows"]["train"]
    assert (report["data"]["eval"], report["data"]["test"]) == (2, 3)
    assert report["data"]["skipped"] == stats["skipped"]
    assert report["data"]["leakage"] == stats["leakage"]
    assert {"rouge1", "rouge2", "rougeL"} <= report["quality"].keys()
    shown = harness("report", str(results))
    assert shown.exit_code == 0
    assert RADIOLOGY in shown.stdout
