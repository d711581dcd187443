"""A run that chooses its best weights by a plugin's metric where less is better."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import Result

from harness.api.plugins import installed

Harness = Callable[..., Result]

METRIC = """
from harness import Metric, Score, hookimpl


class ErrorRate(Metric):
    names = ("error_rate",)
    values = [95.9, 84.3, 95.1, 84.3]  # The values of three evaluations, then of the test split.

    def score(self, sources, predictions, references):
        value = self.values.pop(0)
        scores = [value + i - (len(predictions) - 1) / 2 for i in range(len(predictions))]
        return {"error_rate": Score.mean(scores, "error_rate|v1", higher_is_better=False)}


@hookimpl
def register_metrics(register):
    register("error_rate", ErrorRate, "less is better")
"""


@pytest.fixture
def _error_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Install the metric as pip does, and let the harness discover it."""
    folder = tmp_path / "site"
    information = folder / "error_rate-1.0.dist-info"
    information.mkdir(parents=True)
    (folder / "error_rate_metric.py").write_text(METRIC)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: error-rate\nVersion: 1\n")
    (information / "entry_points.txt").write_text("[harness]\nerror-rate = error_rate_metric\n")
    monkeypatch.syspath_prepend(folder)
    installed.cache_clear()
    yield
    installed.cache_clear()


@pytest.mark.usefixtures("_error_rate")
def test_the_weights_with_the_least_value_are_kept(
    harness: Harness, short_run: list[str], tmp_path: Path
) -> None:
    chosen = ["--metrics", "error_rate,rouge", "--set", "train.best_metric=error_rate"]
    results = tmp_path / "results"
    finished = harness(*short_run, *chosen, "--set", "train.max_steps=9", "--out", str(results))
    assert finished.exit_code == 0, finished.output
    (path,) = results.glob("*/report.json")
    training = json.loads(path.read_text())["training"]
    rows = [json.loads(line) for line in (path.parent / "history.jsonl").read_text().splitlines()]
    values = {row["step"]: row["eval"]["error_rate"] for row in rows if "eval" in row}
    assert values == pytest.approx({3: 95.9, 6: 84.3, 9: 95.1})
    assert (training["best_metric"], training["best_step"]) == ("error_rate", 6)
    assert training["best_value"] == pytest.approx(84.3)
    shown = harness("report", str(results))
    assert shown.exit_code == 0, shown.output
    assert "error_rate" in shown.stdout


def test_an_uncomputed_metric_is_an_error_that_lists_the_computed_ones(
    harness: Harness, short_run: list[str], tmp_path: Path
) -> None:
    result = harness(*short_run, "--set", "train.best_metric=rouge9", "--out", str(tmp_path / "r"))
    assert result.exit_code == 2
    assert "computes 'rouge9'" in result.stderr
    assert "rouge2" in result.stderr
    assert not (tmp_path / "r").exists()
