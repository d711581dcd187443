"""The order of a sweep, its outcomes, and several sweeps of one folder at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.api.options import Options
from harness.records.report import Report
from harness.records.run_folder import RunFolder, lock, read_report
from harness.spec.run_spec import RunSpec
from harness.sweeps.executor import Event, Executor, Job, WorkerExit
from harness.sweeps.sweep import Sweep, SweepCell, crash

MakeReport = Callable[..., Report]


class Script(Executor[Options]):
    """An executor that records its runs; each ends well, or as ``ends`` says, without a report."""

    Options = Options
    slots = 2

    def __init__(self, results: Path, make_report: MakeReport, ends: dict[int, Any]) -> None:
        super().__init__(Options())
        self.results, self.make_report, self.ends = results, make_report, ends
        self.started: list[tuple[int, int | None]] = []
        self.lock = threading.Lock()

    def run(self, job: Job, on_event: Callable[[Event], None]) -> WorkerExit:
        seed = job.spec.seed
        with self.lock:
            self.started.append((seed, job.micro_batch))
        on_event({"event": "phase", "phase": "train", "steps": 3})
        end = self.ends.get(seed)
        if isinstance(end, WorkerExit):
            return end
        if isinstance(end, dict):
            on_event(end)
            return WorkerExit(code=0)
        report = self.make_report(id=f"run-{seed}", seed=seed)
        folder = RunFolder(self.results, f"run-{seed}").finish(report)
        on_event({"event": "finished", "status": "ok", "message": None, "folder": str(folder)})
        return WorkerExit(code=0)


def cells(count: int) -> list[SweepCell]:
    return [
        SweepCell(RunSpec(seed=seed, recipe="full"), f"run-{seed}", "full", 3, False)
        for seed in range(count)
    ]


def test_the_sweep_writes_the_report_that_a_run_did_not_write(
    tmp_path: Path, make_report: MakeReport
) -> None:
    ends = {
        1: WorkerExit(code=-signal.SIGSEGV, stderr_tail="Segmentation fault\n"),
        2: WorkerExit(code=-signal.SIGKILL, out_of_memory=True),
        3: {"event": "finished", "status": "timeout", "message": "It took too long to load."},
    }
    executor = Script(tmp_path, make_report, ends)
    outcomes = Sweep(tmp_path, executor, lambda cell, event: None).run(cells(5))
    expected = ["ok", "error", "oom", "timeout", "ok"]
    assert [o.status for o in outcomes] == expected
    assert [o.cell.spec.seed for o in outcomes] == list(range(5))
    assert sorted(executor.started) == [(seed, None) for seed in range(5)]
    reports = [read_report(tmp_path / f"run-{seed}") for seed in range(5)]
    assert [r.status for r in reports] == expected
    assert reports[1].failure
    assert "signal 11: Segmentation fault" in reports[1].failure.message
    assert reports[1].failure.phase == "train"
    assert reports[3].failure
    assert reports[3].failure.message == "It took too long to load."
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"run-{seed}" for seed in range(5)]


def test_lock_files_of_an_earlier_sweep_that_died_are_removed(
    tmp_path: Path, make_report: MakeReport
) -> None:
    for name in (".run-0.claim", ".run-0.lock", ".another.claim"):
        (tmp_path / name).touch()
    Sweep(tmp_path, Script(tmp_path, make_report, {}), lambda cell, event: None).run(cells(1))
    assert [path.name for path in tmp_path.iterdir()] == ["run-0"]


def test_sweeps_at_once_run_each_cell_once(tmp_path: Path, make_report: MakeReport) -> None:
    executor = Script(tmp_path, make_report, {})
    outcomes_of_sweeps: list[list[Any]] = []

    def sweep() -> None:
        outcomes_of_sweeps.append(
            Sweep(tmp_path, executor, lambda cell, event: None).run(cells(12))
        )

    threads = [threading.Thread(target=sweep) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seed for seed, _ in executor.started) == list(range(12))
    assert [[o.status for o in outcomes] for outcomes in outcomes_of_sweeps] == [["ok"] * 12] * 3
    assert len(list(tmp_path.iterdir())) == 12


def test_a_cell_that_another_sweep_runs_is_tried_again_last(
    tmp_path: Path, make_report: MakeReport
) -> None:
    executor = Script(tmp_path, make_report, {})
    events: list[tuple[int, str]] = []
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with lock(tmp_path, "run-0"):
            held.set()
            release.wait(30)

    def on_event(cell: SweepCell, event: Event) -> None:
        events.append((cell.spec.seed, event["event"]))
        if events[-1] == (1, "finished"):
            release.set()

    threading.Thread(target=hold).start()
    assert held.wait(30)
    outcomes = Sweep(tmp_path, executor, on_event).run(cells(2))
    assert (0, "busy") in events
    assert [seed for seed, _ in executor.started] == [1, 0]
    assert [o.status for o in outcomes] == ["ok", "ok"]


@pytest.mark.parametrize(
    ("worker_exit", "timeout", "status"),
    [
        (WorkerExit(code=-9, out_of_memory=True), None, "oom"),
        (WorkerExit(code=-9), 5, "timeout"),
        (WorkerExit(code=-9), None, "error"),
        (WorkerExit(code=-11, out_of_memory=True), None, "error"),
        (WorkerExit(code=1, stderr_tail="Traceback\nValueError: no\n\n"), None, "error"),
    ],
)
def test_the_status_follows_from_how_a_process_ended(
    worker_exit: WorkerExit, timeout: float | None, status: str
) -> None:
    assert crash(worker_exit, timeout)[0] == status
