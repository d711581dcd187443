"""Notes before training on guesses, left out rows and truncated texts; errors where none remain."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import Result

from harness.api.plugins import installed
from harness.records.data_notes import data_notes
from harness.records.report import Data
from harness.spec.run_spec import RunSpec
from harness.sweeps.sweep import SweepCell
from harness.sweeps.view import SweepView

LONG = "no acute cardiopulmonary abnormality is seen today " * 20


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def own(path: Path) -> Path:
    good = [{"source": f"{n} lungs are clear", "target": f"{LONG}{n}"} for n in range(20)]
    return write(path, [*good, {"source": "x", "target": ""}, {"source": LONG * 9, "target": "y"}])


def test_counts_and_shares_and_the_option_that_changes_them() -> None:
    data = Data(
        train=60,
        eval=6,
        test=4,
        skipped={"target is empty": 30},
        cut_sources=7,
        cut_targets=70,
        sha256="",
        rows=70,
        notes=["read with semicolons"],
    )
    guess, skipped, sources, targets = data_notes(data)
    assert guess == "read with semicolons"
    assert skipped.startswith("30 of 100 (30 %) rows were left out: target is empty")
    assert sources.startswith("7 of 70 (10 %) sources")
    assert "task_options.max_source_length=N" in sources
    assert targets.startswith("70 of 70 (100 %) targets")
    assert "task_options.max_target_length=N" in targets


def test_a_run_prints_the_notes_before_it_measures_and_trains(
    harness: Callable[..., Result], short_run: list[str], tmp_path: Path
) -> None:
    path = own(tmp_path / "own.jsonl")
    small = ["--set", "train.max_steps=1", "--set", "test.examples=1"]
    result = harness(*short_run, "--task", str(path), *small, "--out", str(tmp_path / "results"))
    assert result.exit_code == 0, result.output
    output_before, _, _ = result.stderr.partition("probe speed")
    assert "1 of 22 (4.5 %) rows were left out: target is empty" in output_before
    assert "targets are longer than the limit" in output_before
    assert "1 of " in output_before.split("sources are longer")[0]


def test_stats_prints_the_same_notes_with_a_backbone(
    harness: Callable[..., Result], tmp_path: Path
) -> None:
    path = own(tmp_path / "own.jsonl")
    shown = harness("stats", str(path), "--backbone", "nano-t5").output
    assert "20 of 21 (95.2 %) targets are longer than the limit" in shown
    assert "1 of 22 (4.5 %) rows were left out: target is empty" in shown
    assert "--backbone NAME" in harness("stats", str(path)).output
    statistics = json.loads(harness("stats", str(path), "--backbone", "nano-t5", "--json").stdout)
    assert (statistics["cut_sources"], statistics["cut_targets"]) == (1, 20)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["task_options.max_target_length=1"], "targets are truncated to 1 tokens"),
        (["task_options.max_source_length=1"], "sources are truncated to 1 tokens"),
        (
            ["task_options.prefix=summarize the findings: ", "task_options.max_source_length=3"],
            "the prefix 'summarize the findings:",
        ),
    ],
)
def test_limits_that_leave_nothing_are_an_error(
    harness: Callable[..., Result], tmp_path: Path, settings: list[str], message: str
) -> None:
    path = own(tmp_path / "own.jsonl")
    options = [word for setting in settings for word in ("--set", setting)]
    result = harness("run", "--task", str(path), *options, "--out", str(tmp_path / "results"))
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
    assert "task_options.max_" in result.stderr


def test_the_hook_is_registered() -> None:
    assert installed().manager.hook.data_read


def test_a_sweep_prints_the_notes_once_per_task(capsys: pytest.CaptureFixture[str]) -> None:
    cells = [SweepCell(RunSpec(seed=seed), f"full-{seed}", "full", 10, False) for seed in (0, 1)]
    view = SweepView(Console(stderr=True, highlight=False), cells)
    for cell in cells:
        view.on_event(cell, {"event": "data", "notes": ["3 of 5 (60 %) targets"]})
    assert capsys.readouterr().err == "radiology_demo: 3 of 5 (60 %) targets\n"


@pytest.mark.parametrize("command", ["plan", "profile"])
def test_plan_and_profile_print_the_notes_on_own_data(
    command: str,
    harness: Callable[..., Result],
    tiny_t5: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = own(tmp_path / "own.jsonl")
    words = [command, "--backbone", str(tiny_t5), "--compressor", "lprun", "--task", str(path)]
    if command == "profile":
        # The notes do not depend on what is measured.
        monkeypatch.setattr("harness.costs.entry.profile_recipes", lambda *_: [])

    words += ["--device", "cpu", "--data"]

    shown = " ".join(harness(*words, "own", columns=200).output.split())

    assert "1 of 22 (4.5 %) rows were left out: target is empty" in shown
    assert "Of the examples drawn for the batches, " in shown
    assert "in a run, --set task_options.max_target_length=N changes it" in shown
    drawn = harness(*words, "lengths", columns=200)
    assert "left out" not in drawn.output
