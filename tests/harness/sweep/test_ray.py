"""A sweep over a real Ray cluster on this machine."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness.reporting.folder import RunFolder, read_report
from harness.reporting.report import Report
from harness.spec import read_toml, resolve
from harness.sweep.executor import Event
from harness.sweep.sweep import Cell, Sweep

pytest.importorskip("ray")
from ray._common.usage.usage_lib import usage_stats_enabled

from harness.sweep.ray import Ray, RayOptions, bring_home, packed


def test_files_arrive_whole_and_never_a_failure_over_a_good_result(
    tmp_path: Path, make_report: Callable[..., Report]
) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    for name, status in [("good", "ok"), ("bad", "nan")]:
        failure = None if status == "ok" else {"phase": "train", "message": "why"}
        RunFolder(there, name).finish(make_report(id=name, status=status, failure=failure))
    RunFolder(there, "unfinished")
    RunFolder(here, "bad").finish(make_report(id="bad", seconds=7))
    bring_home(packed(there), here)
    assert sorted(path.name for path in here.iterdir()) == ["bad", "good"]
    assert read_report(here / "good") == read_report(there / "good")
    assert (read_report(here / "bad").status, read_report(here / "bad").seconds) == ("ok", 7)


@pytest.fixture
def cluster() -> Iterator[Ray]:
    import ray

    ray.shutdown()
    yield Ray(RayOptions(address="local", retries=2))
    ray.shutdown()


@pytest.mark.slow
def test_a_run_whose_task_is_killed_starts_again_and_goes_on(
    cluster: Ray, finished_run: Any, tmp_path: Path
) -> None:
    spec = resolve(read_toml(finished_run.folder / "spec.toml"), "paper")
    told: list[Event] = []
    killed = threading.Event()

    def tell(cell: Cell, event: Event) -> None:
        told.append(event)
        if event == {"event": "step", "step": 5} and not killed.is_set():
            killed.set()
            for process in psutil.Process().children(recursive=True):
                if process.name().startswith("ray::work"):
                    process.kill()

    # Ray would otherwise report to its makers how it is used.
    assert not usage_stats_enabled()
    cell = Cell(spec, finished_run.folder.name, spec.recipe, 6, done=False)
    (outcome,) = Sweep(tmp_path, cluster, tell, snapshot_seconds=0).run([cell])
    assert killed.is_set(), (outcome, told)
    assert "lost" in [event["event"] for event in told]
    assert outcome.status == "ok", outcome.message
    (folder,) = tmp_path.iterdir()
    whole = finished_run.folder
    for name in ("predictions.jsonl", "history.jsonl"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()
    assert read_report(folder).resumed
