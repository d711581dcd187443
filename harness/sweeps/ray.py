"""Executor for a Ray cluster: each run is a Ray task that starts a fresh process on a node."""

from __future__ import annotations

import contextlib
import io
import os
import queue
import shutil
import socket
import tarfile
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ray
from pydantic import Field
from ray.exceptions import RayError, RayTaskError, TaskCancelledError

from harness.api.options import Options
from harness.errors import HarnessError
from harness.records.run_folder import RunFolder, is_done
from harness.sweeps.executor import (
    Event,
    Executor,
    Job,
    Local,
    LocalOptions,
    WorkerExit,
    require_one_gpu_each,
)

_ANSWER_SECONDS = 10.0
"""Timeout of connecting to a cluster."""


class RayOptions(Options):
    """Options of ``ray``."""

    address: str | None = None
    """Address of the cluster. By default the cluster of this machine, or else a new one on it."""
    jobs: int = Field(4, ge=1)
    """Runs submitted at once; Ray starts as many as the cluster has resources for."""
    cpus: float = Field(1, ge=0)
    """Processors reserved for each process of a run; reserve all of a node to measure
    undisturbed."""
    gpus: float = Field(0, ge=0)
    """GPUs reserved for each process of a run."""
    retries: int = Field(3, ge=0)
    """Number of times that a run starts again after its node or its task died."""


class Ray(Executor[RayOptions]):
    """Runs workers wherever the cluster has room.

    A node that shares the results folder works in it; if the node dies, the run resumes from its
    training state. Any other node works in a folder of its own and sends it back at the end.
    """

    Options = RayOptions

    def __init__(self, options: RayOptions) -> None:
        super().__init__(options)
        # By default Ray would send statistics of its use to its makers.
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        if not ray.is_initialized():
            connect(options.address or os.environ.get("RAY_ADDRESS"))
        self._tasks: set[Any] = set()

    def use_processes(self, count: int) -> None:
        """Request the resources of all processes for each run, on one node.

        Raises:
            HarnessError: no node is large enough, so that runs would wait for ever.
        """
        require_one_gpu_each(self.options.gpus, count)
        self.processes = count
        needed = {"CPU": self.options.cpus * count, "GPU": self.options.gpus * count}
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if not any(all(node.get(kind, 0) >= needed[kind] for kind in needed) for node in nodes):
            most = {kind: max((node.get(kind, 0) for node in nodes), default=0) for kind in needed}
            raise HarnessError(
                f"{count} processes need a node with {needed['CPU']:g} CPUs and {needed['GPU']:g} "
                f"GPUs, and no node of the Ray cluster has them: at most {most['CPU']:g} CPUs and "
                f"{most['GPU']:g} GPUs.",
                "Start fewer processes with --nproc, or reserve less for each: "
                "--executor ray:cpus=1,gpus=1",
            )

    @property
    def slots(self) -> int:
        """Number of runs submitted at once, from the options."""
        return self.options.jobs

    def run(self, job: Job, on_event: Callable[[Event], None]) -> WorkerExit:
        """Run a worker as a task, and again if the task is lost with its node."""
        # Ray sets OMP_NUM_THREADS to the processors of the whole task.
        threads = max(1, int(self.options.cpus)) if job.processes > 1 else None
        job = job.model_copy(update={"results": job.results.resolve(), "threads": threads})
        with _marker(job.results) as marker:
            for attempt in range(self.options.retries + 1):
                try:
                    return self._attempt(job, marker, on_event)
                except TaskCancelledError:
                    return WorkerExit(code=130, stderr_tail="The sweep was interrupted.")
                except RayTaskError as error:  # The task itself failed, and would fail again.
                    return WorkerExit(code=1, stderr_tail=str(error))
                except RayError as error:
                    lost = type(error).__name__
                    on_event({"event": "lost", "message": lost, "attempt": attempt + 1})
        return WorkerExit(code=1, stderr_tail=f"The task was lost {attempt + 1} times: {lost}")

    def _attempt(self, job: Job, marker: Path, on_event: Callable[[Event], None]) -> WorkerExit:
        # A retry by Ray itself would send the run's events again.
        task = ray.remote(
            num_cpus=self.options.cpus * self.processes,
            num_gpus=self.options.gpus * self.processes,
            max_retries=0,
        )(work)
        items = task.options(num_returns="streaming").remote(job.model_dump_json(), str(marker))
        self._tasks.add(items)
        worker_exit = WorkerExit(code=1)
        try:
            for item in items:
                kind, value = ray.get(item)
                if kind == "event":
                    on_event(value)
                elif kind == "exit":
                    worker_exit = WorkerExit.model_validate_json(value)
                else:
                    unpack_runs(value, job.results)
        finally:
            self._tasks.discard(items)
        return worker_exit

    def stop(self) -> None:
        """Cancel all tasks; each ends its worker."""
        for task in tuple(self._tasks):
            with contextlib.suppress(RayError):
                ray.cancel(task)


def connect(address: str | None) -> None:
    """Join a cluster, or start one of this machine alone.

    Args:
        address: an address of Ray: host:port, ray://host:port, auto or local.

    Raises:
        HarnessError: no cluster answers there.
    """
    try:
        # Ray itself would try for minutes.
        host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
        if colon and port.isdecimal():
            socket.create_connection((host.strip("[]"), int(port)), _ANSWER_SECONDS).close()
        ray.init(address=address, log_to_driver=False, include_dashboard=False)
    except (OSError, ValueError, OverflowError) as error:
        where = f" at {address}" if address else ""
        raise HarnessError(
            f"No Ray cluster answers{where}: {error}".rstrip(),
            "Start one there with `ray start --head`, or name another: "
            "--executor ray:address=HOST:PORT. If it is running, it may need a token: copy its "
            "~/.ray/auth_token and set RAY_AUTH_MODE=token. Without an address a cluster of this "
            "machine is started for the sweep.",
        ) from error


def work(text: str, marker: str) -> Iterator[tuple[str, Any]]:
    """Run a worker on this node; yield its events, its files if they are not shared, its exit."""
    job = Job.model_validate_json(text)
    shared = Path(marker).exists()
    folder = job.results if shared else Path(tempfile.mkdtemp(prefix="harness-"))
    outbox: queue.SimpleQueue[tuple[str, Any] | None] = queue.SimpleQueue()
    local = Local(LocalOptions())

    def run_worker() -> None:
        try:
            worker_exit = local.run(
                job.model_copy(update={"results": folder}),
                lambda event: outbox.put(("event", event)),
            )
            if not shared:
                outbox.put(("files", pack_runs(folder)))
            outbox.put(("exit", worker_exit.model_dump_json()))
        finally:
            outbox.put(None)

    thread = threading.Thread(target=run_worker)
    thread.start()
    try:
        # Not `yield from`: Ray sends into the generator, which a plain iterator cannot take.
        for item in iter(outbox.get, None):  # noqa: UP028
            yield item
    finally:
        local.stop()
        thread.join()
        if not shared:
            shutil.rmtree(folder, ignore_errors=True)


def pack_runs(results: Path) -> bytes:
    """Return a results folder's finished runs as a tar archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for folder in sorted(results.glob("[!.]*")):
            archive.add(folder, folder.name)
    return buffer.getvalue()


def unpack_runs(files: bytes, results: Path) -> None:
    """Move the runs of an archive into the results folder, each atomically."""
    with (
        tempfile.TemporaryDirectory(dir=results, prefix=".arrived-") as arrived,
        tarfile.open(fileobj=io.BytesIO(files)) as archive,
    ):
        archive.extractall(arrived, filter="data")
        for folder in Path(arrived).iterdir():
            place = RunFolder(results, folder.name)
            if is_done(place.final) and not is_done(folder):
                place.delete()
                continue
            shutil.rmtree(place.final, ignore_errors=True)
            folder.rename(place.final)
            place.delete()


@contextlib.contextmanager
def _marker(results: Path) -> Iterator[Path]:
    """Create a file by which a node detects that it shares the folder."""
    results.mkdir(parents=True, exist_ok=True)
    path = results / f".shared-{uuid.uuid4().hex}"
    path.touch()
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)
