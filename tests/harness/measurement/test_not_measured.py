"""Fields that were not measured: each is null and has a reason; a number has none."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from pydantic import BaseModel
from typer.testing import Result

from harness import Options, hookimpl
from harness.api.events import PhaseStarted
from harness.api.plugins import installed
from harness.api.recipe import Recipe, parse
from harness.costs.profile import profile_recipes
from harness.data.examples import Example
from harness.measurement.probe import freeze
from harness.records.measurements import Speed
from harness.records.profile import Profile
from harness.records.report import Report
from harness.records.run_folder import RunFolder, find_runs, read_report
from harness.reporting.cost_breakdown import breakdown_lines
from harness.reporting.profile_table import profile_tables
from harness.running.baseline import apply_baseline
from harness.spec.run_spec import RunSpec
from harness.training.schedule import Schedule

Harness = Callable[..., Result]
RESULTS = Path(__file__).parents[3] / "results"

EVENTS = ("failure", "failure.memory_bytes", "memory_reached", "micro_batch", "paper")
"""Fields that are null where the event did not happen; a reason is optional."""


def measured_fields(record: type[BaseModel]) -> Iterator[str]:
    """Yield the fields that hold a number or a record, or null; the driver too."""
    for name, info in record.model_fields.items():
        kinds = get_args(info.annotation)
        numeric = any(
            kind in (int, float)
            or hasattr(kind, "model_fields")
            or (get_args(kind) and get_origin(kind) is not Literal)
            for kind in kinds
        )
        if type(None) in kinds and (numeric or name == "driver"):
            yield name


def nulls(record: BaseModel) -> Iterator[str]:
    """Yield the paths of measured fields that are null."""
    for name in measured_fields(type(record)):
        if getattr(record, name) is None:
            yield name
    for path, inner in within(record):
        yield from (f"{path}.{name}" for name in nulls(inner))


def reasons(record: BaseModel) -> Iterator[str]:
    """Yield the paths of all fields with a reason, in any record."""
    for name, reason in getattr(record, "not_measured", {}).items():
        assert reason.strip()
        yield name
    for path, inner in within(record):
        yield from (f"{path}.{name}" for name in reasons(inner))


def within(record: BaseModel) -> Iterator[tuple[str, BaseModel]]:
    for name in type(record).model_fields:
        value = getattr(record, name)
        items: list[tuple[str, Any]] = [(name, value)]
        if isinstance(value, Mapping):
            items = [(f"{name}.{key}", item) for key, item in value.items()]
        if isinstance(value, list):
            items = [(f"{name}.{number}", item) for number, item in enumerate(value)]
        yield from ((path, item) for path, item in items if isinstance(item, BaseModel))


def check(record: BaseModel) -> None:
    """Assert that exactly the null fields have a reason, and that no measurement is zero."""
    missing, explained = set(nulls(record)), set(reasons(record))
    happened = {path for path in missing if not path.endswith(EVENTS)}
    assert happened <= explained <= missing
    for path, inner in [("", record), *within(record)]:
        if isinstance(inner, Speed) or path.endswith("memory"):
            numbers = inner.model_dump(exclude={"parts", "allocation_retries"})
            assert all(value != 0 for value in numbers.values()), path


def test_the_walk_finds_nulls_without_a_reason_and_reasons_of_numbers(
    make_report: Callable[..., Report],
) -> None:
    report = make_report()
    assert {"speed.relative", "memory.reserved_bytes", "fingerprint.driver"} <= set(nulls(report))
    with pytest.raises(AssertionError):
        check(report)
    assert report.memory
    for path in [path for path in nulls(report) if not path.endswith(EVENTS)]:
        report.not_measured[path] = "this machine cannot"
    check(report)
    report.not_measured["memory.peak_bytes"] = "it has one"
    with pytest.raises(AssertionError):
        check(report)
    del report.not_measured["memory.peak_bytes"]
    report.memory.static_bytes = 0
    with pytest.raises(AssertionError):
        check(report)


@pytest.fixture
def alone(finished_run: Any) -> Report:
    """A run without a baseline."""
    return read_report(finished_run.folder)


def test_a_run_without_a_baseline(alone: Report, finished_run: Any, harness: Harness) -> None:
    check(alone)
    assert alone.speed
    assert alone.speed.not_measured["relative"] == "no baseline: off"
    # The reason stands in place of the number.
    lines = list(breakdown_lines(alone))
    assert "speed beside full fine-tuning's: not measured (no baseline: off)" in lines
    assert any(line.startswith("energy: ") for line in lines)
    assert all(line in finished_run.result.stderr for line in lines)
    shown = harness("report", str(finished_run.folder.parent)).stdout
    assert "No relative speed, relative memory (no baseline: off)." in shown
    as_json = harness("report", str(finished_run.folder.parent), "--format", "json").stdout
    (row,) = json.loads(as_json)["groups"][0]["rows"]
    assert row["speed"] is None
    assert row["not_measured"]["speed"] == "no baseline: off"


def test_a_run_with_an_earlier_run_as_baseline(alone: Report, tmp_path: Path) -> None:
    earlier = alone.model_copy(update={"recipe": "full", "id": "earlier"})
    apply_baseline(alone, RunFolder(tmp_path, "earlier").finish(earlier))
    check(alone)
    assert alone.speed
    assert alone.speed.share_of_limit
    assert "did not take turns" in alone.speed.not_measured["relative_ci"]


class OutOfMemory:
    """An observer that raises an out-of-memory error when prediction of the test split begins."""

    @hookimpl
    def phase_started(self, event: PhaseStarted) -> None:
        if event.phase == "evaluate":
            raise MemoryError("no memory")


def test_a_run_that_runs_out_of_memory(
    harness: Harness, short_run: list[str], tmp_path: Path
) -> None:
    plugin = OutOfMemory()
    installed().manager.register(plugin)
    try:
        harness(*short_run, "--set", "probe.baseline=probe", "--out", str(tmp_path))
    finally:
        installed().manager.unregister(plugin)
    (folder,) = tmp_path.iterdir()
    report = read_report(folder)
    assert report.status == "oom"
    check(report)
    assert report.not_measured["handover"] == "oom in the phase 'evaluate'"
    assert report.speed
    assert report.speed.relative
    assert set(report.speed.not_measured) == set()


def test_profiles_of_recipes_that_fit_and_do_not(
    known_costs: None, make_spec: Callable[..., RunSpec]
) -> None:
    from known_costs import Failing  # type: ignore[import-not-found]

    examples = [Example([3, 8, 9, 1], [7, 1])] * 32
    spec = make_spec("full")
    frozen = freeze(Schedule(examples, 4, 1, seed=0), spec.probe)
    backbone = installed().backbone(spec.backbone)
    recipes = [parse("lora_ff", installed().compressors), Recipe((Failing("failing", Options()),))]
    rows = profile_recipes(spec, backbone, recipes, frozen, lambda message: None)
    assert [row.status for row in rows] == ["ok", "oom"]
    for row in rows:
        check(row)
    assert rows[1].not_measured["speed"] == "oom in the phase 'probe speed'"


@pytest.fixture(scope="module")
def profile() -> Profile:
    """A profile on nano-t5, with the paper's numbers."""
    from typer.testing import CliRunner

    from harness.cli.main import app

    command = "profile --compressor lora_ff --source-tokens 12 --target-tokens 6 --batch-size 1"
    options = "--steps 1 --repeats 2 --device cpu --compare paper --json"
    result = CliRunner().invoke(app, [*command.split(), *options.split()])
    assert result.exit_code == 0, result.output
    return Profile.model_validate_json(result.stdout)


def test_a_profile_and_its_table(profile: Profile) -> None:
    from rich.console import Console

    check(profile)
    assert profile.not_measured == {"fingerprint.driver": "a CPU has none"}
    console = Console(width=120)
    (row,) = profile.recipes
    assert row.speed
    assert row.memory
    assert row.speed.energy
    row.speed.not_measured["relative"] = row.memory.not_measured["relative"] = "no baseline: [it]"
    row.speed.energy.not_measured["joules"] = "no counter"
    with console.capture() as captured:
        for table in profile_tables(profile):
            console.print(table)
    shown = captured.get()
    assert "No speed, of full (no baseline: [it])." in shown
    assert "No energy (no counter)." in shown


def test_the_page_shows_reasons_in_the_cells(
    alone: Report, finished_run: Any, harness: Harness, tmp_path: Path
) -> None:
    pytest.importorskip("altair")
    path = tmp_path / "report.html"
    result = harness(
        "report", str(finished_run.folder.parent), "--format", "html", "--out", str(path)
    )
    assert result.exit_code == 0, result.output
    assert "-<small>no baseline: off</small>" in path.read_text()


@pytest.mark.skipif(not RESULTS.exists(), reason="there is no checkout around the tests")
def test_reports_that_hold_no_reasons_yet_are_read_and_shown(harness: Harness) -> None:
    places = [place for place in RESULTS.iterdir() if place.is_dir()]
    reports = [read_report(folder) for place in places for folder in find_runs(place)]
    assert reports
    for report in reports:
        list(breakdown_lines(report))
    for place in places:
        assert harness("report", str(place)).exit_code in (0, 2)  # 2: it holds no runs.
