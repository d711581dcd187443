"""A whole search: its budget, its finals, what it leaves alone, and what a stop costs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from harness.records.run_folder import HISTORY, PREDICTIONS, find_runs, read_report
from harness.searching.record import SearchResult

pytest.importorskip("optuna")

SETTINGS = {
    "device": "cpu",
    "train.max_steps": 8,
    "train.batch_size": 2,
    "train.warmup_steps": 1,
    "train.eval_every_epochs": 0.0005,
    "train.eval_examples": 4,
    "greedy.max_new_tokens": 8,
    "test.examples": 6,
    "test.beams": 1,
    "test.max_new_tokens": 8,
    "probe.warmup_steps": 1,
    "probe.steps": 1,
}


def command(out: Path, *options: str) -> list[str]:
    settings = [word for item in SETTINGS.items() for word in ("--set", "=".join(map(str, item)))]
    templates = "lora_ff{+lprun|},lprun,lora_ff:r={4000|8000}"
    sizes = ["--rates", "1", "--seeds", "2", "--finalists", "1", "--round-size", "3"]
    limits = ["--memory", "110%", "--min-quality", "1%"]
    words = ["search", "--compressor", templates, *sizes, *limits, *settings]
    return [*words, "--out", str(out), *options]


def scores(result: SearchResult) -> list[tuple[str, list[float | None]]]:
    return [(row.recipe, row.scores) for row in result.candidates]


@pytest.mark.slow
def test_a_search_that_is_stopped_ends_like_one_that_is_not(tmp_path: Path) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"

    def start(out: Path) -> subprocess.Popen[str]:
        words = [sys.executable, "-m", "harness", *command(out, "--budget", "1h")]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
        # A shell starts jobs in the background with Ctrl-C ignored, which children would inherit.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        return subprocess.Popen(
            words, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    process = start(whole)
    output, _ = process.communicate()
    assert process.returncode in (0, 1), output
    result = SearchResult.model_validate_json((whole / "result.json").read_text())

    interrupted = start(stopped)
    while interrupted.poll() is None and not list(stopped.glob("runs/.*lprun*.partial")):
        time.sleep(0.1)
    interrupted.send_signal(signal.SIGINT)
    said, _ = interrupted.communicate()
    assert interrupted.returncode == 130, said
    assert "Give the same command to resume it" in said
    assert not (stopped / "result.json").exists()
    before = json.loads((stopped / "budget.json").read_text())["spent_seconds"]
    resumed = start(stopped)
    output, _ = resumed.communicate()
    assert resumed.returncode == process.returncode, output
    other = SearchResult.model_validate_json((stopped / "result.json").read_text())

    assert scores(other) == scores(result)
    assert other.finalists == result.finalists
    assert other.spent_seconds > before > 0
    assert result.summary
    assert other.summary
    for row, its_other in zip(
        result.summary.groups[0].rows, other.summary.groups[0].rows, strict=True
    ):
        assert row.quality == its_other.quality
        assert row.seeds == [1, 2]
    check(whole, result)


def check(folder: Path, result: SearchResult) -> None:
    """Check what a finished search left."""
    assert result.spent_seconds < result.budget_seconds
    assert result.rungs == sorted(set(result.rungs))
    assert result.rungs[-1] == 8
    # What does not fit is rejected before it is trained.
    wide = [row for row in result.candidates if "r=" in row.recipe]
    assert len(wide) == 2
    assert all(row.rejected and "memory" in row.rejected and not row.scores for row in wide)
    trained = [row for row in result.candidates if not row.rejected]
    assert {row.recipe for row in trained} == {"lora_ff+lprun", "lora_ff", "lprun"}
    # Three start, two go on, one is trained to the end.
    assert sorted(len(row.scores) for row in trained) == [1, 2, 3]
    assert result.finalists[0].recipe == "full"
    winner = next(row for row in trained if len(row.scores) == len(result.rungs))
    assert result.finalists[1].recipe == winner.recipe
    assert f"--compressor {winner.recipe} " in result.finalists[1].command
    # The search has not seen the test split, and each history shows training to the last rung.
    for run in find_runs(folder / "runs"):
        report = read_report(run)
        assert report.status == "interrupted"
        assert not report.quality
        assert not (run / PREDICTIONS).exists()
        assert (run / HISTORY).exists()
    finals = [read_report(run) for run in find_runs(folder / "finals")]
    assert sorted((r.recipe, r.seed, r.status) for r in finals) == sorted(
        (f.recipe, seed, "ok") for f in result.finalists for seed in (1, 2)
    )
    assert result.summary
    (group,) = result.summary.groups
    assert all(row.speed and row.memory_bytes for row in group.rows)
    assert result.recommendation
    assert result.to_know_more


@pytest.mark.slow
def test_a_budget_that_is_too_small_is_an_error_before_anything_is_trained(
    tmp_path: Path, harness: Callable[..., Result]
) -> None:
    result = harness(*command(tmp_path / "out", "--budget", "20s"))
    assert result.exit_code == 2
    assert "The smallest search takes about" in result.output
    assert "Give at least --budget" in result.output
    assert not list(tmp_path.glob("out/runs/*"))


@pytest.mark.slow
def test_another_search_in_the_same_folder_is_refused(
    tmp_path: Path, harness: Callable[..., Result]
) -> None:
    (tmp_path / "search.json").write_text("{}")
    result = harness(*command(tmp_path, "--budget", "1h"))
    assert result.exit_code == 2
    assert "cannot be read" in result.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--budget", "soon"), "--budget 'soon' is not a time"),
        (("--compressor", "lora_ff:r={8"), "do not match"),
        (("--rates", "2"), "no middle"),
        (("--set", "train.tuned_learning_rate=0.1"), "chooses the learning rates"),
        (("--speed", "fast"), "--speed 'fast' is not a share"),
    ],
)
def test_a_mistake_is_an_error_before_anything_is_made(
    tmp_path: Path, harness: Callable[..., Result], options: tuple[str, ...], message: str
) -> None:
    result = harness(*command(tmp_path / "out"), *options)
    assert result.exit_code == 2
    assert message in result.output
    assert not (tmp_path / "out").exists()


def test_drawn_splits_are_refused(tmp_path: Path, harness: Callable[..., Result]) -> None:
    data = tmp_path / "notes.jsonl"
    rows = [{"source": f"case {n} is well", "target": f"well {n}"} for n in range(40)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = harness(*command(tmp_path / "out"), "--task", str(data))
    assert result.exit_code == 2
    assert "--set task_options.split_seed=0" in result.output
