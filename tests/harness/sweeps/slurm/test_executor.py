"""Sweeps as job arrays of a real Slurm on this machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.records.report import Report
from harness.records.run_folder import read_report
from harness.sweeps.slurm.job_array import JobArray, read_arrays

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("slurm")]

PROBE_STEPS = 4

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results"


@pytest.fixture
def harness() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Return a function that starts the command line in a process of its own."""
    processes: list[subprocess.Popen[str]] = []

    def begin(*arguments: str, **environment: str) -> subprocess.Popen[str]:
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "harness", *arguments],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, "COLUMNS": "100", **environment},
            )
        )
        return processes[-1]

    yield begin
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def start(harness: Start, short_run: list[str], results: Path) -> Start:
    """Return a function that starts a sweep over recipes, with options of the executor."""

    def begin(recipes: str, options: str, *more: str, **environment: str) -> subprocess.Popen[str]:
        words = ["--compressor", recipes, "--executor", f"slurm:poll=0.5,{options}", *more]
        place = ["--out", str(results), "--snapshot-every", "0", "--yes"]
        return harness("sweep", *short_run[1:], *words, *place, **environment)

    return begin


@pytest.fixture
def watch(harness: Start, results: Path) -> Start:
    """Return a function that attaches to the sweep's jobs."""
    return lambda **environment: harness("sweep", "--watch", "--out", str(results), **environment)


def until(ready: Callable[[], object], seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end
        time.sleep(0.2)


def ask(*command: str) -> str:
    """Return the output of one of Slurm's commands."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def states() -> dict[str, str]:
    """Return the state of every job that Slurm knows."""
    lines = ask("squeue", "--noheader", "--array", "--states=all", "--format=%i %T").splitlines()
    return dict(line.split() for line in lines)


def run(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, stderr = process.communicate(timeout=600)
    return process.returncode, stderr


def steps(count: int) -> list[str]:
    """Return settings of a run that takes this many steps."""
    # Never ended before by a score that does not improve.
    given = {"train.max_steps": count, "train.epochs": count, "train.patience": count}
    return [word for name, value in given.items() for word in ("--set", f"{name}={value}")]


def reports(results: Path) -> dict[str, Report]:
    stored = [read_report(folder) for folder in results.glob("[!.]*")]
    return {report.recipe: report for report in stored}


def events(array: JobArray, index: int, kind: str) -> list[dict[str, Any]]:
    file = array.events(index)
    lines = file.read_text().splitlines() if file.exists() else []
    read = [json.loads(line) for line in lines if line.endswith("}")]
    return [event for event in read if event["event"] == kind]


def trains(results: Path, step: int, index: int = 0) -> bool:
    """Return whether a run of an array has taken this training step."""
    for array in read_arrays(results):
        kinds = [event.get("phase") for event in events(array, index, "phase")]
        steps = [event["step"] for event in events(array, index, "step")]
        # The steps of the probe come before.
        if "train" in kinds and len(steps) >= PROBE_STEPS + step:
            return True
    return False


def test_the_cells_of_a_sweep_are_one_array_and_end_with_reports(
    start: Start, results: Path
) -> None:
    options = "partition=gpu,gpus=1,time=0:30:00,array_parallelism=2"
    code, stderr = run(start("full,lprun,lora_ff,lora_ff+lprun", options))
    assert code == 0, stderr
    assert "4 of 4 runs are done." in stderr
    assert {report.status for report in reports(results).values()} == {"ok"}
    assert len(reports(results)) == 4
    (array,) = read_arrays(results)
    assert len(array.record.runs) == 4
    script = (array.folder / f"{array.record.job_id}_submission.sh").read_text()
    for line in ("--array=0-3%2", "--partition=gpu", "--gpus-per-node=1", "--time=0:30:00"):
        assert f"#SBATCH {line}\n" in script
    # Nothing on the shared folder is a pickle, and nothing is left of locks.
    kinds = {path.suffix for path in array.folder.iterdir()}
    assert kinds == {".json", ".jsonl", ".sh", ".out", ".err"}
    assert [path.name for path in results.glob(".*")] == [".slurm"]
    # The same command again submits nothing.
    code, stderr = run(start("full,lprun,lora_ff,lora_ff+lprun", options))
    assert code == 0, stderr
    assert len(read_arrays(results)) == 1


def test_a_cancelled_job_is_an_interrupted_run_with_its_job_and_log_and_the_others_go_on(
    start: Start, results: Path
) -> None:
    sweep = start("full,lprun,lora_ff", "array_parallelism=1", *steps(60))
    until(lambda: trains(results, 3))
    (array,) = read_arrays(results)
    ask("scancel", array.task_id(0), array.task_id(1))  # One is at work, and one waits.
    code, stderr = run(sweep)
    assert code == 1, stderr
    found = {recipe: report.status for recipe, report in reports(results).items()}
    assert found == {"full": "interrupted", "lprun": "interrupted", "lora_ff": "ok"}
    for index, recipe in enumerate(("full", "lprun")):
        place = f"(Slurm job {array.task_id(index)}, log: {array.log(index)})"
        line = f"interrupted: tiny-t5 x {recipe} on notes.jsonl, seed 0: The job was cancelled."
        assert f"{line} {place}" in stderr
    assert array.log(0).exists()
    assert "1 of 3 runs are done." in stderr


def test_a_job_that_is_requeued_or_has_to_make_room_resumes_from_its_training_state(
    start: Start, results: Path
) -> None:
    sweep = start("lora_ff+lprun", "partition=gpu", *steps(200))
    until(lambda: trains(results, 10))
    (array,) = read_arrays(results)
    ask("scontrol", "requeue", array.task_id(0))
    until(lambda: len(events(array, 0, "job")) == 2)
    until(lambda: events(array, 0, "step")[-1]["step"] > 40 and len(events(array, 0, "exit")) == 1)
    # It takes the whole node; the run has a minute to end by itself.
    urgent = ["sbatch", "--partition=urgent", "--cpus-per-task=2", "--output=/dev/null"]
    ask(*urgent, "--wrap", "sleep 1")
    code, stderr = run(sweep)
    assert code == 0, stderr
    assert stderr.count(", seed 0: requeued\n") == 2
    assert [event["restarts"] for event in events(array, 0, "job")] == [0, 1, 2]
    assert [event["stopped"] for event in events(array, 0, "exit")] == ["SIGTERM", "SIGTERM", None]
    (folder,) = results.glob("[!.]*")
    resumed = read_report(folder).resumed
    assert [resumption.phase for resumption in resumed] == ["train", "train"]
    assert 10 <= (resumed[0].step or 0) < (resumed[1].step or 0)
    rows = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == list(range(1, 201))


def test_the_time_limit_of_a_job_is_a_timeout_and_its_message_names_it(
    start: Start, results: Path
) -> None:
    code, stderr = run(start("full", "time=1", *steps(100_000)))
    assert code == 1, stderr
    assert "seed 0: The job reached its time limit in Slurm. (Slurm job " in stderr
    report = reports(results)["full"]
    assert report.status == "timeout"
    assert report.failure
    assert report.failure.message == "It reached the time limit of the batch system."


def test_a_partition_that_is_none_is_an_error_that_names_the_options(
    start: Start, results: Path
) -> None:
    code, stderr = run(start("full,lprun", "partition=none"))
    assert code == 2
    assert "Error: Slurm refuses the jobs: " in stderr
    assert "invalid partition" in stderr.lower()
    assert "Correct the options of --executor slurm:" in stderr
    assert "Traceback" not in stderr
    assert read_arrays(results) == []
    (results / "file").touch()
    code, stderr = run(start("full,lprun", f"logs={results / 'file' / 'logs'}"))
    assert code == 2
    assert "Error: The files of the jobs cannot be written: " in stderr


def test_a_sweep_whose_head_was_killed_finds_its_jobs_again_and_they_can_be_watched(
    start: Start, watch: Start, results: Path
) -> None:
    recipes = "full,lprun,lora_ff"
    head = start(recipes, "array_parallelism=1", *steps(60))
    until(lambda: trains(results, 2, index=1))  # One run is done, one at work, and one waits.
    head.send_signal(signal.SIGKILL)
    head.wait()
    # It possibly died before it could store what Slurm answered.
    (array,) = read_arrays(results)
    assert array.record.job_id
    array.save_id(None)
    again = start(recipes, "array_parallelism=1", *steps(60))
    until(lambda: read_arrays(results)[0].record.job_id)
    watching = watch()
    code, stderr = run(again)
    assert code == 0, stderr
    assert {report.status for report in reports(results).values()} == {"ok"}
    assert not [report for report in reports(results).values() if report.resumed]
    (array,) = read_arrays(results)
    for index in range(3):
        assert len(events(array, index, "job")) == 1
    code, stderr = run(watching)
    assert code == 0, stderr
    for recipe in ("full", "lprun", "lora_ff"):
        assert f"tiny-t5 x {recipe} on notes.jsonl, seed 0: ok" in stderr
    assert "3 of 3 runs are done." in stderr
    # What is over can be looked at as well, also where there is no Slurm.
    code, stderr = run(watch(PATH="/nowhere"))
    assert code == 0, stderr
    assert "3 of 3 runs are done." in stderr


def test_ctrl_c_cancels_the_jobs_of_the_sweep_unless_it_detaches(
    start: Start, results: Path
) -> None:
    detached = start("full", "detach=true", *steps(5000))
    until(lambda: read_arrays(results) and events(read_arrays(results)[0], 0, "job"))
    (array,) = read_arrays(results)
    detached.send_signal(signal.SIGINT)
    code, stderr = run(detached)
    assert code == 130, stderr
    assert ", seed 0: left in the queue\n" in stderr
    assert states()[array.task_id(0)] == "RUNNING"
    attached = start("full", "partition=gpu", *steps(5000))
    until(lambda: trains(results, 2))
    attached.send_signal(signal.SIGINT)
    code, stderr = run(attached)
    assert code == 130, stderr
    assert states()[array.task_id(0)] in ("CANCELLED", "COMPLETING")
    assert len(read_arrays(results)) == 1
    assert len(events(array, 0, "job")) == 1
    assert reports(results)["full"].status == "interrupted"


def test_a_run_of_several_processes_is_one_job_which_a_requeue_resumes(
    start: Start, results: Path, double_run: Path
) -> None:
    environment = {"OMP_NUM_THREADS": "1"}
    several = ["--nproc", "2", "--set", "probe.training=false"]
    sweep = start("lora_ff+lprun", "partition=gpu,gpus=1", *several, *steps(30), **environment)
    until(lambda: trains(results, 10), seconds=600)
    (array,) = read_arrays(results)
    script = (array.folder / f"{array.record.job_id}_submission.sh").read_text()
    for line in ("--nodes=1", "--gpus-per-node=2", "--cpus-per-task=2"):
        assert f"#SBATCH {line}\n" in script
    ask("scontrol", "requeue", array.task_id(0))
    code, stderr = run(sweep)
    assert code == 0, stderr
    (folder,) = results.glob("[!.]*")
    report = read_report(folder)
    assert report.training
    assert report.training.processes == 2
    assert [resumption.phase for resumption in report.resumed] == ["train"]
    rows = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == list(range(1, 31))
    # A run that nobody stops has the bits of harness run --nproc 2.
    code, stderr = run(start("lora_ff+lprun", "gpus=1", *several, **environment))
    assert code == 0, stderr
    for name in ("predictions.jsonl", "history.jsonl", "weights.safetensors"):
        place = results / double_run.name / name
        assert place.read_bytes() == (double_run / name).read_bytes(), name


def test_more_processes_than_a_node_has_gpus_are_an_error_that_says_so(
    start: Start, results: Path
) -> None:
    code, stderr = run(start("full", "gpus=1", "--nproc", "4"))
    assert code == 2
    assert "Error: Slurm refuses the jobs: " in stderr
    assert "with --nproc, one node must have the gpus, cpus and memory of all" in stderr
    assert read_arrays(results) == []
    code, stderr = run(start("full", "gpus=4", "--nproc", "4"))
    assert code == 2
    assert "gpus=4 would be for each of 4 processes, and a process uses one." in stderr
