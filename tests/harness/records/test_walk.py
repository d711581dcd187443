"""Runs at any depth are found once each, despite links and other folders."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from harness import HarnessError
from harness.records.run_folder import find_runs, read_runs
from harness.records.walk import walk

Harness = Callable[..., Result]
WriteRun = Callable[..., Path]
RESULTS = Path(__file__).parents[3] / "results"


def run_at(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "report.json").write_text("{}")
    return folder


def found(results: Path) -> list[str]:
    return [folder.relative_to(results).as_posix() for folder in find_runs(results)]


def test_runs_are_found_at_any_depth_by_name(tmp_path: Path) -> None:
    for name in ("b/deep/er/run", "a", "b/run", "c.d/run"):
        run_at(tmp_path / name)
    (tmp_path / "empty" / "folder").mkdir(parents=True)
    (tmp_path / "report.txt").touch()
    assert found(tmp_path) == ["a", "b/deep/er/run", "b/run", "c.d/run"]


def test_hidden_folders_and_what_lies_in_a_run_are_left_out(tmp_path: Path) -> None:
    for name in (".a-run.partial", "b/.cache/run", "run", "run/inner"):
        run_at(tmp_path / name)
    assert found(tmp_path) == ["run"]
    assert found(tmp_path / "run") == ["."]


def test_links_add_what_lies_elsewhere_and_nothing_twice(tmp_path: Path) -> None:
    results, elsewhere = tmp_path / "results", tmp_path / "disk"
    run_at(results / "z-run")
    run_at(elsewhere / "run")
    (results / "disk").symlink_to(elsewhere)
    (results / "a-latest").symlink_to(results / "z-run")
    (results / "loop").symlink_to(results)
    (elsewhere / "back").symlink_to(results)
    (results / "itself").symlink_to(results / "itself")
    (results / "gone").symlink_to(tmp_path / "nowhere")
    assert found(results) == ["z-run", "disk/run"]


def test_the_search_of_a_large_tree_without_runs_stops_with_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.records.walk.MOST_FOLDERS", 20)
    for number in range(30):
        run_at(tmp_path / "runs" / f"run{number}")
    assert len(found(tmp_path)) == 30  # Runs do not count.
    for number in range(30):
        (tmp_path / "home" / f"folder{number}").mkdir(parents=True)
    with pytest.raises(HarnessError, match="more than 20 folders") as raised:
        found(tmp_path)
    assert raised.value.hint
    assert "Name the folder" in raised.value.hint


def test_a_folder_that_cannot_be_listed_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(folder: Path) -> list[Path]:
        if folder.name == "locked":
            raise PermissionError(13, "Permission denied")
        return sorted(path for path in folder.iterdir() if path.is_dir())

    (tmp_path / "locked").mkdir()
    run_at(tmp_path / "run")
    monkeypatch.setattr("harness.records.walk._folders", refuse)
    errors: list[HarnessError] = []
    assert list(walk(tmp_path, "report.json", errors.append)) == [tmp_path / "run"]
    assert ["locked" in error.message for error in errors] == [True]


def test_runs_are_shown_by_their_relative_folder(
    tmp_path: Path, write_run: WriteRun, harness: Harness
) -> None:
    scores = {"rouge1": [1.0, 2.0, 4.0]}
    write_run(tmp_path / "first", scores, started="2024-01-01T00:00:00+00:00", id="old")
    write_run(tmp_path / "second", scores, started="2024-01-02T00:00:00+00:00", id="new")
    write_run(tmp_path / "second", scores, recipe="lprun", id="pruned")
    runs, _ = read_runs(tmp_path)
    assert [run.name for run in runs] == ["first/old", "second/new", "second/pruned"]
    shown = " ".join(harness("report", str(tmp_path), columns=300).stdout.split())
    assert "The runs lie in second." in shown
    assert "1 run was left out for a later or better one" in shown
    assert "first/old" in shown
    folders = harness("report", str(tmp_path), "--format", "csv").stdout.splitlines()
    assert "second/new" in folders[1]
    # Nothing is said where all lie in the folder itself.
    assert "lie in" not in harness("report", str(tmp_path / "second")).stdout


def test_the_readmes_commands_work_on_the_committed_results(
    tmp_path: Path, harness: Harness
) -> None:
    results = shutil.copytree(RESULTS, tmp_path / "results")
    result = harness("report", str(results))
    assert result.exit_code == 0
    assert "nano-t5 on debian_synopsis" in result.stdout
    assert "nano-t5 on radiology_demo" in result.stdout
    advice = harness("recommend", str(results), "--min-quality", "70%")
    assert advice.exit_code == 0, advice.output
    assert "nano-t5 on radiology_demo: lora_ff+lprun" in advice.stdout


def test_a_runs_folder_can_be_scored(tmp_path: Path, write_run: WriteRun, harness: Harness) -> None:
    scores = {"rouge1": [1.0, 2.0, 4.0]}
    run = write_run(tmp_path / "sweep", scores, id="one")
    by_folder = harness("score", str(tmp_path), "--metrics", "rouge")
    assert by_folder.exit_code == 0, by_folder.output
    file = str(run / "predictions.jsonl")
    assert by_folder.stdout == harness("score", file, "--metrics", "rouge").stdout
    write_run(tmp_path, scores, recipe="lprun", id="two")
    several = harness("score", str(tmp_path))
    assert several.exit_code == 2
    assert "holds 2 runs" in several.stderr
    assert f"harness score {run}" in " ".join(several.stderr.split()).replace("\n", "")
    (tmp_path / "nothing").mkdir()
    assert "holds no run" in harness("score", str(tmp_path / "nothing")).stderr
