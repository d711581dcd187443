"""Files that earlier versions wrote: reports, specs, profiles, and runs that were interrupted.

``old_runs`` holds two runs of version 0.1.0, interrupted in training and in the last phase; their
training state and weights are left out. ``old_profile.json`` is a profile of that version.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

import harness
from harness.cli.main import app
from harness.evaluation.predictions import read_predictions
from harness.records.profile import Profile
from harness.records.report import Report
from harness.records.run_folder import RunFolder, read_report, read_runs
from harness.spec.run_spec import read_toml, resolve

RESULTS = Path(harness.__file__).parents[1] / "results"
OLD_RUNS = Path(__file__).with_name("old_runs")
OLD_PROFILE = Path(__file__).with_name("old_profile.json")
FOLDERS = [RESULTS, OLD_RUNS]
SCORED = RESULTS / "readme" / "nano-t5-lora_ff+lprun-radiology_demo-s0-1ab0c38edecc"


def stored(name: str) -> list[Path]:
    """Return the stored files of a name."""
    return sorted(path for folder in FOLDERS for path in folder.rglob(name))


@pytest.fixture(params=["train", "hand-over"])
def interrupted(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Copy the results folder of a run that was interrupted in a phase."""
    return Path(shutil.copytree(OLD_RUNS / request.param, tmp_path / request.param))


def test_every_stored_report_loads_with_all_it_holds() -> None:
    paths = stored("report.json") + stored("progress.json")
    assert len(paths) >= 25
    for path in paths:
        content = json.loads(path.read_text())
        report = Report.model_validate(content).model_dump(mode="json")
        assert content.keys() <= report.keys(), path
        for key in ("id", "status", "seconds", "settings"):
            assert report[key] == content[key], path
        for name, value in content["quality"].items():
            assert report["quality"][name]["value"] == value["value"], path


def test_every_stored_spec_loads() -> None:
    paths = stored("spec.toml")
    assert len(paths) >= 20
    for path in paths:
        content = read_toml(path)
        spec = resolve(content, "paper")
        for key in ("backbone", "recipe", "task", "seed"):
            assert getattr(spec, key) == content[key], path
        # Both became one setting; their only stored value stands for its default.
        for old in ("packing", "cuda_graphs"):
            assert content["train"].pop(old, "auto") == "auto"
        assert spec.train.engine == "auto"
        assert spec.train.model_dump(include=content["train"].keys()) == content["train"], path


def test_a_stored_profile_loads() -> None:
    content = json.loads(OLD_PROFILE.read_text())
    profile = Profile.model_validate(content)
    assert [row.recipe for row in profile.recipes] == [row["recipe"] for row in content["recipes"]]
    assert all(row.speed and row.memory for row in profile.recipes)


def test_a_stored_run_scores_as_its_report_says() -> None:
    result = CliRunner().invoke(app, ["score", str(SCORED), "--metrics", "rouge", "--json"])
    assert result.exit_code == 0, result.output
    quality = read_report(SCORED).quality
    corpus = json.loads(result.stdout)["corpus"]
    assert corpus == pytest.approx({name: quality[name].value for name in corpus})


def test_an_interrupted_run_is_listed_and_reported(interrupted: Path) -> None:
    runs, skipped = read_runs(interrupted)
    assert skipped == []
    assert [(run.report.status, run.report.recipe) for run in runs] == [("interrupted", "lora_qv")]
    result = CliRunner().invoke(app, ["report", str(interrupted)])
    assert result.exit_code == 0, result.output
    assert f"lora_qv, seed 0: interrupted in {interrupted.name}." in result.stdout


def test_predictions_of_an_interrupted_run_are_scored() -> None:
    (folder,) = (OLD_RUNS / "hand-over").iterdir()
    result = CliRunner().invoke(app, ["score", str(folder), "--metrics", "rouge,bleu", "--json"])
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert len(record["examples"]) == len(read_predictions(folder / "predictions.jsonl"))
    quality = read_report(folder).quality
    assert record["corpus"] == pytest.approx({k: quality[k].value for k in record["corpus"]})


def test_a_run_folder_resumes_an_interrupted_run(interrupted: Path) -> None:
    (folder,) = interrupted.iterdir()
    name, files = folder.name, sorted(path.name for path in folder.iterdir())
    attempt = RunFolder(interrupted, name)
    report = attempt.resume()
    assert report
    assert report.id == name
    assert report.speed
    assert sorted(path.name for path in attempt.work.iterdir()) == files
    attempt.release()
