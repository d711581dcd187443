"""A sweep over a real Ray cluster on this machine."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import harness
from harness import HarnessError
from harness.api.plugin_files import PluginFile
from harness.records.report import Report
from harness.records.run_folder import RunFolder, read_report
from harness.spec.run_spec import read_toml, resolve
from harness.sweeps.executor import Event
from harness.sweeps.sweep import Sweep, SweepCell

pytest.importorskip("ray")
from ray._common.usage.usage_lib import usage_stats_enabled

from harness.sweeps.ray import Ray, RayOptions, connect, pack_runs, unpack_runs


def test_files_arrive_complete_and_a_failure_never_replaces_a_good_result(
    tmp_path: Path, make_report: Callable[..., Report]
) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    for name, status in [("good", "ok"), ("bad", "nan")]:
        failure = None if status == "ok" else {"phase": "train", "message": "why"}
        RunFolder(there, name).finish(make_report(id=name, status=status, failure=failure))
    RunFolder(there, "unfinished")
    RunFolder(here, "bad").finish(make_report(id="bad", seconds=7))
    unpack_runs(pack_runs(there), here)
    assert sorted(path.name for path in here.iterdir()) == ["bad", "good"]
    assert read_report(here / "good") == read_report(there / "good")
    assert (read_report(here / "bad").status, read_report(here / "bad").seconds) == ("ok", 7)


@pytest.mark.parametrize("prefix", ["", "ray://"])
def test_an_address_that_does_not_answer_is_an_error_at_once(prefix: str) -> None:
    with socket.socket() as taken:  # The port is bound, but nobody accepts connections.
        taken.bind(("127.0.0.1", 0))
        address = f"{prefix}127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(HarnessError, match=f"No Ray cluster answers at {address}") as raised:
            connect(address)
    # The port was tried first; Ray itself, which retries for minutes, was not called.
    assert isinstance(raised.value.__cause__, ConnectionRefusedError)


@pytest.fixture(autouse=True)
def without_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start all clusters without authentication.

    Ray would write a token into the user's home. A process also keeps the mode of its first
    cluster: nodes of a second one with another mode could not answer it.
    """
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")


@pytest.fixture
def cluster() -> Iterator[Ray]:
    import ray

    ray.shutdown()
    yield Ray(RayOptions(address="local", retries=2))
    ray.shutdown()


@pytest.mark.slow
def test_a_run_whose_task_is_killed_starts_again_and_resumes(
    cluster: Ray, finished_run: Any, tmp_path: Path
) -> None:
    spec = resolve(read_toml(finished_run.folder / "spec.toml"), "paper")
    events: list[Event] = []
    killed = threading.Event()

    def on_event(cell: SweepCell, event: Event) -> None:
        events.append(event)
        if event == {"event": "step", "step": 5} and not killed.is_set():
            killed.set()
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    if process.name().startswith("ray::work"):
                        process.kill()

    # Ray must not report usage to its makers.
    assert not usage_stats_enabled()
    cell = SweepCell(spec, finished_run.folder.name, spec.recipe, 6, done=False)
    (outcome,) = Sweep(tmp_path, cluster, on_event, save_state_seconds=0).run([cell])
    assert killed.is_set(), (outcome, events)
    assert "lost" in [event["event"] for event in events]
    assert outcome.status == "ok", outcome.message
    (folder,) = tmp_path.iterdir()
    uninterrupted = finished_run.folder
    for name in ("predictions.jsonl", "history.jsonl"):
        assert (folder / name).read_bytes() == (uninterrupted / name).read_bytes()
    assert read_report(folder).resumed


@pytest.fixture
def two_processors() -> Iterator[Ray]:
    import ray

    ray.shutdown()
    ray.init(address="local", num_cpus=2, log_to_driver=False, include_dashboard=False)
    yield Ray(RayOptions(retries=2))
    ray.shutdown()


@pytest.mark.slow
def test_a_run_of_several_processes_is_one_task_and_resumes_after_it_was_killed(
    two_processors: Ray, double_run: Path, tmp_path: Path
) -> None:
    import ray

    with pytest.raises(HarnessError, match="3 processes need a node with 3 CPUs and 0 GPUs, and"):
        two_processors.use_processes(3)
    two_processors.use_processes(2)
    spec = resolve(read_toml(double_run / "spec.toml"), "paper")
    events: list[Event] = []
    killed = threading.Event()

    def on_event(cell: SweepCell, event: Event) -> None:
        events.append(event)
        if event == {"event": "step", "step": 5} and not killed.is_set():
            killed.set()
            # One task has both processors.
            assert ray.available_resources().get("CPU", 0) == 0
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    if process.name().startswith("ray::work"):
                        process.kill()

    cell = SweepCell(spec, double_run.name, spec.recipe, 6, done=False)
    sweep = Sweep(tmp_path, two_processors, on_event, save_state_seconds=0, processes=2)
    (outcome,) = sweep.run([cell])
    assert killed.is_set(), (outcome, events)
    assert "lost" in [event["event"] for event in events]
    assert outcome.status == "ok", outcome.message
    (folder,) = tmp_path.iterdir()
    # Equal names mean equal threads too: each process has its own processor.
    assert folder.name == double_run.name
    assert read_report(folder).resumed
    for name in ("predictions.jsonl", "history.jsonl", "weights.safetensors"):
        assert (folder / name).read_bytes() == (double_run / name).read_bytes(), name


PLUGIN = '''
from harness import Compressor, Options, Stage, hookimpl


class Norms(Compressor):
    """Trains the norms."""

    stage = Stage.ADAPTER
    Options = Options

    def apply(self, model, backbone, context):
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("norm" in name)
        return model


@hookimpl
def register_compressors(register):
    register("my_norms", Norms, "train the norms")
'''


@pytest.mark.slow
def test_the_text_of_a_plugin_file_goes_with_the_run(
    cluster: Ray, finished_run: Any, tmp_path: Path
) -> None:
    file = tmp_path / "my_norms.py"
    file.write_text(PLUGIN)
    read = PluginFile.read(file)
    file.unlink()
    spec = resolve(read_toml(finished_run.folder / "spec.toml"), "paper")
    spec = spec.model_copy(update={"recipe": "my_norms"})
    cell = SweepCell(spec, "one", "my_norms", 6, done=False)
    results = tmp_path / "results"
    sweep = Sweep(results, cluster, lambda *_: None, plugin_files=[read])
    (outcome,) = sweep.run([cell])
    assert outcome.status == "ok", outcome.message
    (folder,) = results.iterdir()
    assert read_report(folder).plugin_files == {"my_norms.py": read.sha256}


RAY = str(Path(sys.executable).with_name("ray"))
QUIET = {
    **os.environ,
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
    "PYTHONPATH": str(Path(harness.__file__).parents[1]),
}


def cannot_hide_folders() -> bool:
    command = ["unshare", "--mount", "true"]
    return not shutil.which("unshare") or subprocess.run(command, check=False).returncode != 0


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    folder.mkdir()
    return folder


@pytest.fixture
def start_node(results: Path) -> Iterator[Callable[[], psutil.Process]]:
    """Start a cluster without CPUs; add nodes of one CPU that do not see the results folder."""
    import ray

    ray.shutdown()
    host = ray.util.get_node_ip_address()
    with socket.socket() as free:
        free.bind((host, 0))
        port = free.getsockname()[1]
    address = f"{host}:{port}"
    common = ["--block", "--object-store-memory", "80000000"]
    head = [RAY, "start", "--head", "--port", str(port), "--include-dashboard", "false", *common]
    node = shlex.join([RAY, "start", "--address", address, "--num-cpus", "1", *common])
    hidden = f"mount -t tmpfs none {shlex.quote(str(results))} && exec {node}"
    processes: list[psutil.Process] = []

    def start(command: list[str]) -> psutil.Process:
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        processes.append(psutil.Popen(command, env=QUIET, start_new_session=True, **silent))
        return processes[-1]

    def is_up() -> bool:
        check = [RAY, "health-check", "--address", address]
        return not subprocess.run(check, env=QUIET, check=False, capture_output=True).returncode

    try:
        start([*head, "--num-cpus", "0"])
        _until(is_up)
        ray.init(address=address, log_to_driver=False)
        yield lambda: start(["unshare", "--mount", "sh", "-c", hidden])
    finally:
        ray.shutdown()
        for process in processes:
            kill_tree(process)


def kill_tree(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        for member in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
    process.wait()


def _until(ready: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end
        time.sleep(0.5)


@pytest.mark.slow
@pytest.mark.skipif(cannot_hide_folders(), reason="this user cannot unshare mounts")
def test_a_run_on_a_node_that_dies_restarts_on_another_and_its_files_are_fetched(
    start_node: Callable[[], psutil.Process], finished_run: Any, results: Path
) -> None:
    spec = resolve(read_toml(finished_run.folder / "spec.toml"), "paper")
    events: list[Event] = []
    nodes = [start_node()]

    def on_event(cell: SweepCell, event: Event) -> None:
        events.append(event)
        if event == {"event": "step", "step": 5} and len(nodes) == 1:
            assert not list(results.glob(".*.partial"))  # The run works in a folder of its own.
            kill_tree(nodes[0])
            nodes.append(start_node())

    cell = SweepCell(spec, finished_run.folder.name, spec.recipe, 6, done=False)
    executor = Ray(RayOptions(retries=2))
    (outcome,) = Sweep(results, executor, on_event, save_state_seconds=0).run([cell])
    assert len(nodes) == 2, (outcome, events)
    assert "lost" in [event["event"] for event in events]
    assert outcome.status == "ok", outcome.message
    (folder,) = results.iterdir()
    uninterrupted = finished_run.folder
    for name in ("predictions.jsonl", "history.jsonl"):
        assert (folder / name).read_bytes() == (uninterrupted / name).read_bytes()
    assert not read_report(folder).resumed
