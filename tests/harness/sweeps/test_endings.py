"""Sweeps from the command line with runs that crash, run out of memory or take too long."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import tomli_w

from harness.records.phase import Phase
from harness.records.report import Report
from harness.records.run_folder import read_report
from harness.spec.run_spec import read_toml

pytestmark = pytest.mark.slow
PACKAGE = Path(__file__).parents[2] / "plugins" / "mishaps"
BATCH = 16

Sweep = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def mishaps(install_package: Callable[[Path], Path]) -> Path:
    """The folder into which pip installed the plugin ``mishaps``."""
    return install_package(PACKAGE)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sweeps") / "results"


@pytest.fixture(scope="module")
def sweep(mishaps: Path, short_run: list[str], results: Path) -> Sweep:
    """Return a function that runs a sweep of grids from a file, into the results folder."""
    _, _, backbone, _, task, *settings = short_run
    batch = ["--set", f"train.batch_size={BATCH}", "--set", "train.max_steps=4"]
    path = os.pathsep.join([str(mishaps), os.environ.get("PYTHONPATH", "")])

    def run(*options: str, **grids: float | None) -> subprocess.CompletedProcess[str]:
        """Run each recipe with its learning rate; None is the default rate."""
        written = [
            {
                "backbone": [backbone],
                "task": [task],
                "compressor": [recipe],
                "settings": {"train": {"learning_rate": rate}} if rate else {},
            }
            for recipe, rate in grids.items()
        ]
        file = results.with_suffix(".toml")
        file.write_text(tomli_w.dumps({"grid": written}))
        command = [sys.executable, "-m", "harness", "sweep", str(file), "--yes", *options]
        return subprocess.run(
            [*command, *settings, *batch, "--out", str(results)],
            env={**os.environ, "PYTHONPATH": path, "COLUMNS": "100"},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def reports(results: Path) -> dict[str, Report]:
    stored = [read_report(folder) for folder in results.glob("[!.]*")]
    return {report.recipe: report for report in stored}


def left_over(results: Path) -> list[str]:
    return [path.name for path in results.glob(".*")]


def test_each_failure_has_its_status_and_the_sweep_goes_on(sweep: Sweep, results: Path) -> None:
    process = sweep(full=1e30, crash=None, hungry=None, lprun=None)
    assert process.returncode == 1, process.stderr
    stored = reports(results)
    assert {recipe: report.status for recipe, report in stored.items()} == {
        "full": "nan",
        "crash": "error",
        "hungry": "oom",
        "lprun": "ok",
    }
    nan, crash, hungry = (stored[recipe].failure for recipe in ("full", "crash", "hungry"))
    assert nan
    assert nan.phase == "train"
    assert nan.message.startswith("The loss of step ")
    assert crash
    assert (crash.phase, crash.message) == ("train", "The process ended as 7.")
    assert hungry
    assert hungry.phase == "probe speed"
    assert "can't allocate memory" in hungry.message
    # The process held at least an interpreter with torch, and less than it requested.
    assert hungry.memory_bytes
    assert 100 * 2**20 < hungry.memory_bytes < 4 * 2**30
    for status, recipe in [("nan", "full"), ("error", "crash"), ("oom", "hungry")]:
        assert f"\n{status}: tiny-t5 x {recipe} on notes.jsonl, seed 0: " in process.stderr
    assert "1 of 4 runs are done." in process.stderr
    assert left_over(results) == []
    assert "\x1b" not in process.stdout + process.stderr


def test_the_micro_batch_is_halved_until_the_run_fits(sweep: Sweep, results: Path) -> None:
    hungrier = f"hungry:bytes_per_token={6 * 2**20}"
    process = sweep("--on-oom", "shrink", **{hungrier: None})
    assert process.returncode == 0, process.stderr
    assert f"seed 0: fitted with a micro-batch of {BATCH // 4}." in process.stderr
    (folder,) = results.glob("*hungry-bytes*")
    report = read_report(folder)
    assert (report.status, report.failure) == ("ok", None)
    assert report.micro_batch == BATCH // 4
    # Settings and optimizer steps are as requested.
    assert read_toml(folder / "spec.toml")["train"]["batch_size"] == BATCH
    rows = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4]
    assert report.training
    assert report.training.planned_steps == 4


def test_a_run_that_takes_too_long_is_ended_and_reported(sweep: Sweep, results: Path) -> None:
    process = sweep("--timeout", "12", stall=None, **{"stall+lprun": None})
    assert process.returncode == 1, process.stderr
    stored = reports(results)
    for recipe in ("stall", "lprun+stall"):
        report = stored[recipe]
        assert report.status == "timeout"
        assert report.failure
        assert report.failure.phase in list(Phase)
        assert "longer than 12 seconds" in report.failure.message
        assert f"timeout: tiny-t5 x {recipe} on notes.jsonl, seed 0: It took" in process.stderr
    assert "0 of 2 runs are done." in process.stderr
    assert left_over(results) == []
