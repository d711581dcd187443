"""A run that stops after an evaluation, and goes on to the result of one that never stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.api.events import Evaluated, PhaseStarted, StepDone
from harness.api.plugins import installed
from harness.records.run_folder import HISTORY, PREDICTIONS, TRAINING_STATE, read_report
from harness.spec.run_spec import RunSpec, read_toml, resolve
from harness.sweeps.executor import Local, LocalOptions
from harness.sweeps.preview import plan_cells
from harness.sweeps.sweep import Sweep, SweepCell
from harness.sweeps.worker import Stop


def test_it_stops_at_the_first_step_after_the_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.sweeps.worker._ignore_signals", lambda: None)
    stop = Stop(6)
    for step in range(1, 7):
        stop.step_done(StepDone(step))
        if step in (4, 6):
            stop.evaluated(Evaluated(step, 0.1, {}, True))
    with pytest.raises(KeyboardInterrupt):
        stop.step_done(StepDone(7))
    stop.phase_started(PhaseStarted("train", 9))
    with pytest.raises(KeyboardInterrupt):
        stop.phase_started(PhaseStarted("evaluate", 9))


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_the_same_result(finished_run: Any, tmp_path: Path) -> None:
    spec: RunSpec = resolve(read_toml(finished_run.folder / "spec.toml"), "paper")
    probe = spec.probe.model_copy(update={"training": False})
    spec = spec.model_copy(update={"probe": probe})

    def run(results: Path, *stops: int | None) -> Path:
        (plan,) = plan_cells([spec], installed(), results)
        for stop in stops:
            cell = SweepCell(spec, plan.cell.id, plan.cell.recipe, plan.cell.steps, False, stop)
            sweep = Sweep(results, Local(LocalOptions()), lambda *_: None)
            (outcome,) = sweep.run([cell])
            assert outcome.status == ("ok" if stop is None else "interrupted"), outcome.message
            if stop is not None:
                folder = results / plan.cell.id
                assert (folder / TRAINING_STATE).exists()
                assert not (folder / PREDICTIONS).exists()
                assert f'"step": {stop}, "epoch"' in (folder / HISTORY).read_text()
        return results / plan.cell.id

    whole, stopped = run(tmp_path / "whole", None), run(tmp_path / "stopped", 3, 6, None)
    assert (whole / PREDICTIONS).read_bytes() == (stopped / PREDICTIONS).read_bytes()
    report, other = read_report(whole), read_report(stopped)
    assert report.training
    assert other.training
    assert report.training.best_value == other.training.best_value
    assert report.quality == other.quality
    assert [r.phase for r in other.resumed] == ["train", "evaluate"]
