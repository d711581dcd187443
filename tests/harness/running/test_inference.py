"""The phase of a run that measures decoding: its report, and resuming around it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.api.events import PhaseStarted, StepDone
from harness.api.hookspecs import hookimpl
from harness.api.plugins import installed
from harness.records.report import Report
from harness.records.run_folder import RunFolder, read_report
from harness.running import phases
from harness.running.baseline import apply_baseline
from harness.running.resumption import NO_MEMORY, lacks_inference
from harness.running.run import Run
from harness.spec.run_spec import RunSpec, read_toml, resolve
from harness.spec.setting_groups import ProbeSettings


class Stopper:
    """An observer that interrupts, as Ctrl-C does, at a window of a phase."""

    def __init__(self, phase: str) -> None:
        self.phase = phase
        self.phases: list[str] = []

    @hookimpl
    def phase_started(self, event: PhaseStarted) -> None:
        self.phases.append(event.phase)

    @hookimpl
    def step_done(self, event: StepDone) -> None:
        if self.phases[-1] == self.phase:
            raise KeyboardInterrupt


@pytest.fixture
def spec(finished_run: Any) -> RunSpec:
    spec = resolve(read_toml(finished_run.folder / "spec.toml"), "paper")
    probe = spec.probe.model_copy(update={"inference": True, "baseline": "probe"})
    return spec.model_copy(update={"probe": probe})


@pytest.fixture
def execute(spec: RunSpec, tmp_path: Path) -> Callable[[str], tuple[list[str], Report]]:
    def start(stop_in: str) -> tuple[list[str], Report]:
        stopper = Stopper(stop_in)
        installed().manager.register(stopper)
        try:
            report, _ = Run(spec, installed(), tmp_path).execute()
        finally:
            installed().manager.unregister(stopper)
        return stopper.phases, report

    return start


def test_a_run_measures_decoding_and_a_resumed_run_repeats_no_phase(
    execute: Callable[[str], tuple[list[str], Report]],
) -> None:
    phases, stopped = execute("probe inference")
    assert phases == ["load", "probe speed", "probe memory", "probe inference"]
    assert (stopped.status, stopped.inference) == ("interrupted", None)
    assert stopped.not_measured["inference"] == "interrupted in the phase 'probe inference'"

    phases, in_training = execute("train")
    assert phases == ["load", "probe inference", "train"]
    found = in_training.inference
    assert found

    phases, report = execute("none")
    assert phases == ["load", "train", "evaluate", "hand-over"]
    assert (report.status, report.failure) == ("ok", None)
    assert [r.phase for r in report.resumed] == ["probe inference", "train"]
    assert report.inference == found
    assert "inference" not in report.not_measured
    assert (found.beams, found.output_tokens <= 8) == (2, True)
    assert found.latency.relative
    assert found.memory.relative
    assert found.size.model_relative
    assert found.size.model_relative < 1
    assert found.seconds > 0


def test_a_run_whose_decoding_does_not_fit_into_memory_goes_on(
    execute: Callable[[str], tuple[list[str], Report]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_out(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(phases, "measure_inference", run_out)
    _, report = execute("none")
    assert (report.status, report.inference) == ("ok", None)
    assert report.not_measured["inference"] == NO_MEMORY
    assert not lacks_inference(report, ProbeSettings())


def test_switched_off_it_is_null_with_a_reason(finished_run: Any) -> None:
    report = read_report(finished_run.folder)
    assert report.inference is None
    assert report.not_measured["inference"] == "off (probe.inference=false)"
    assert lacks_inference(report, ProbeSettings())
    assert not lacks_inference(report, ProbeSettings(inference=False))


def test_the_switch_leaves_runs_comparable(spec: RunSpec) -> None:
    off = spec.model_copy(update={"probe": spec.probe.model_copy(update={"inference": False})})
    assert off.settings_digest() == spec.settings_digest()


def test_a_report_of_an_older_version_has_no_costs_of_decoding(
    make_report: Callable[..., Report],
) -> None:
    values = make_report().model_dump(mode="json")
    del values["inference"]
    assert Report.model_validate(values).inference is None


def test_an_earlier_run_as_baseline_gives_ratios_of_size_and_memory_alone(
    make_report: Callable[..., Report], inference_of: Callable[..., Any], tmp_path: Path
) -> None:
    earlier = make_report(id="earlier", inference=inference_of())
    folder = RunFolder(tmp_path, earlier.id).finish(earlier)
    recipe = make_report(recipe="lprun", inference=inference_of(peak_bytes=2**29, model_bytes=500))
    apply_baseline(recipe, folder)
    found = recipe.inference
    assert found
    assert found.latency.relative is None
    assert "earlier" in found.latency.not_measured["relative"]
    assert (found.memory.relative, found.size.model_relative) == (0.5, 0.5)
    assert found.memory.not_measured == {}

    other = make_report(recipe="lprun", inference=inference_of(sources_sha256="ef" * 32))
    apply_baseline(other, folder)
    assert other.inference
    assert other.inference.memory.relative is None
    assert "earlier" in other.inference.memory.not_measured["relative"]
