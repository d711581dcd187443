"""Trackers with their real packages: the events of a run are read back from each store."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pluggy
import pytest
from typer.testing import Result

from harness.api import hookspecs
from harness.api.events import Evaluated, PhaseStarted, StepDone
from harness.records.report import Report
from harness.running.trackers import TRACKERS, TensorBoard, find_tracker, headline
from harness.spec.run_spec import RunSpec

Harness = Callable[..., Result]


def observe_short_run(tracker: Any, report: Report) -> None:
    """Call the hooks of a short run, as a real run does."""
    manager = pluggy.PluginManager("harness")
    manager.add_hookspecs(hookspecs)
    hook = manager.hook
    with tracker:
        manager.register(tracker)
        hook.run_started(spec=RunSpec())
        hook.phase_started(event=PhaseStarted("probe speed"))
        hook.step_done(event=StepDone(1, {"loss": 99.0}))
        hook.phase_started(event=PhaseStarted("train"))
        for step, loss in enumerate((3.0, 2.5, 2.25), start=1):
            hook.step_done(event=StepDone(step, {"loss": loss, "learning_rate": 0.1}))
        hook.evaluated(event=Evaluated(3, 0.5, {"rouge1": 31.5}, True))
        hook.run_finished(report=report)


def test_tensorboard_holds_the_run(tmp_path: Path, make_report: Callable[..., Report]) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    observe_short_run(find_tracker("tensorboard", tmp_path), make_report())
    (folder,) = (tmp_path / "tensorboard").iterdir()
    events = EventAccumulator(str(folder)).Reload()
    losses = [(event.step, event.value) for event in events.Scalars("train/loss")]
    assert losses == [(1, 3.0), (2, 2.5), (3, 2.25)]
    assert [(e.step, e.value) for e in events.Scalars("eval/rouge1")] == [(3, 31.5)]
    assert events.Scalars("test/rouge1")[0].value == 41.25


def test_mlflow_holds_the_run(
    tmp_path: Path, make_report: Callable[..., Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    failure = {"phase": "train", "message": "no memory"}
    observe_short_run(find_tracker("mlflow", tmp_path), make_report())
    observe_short_run(find_tracker("mlflow", tmp_path), make_report(status="oom", failure=failure))
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (experiment,) = [e for e in client.search_experiments() if e.name == "seq2seq-harness"]
    failed, good = client.search_runs([experiment.experiment_id])
    assert (good.info.status, failed.info.status) == ("FINISHED", "FAILED")
    assert failed.data.tags["status"] == "oom"
    losses = client.get_metric_history(good.info.run_id, "train/loss")
    assert [(metric.step, metric.value) for metric in losses] == [(1, 3.0), (2, 2.5), (3, 2.25)]
    assert good.data.metrics["test/rouge1"] == 41.25
    assert good.data.params["train.batch_size"] == "8"


def test_wandb_keeps_the_run_offline(
    tmp_path: Path, make_report: Callable[..., Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_SILENT", "true")
    observe_short_run(find_tracker("wandb", tmp_path), make_report())
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")
    (record,) = folder.glob("*.wandb")
    texts = (b"train/loss", b"eval/rouge1", b"test/rouge1", b"lora_ff+lprun")
    # A process of wandb writes the file a moment after the run is over.
    deadline = time.monotonic() + 30
    while not all(text in record.read_bytes() for text in texts):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_run_that_ends_without_a_report_is_closed_as_an_error(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    statuses: list[str] = []

    class Recording(TensorBoard):
        def finish(self, values: Any, status: str) -> None:
            super().finish(values, status)
            statuses.append(status)

    with Recording(tmp_path):
        pass
    assert statuses == []
    with Recording(tmp_path) as tracker:
        tracker.run_started(RunSpec())
    assert statuses == ["error"]


def test_the_headline_holds_measured_values_only(make_report: Callable[..., Report]) -> None:
    values = headline(make_report())
    assert values["test/rouge2"] == 18.5
    assert values["memory/peak_bytes"] == 2**30
    assert "speed/relative" not in values


@pytest.mark.parametrize("name", TRACKERS)
def test_a_missing_package_is_an_error_before_anything_runs(
    harness: Harness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    find_spec = "harness.running.trackers.importlib.util.find_spec"
    monkeypatch.setattr(find_spec, lambda module: None if module == name else sys)
    result = harness("run", "--track", name, "--out", str(tmp_path / "results"))
    assert result.exit_code == 2
    assert f"pip install 'seq2seq-harness[{name}]'" in result.stderr
    assert not (tmp_path / "results").exists()


def test_an_unknown_tracker_is_an_error_that_suggests_a_known_one(harness: Harness) -> None:
    result = harness("run", "--track", "tensorbord")
    assert result.exit_code == 2
    assert "Did you mean 'tensorboard'?" in result.stderr


def test_a_real_run_is_tracked(harness: Harness, short_run: list[str], tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = harness(*short_run, "--track", "tensorboard", "--out", str(tmp_path))
    assert result.exit_code == 0, result.output
    (folder,) = (tmp_path / ".trackers" / "tensorboard").iterdir()
    events = EventAccumulator(str(folder)).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3, 4, 5, 6]
    assert harness("report", str(tmp_path)).exit_code == 0
