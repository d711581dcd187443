"""A run whose best weights are chosen by a third party's metric of which less is better."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

METRIC = """
from harness import Metric, Score, hookimpl


class Surplus(Metric):
    names = ("surplus",)

    def score(self, sources, predictions, references):
        lengths = [float(len(p)) for p in predictions]
        return {"surplus": Score.mean(lengths, "surplus|v1", higher_is_better=False)}


@hookimpl
def register_metrics(register):
    register("surplus", Surplus, "characters of the prediction: less is better")
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    information = folder / "surplus_metric-1.0.dist-info"
    information.mkdir(parents=True)
    (folder / "surplus_metric.py").write_text(METRIC)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: surplus\nVersion: 1\n")
    (information / "entry_points.txt").write_text("[harness]\nsurplus = surplus_metric\n")
    return folder


def test_the_least_value_is_kept_and_shown_in_its_direction(
    short_run: list[str], tmp_path: Path, site: Path
) -> None:
    chosen = ["--metrics", "surplus,rouge", "--set", "train.best_metric=surplus"]
    command = [*short_run, *chosen, "--set", "train.adapter_learning_rate=0.5"]
    results = tmp_path / "results"
    environment = {**os.environ, "PYTHONPATH": str(site)}

    def harness(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "harness", *words],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    harness(*command, "--out", str(results))
    (path,) = results.glob("*/report.json")
    training = json.loads(path.read_text())["training"]
    rows = [json.loads(line) for line in (path.parent / "history.jsonl").read_text().splitlines()]
    values = {row["step"]: row["eval"]["surplus"] for row in rows if "eval" in row}
    assert len(set(values.values())) > 1
    assert training["best_metric"] == "surplus"
    assert training["best_value"] == min(values.values()) == values[training["best_step"]]
    assert "surplus" in harness("report", str(results))


def test_a_metric_that_the_run_does_not_compute_is_an_error_that_lists_those_it_does(
    harness: Callable[..., Result], short_run: list[str], tmp_path: Path
) -> None:
    result = harness(*short_run, "--set", "train.best_metric=rouge9", "--out", str(tmp_path / "r"))
    assert result.exit_code == 2
    assert "computes 'rouge9'" in result.stderr
    assert "rouge2" in result.stderr
    assert not (tmp_path / "r").exists()
