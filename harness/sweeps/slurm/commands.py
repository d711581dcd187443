"""Slurm's commands: submit an array, ask for the states of its jobs, cancel them."""

from __future__ import annotations

import contextlib
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Collection, Iterable, Mapping
from importlib.util import find_spec
from typing import Any

from harness import clock
from harness.api.plugin_files import PluginFile
from harness.errors import HarnessError
from harness.sweeps.slurm.follower import GONE
from harness.sweeps.slurm.job_array import JobArray

_ANSWER_SECONDS = 60
"""Timeout of a command."""


class SlurmUnreachableError(HarnessError):
    """Slurm's controller does not answer."""


def require_slurm() -> None:
    """Check that this machine can submit jobs.

    Raises:
        HarnessError: submitit or Slurm's commands are missing.
    """
    if find_spec("submitit") is None:
        raise HarnessError(
            "The executor 'slurm' needs the package submitit.",
            "pip install 'seq2seq-harness[slurm]'",
        )
    missing = [name for name in ("sbatch", "squeue", "scancel") if shutil.which(name) is None]
    if missing:
        raise HarnessError(
            f"There is no {missing[0]} on this machine.",
            "Start the sweep where Slurm's commands are, such as a login node of the cluster.",
        )


def submit(
    array: JobArray, parameters: Mapping[str, Any], plugin_files: Iterable[PluginFile] = ()
) -> str:
    """Submit an array; return the id that Slurm gives it.

    submitit writes the batch script and calls sbatch. Its usual way pickles a function, which each
    node unpickles from the shared folder: whoever can write there could execute code. Here the
    script starts a command of the harness, which reads JSON. For the same reason the files of
    plugins are named in the command, with their hashes, and not in the JSON.

    Args:
        array: the array.
        parameters: parameters of submitit's SlurmExecutor.
        plugin_files: plugins that are single files, which the nodes see in the same place.

    Raises:
        HarnessError: Slurm refuses the array.
    """
    from submitit import SlurmExecutor
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    executor = SlurmExecutor(folder=array.record.logs)
    executor.update_parameters(job_name=array.record.name, **parameters)
    executor.parameters["map_count"] = len(array.record.runs)
    # -P: the current folder may hold modules named like the harness's.
    command = [sys.executable, "-P", "-m", "harness.sweeps.slurm.node", str(array.folder.resolve())]
    command += [f"{file.sha256}:{file.path}" for file in plugin_files]
    try:
        return executor._submit_command(shlex.join(command)).job_id
    except (FailedJobError, FailedSubmissionError) as error:
        lines = [line for line in str(error).splitlines() if "sbatch: error" in line]
        said = lines[-1].partition("sbatch: error: ")[2] if lines else str(error)
        raise HarnessError(
            f"Slurm refuses the jobs: {said.rstrip('.')}.",
            "Correct the options of --executor slurm:..., such as partition, account or time; with "
            "--nproc, one node must have the gpus, cpus and memory of all processes.",
        ) from error


def cancel(task_ids: Iterable[str]) -> None:
    """Cancel jobs; those that have ended stay as they are."""
    if ids := list(task_ids):
        _call(["scancel", "--quiet", *ids])


def find_array(name: str) -> str | None:
    """Return the id of the array with this name, or None if Slurm does not know one.

    Raises:
        SlurmUnreachableError: Slurm does not answer.
    """
    answer = _call(["squeue", "--noheader", "--states=all", f"--name={name}", "--format=%F"])
    if answer.returncode:
        raise _unreachable(answer.stderr)
    return next(iter(answer.stdout.split()), None)


def current_states(task_ids: Collection[str]) -> dict[str, str]:
    """Return the states of jobs; those that Slurm does not know any more are missing.

    Raises:
        SlurmUnreachableError: Slurm does not answer.
    """
    if not task_ids:
        return {}
    arrays = ",".join(sorted({task.partition("_")[0] for task in task_ids}))
    command = ["squeue", "--noheader", "--array", "--states=all", f"--jobs={arrays}"]
    answer = _call([*command, "--format=%i|%T"])
    if answer.returncode and "Invalid job id" not in answer.stderr:
        raise _unreachable(answer.stderr)
    states = dict(_pairs(answer.stdout))
    # The controller forgets a job some minutes after its end; the accounting, if any, does not.
    forgotten = sorted(set(task_ids) - states.keys())
    if forgotten and shutil.which("sacct"):
        command = ["sacct", "--noheader", "--parsable2", "--allocations", "--format=JobID,State"]
        states |= _pairs(_call([*command, f"--jobs={','.join(forgotten)}"]).stdout)
    return states


class States:
    """States of jobs in Slurm, asked again only after a while; may be used from any thread.

    Args:
        interval: seconds between two questions to Slurm.
    """

    def __init__(self, interval: float) -> None:
        self.interval = interval
        self._watched: set[str] = set()
        self._states: dict[str, str] = {}
        self._missing: dict[str, int] = {}
        self._asked: float | None = None
        self._lock = threading.Lock()

    def watch(self, task_id: str) -> None:
        """Ask for this job from now on."""
        with self._lock:
            self._watched.add(task_id)

    def forget(self, task_id: str) -> None:
        """Do not ask for this job any more."""
        with self._lock:
            self._watched.discard(task_id)

    def of(self, task_id: str) -> str | None:
        """Return the state of a watched job, or None if it is not known yet.

        A job that neither the controller nor the accounting knows is ``GONE`` at the second time.
        """
        with self._lock:
            if self._asked is None or clock.seconds() - self._asked >= self.interval:
                self._asked = clock.seconds()
                # The controller may be back soon: nothing new is known about the jobs meanwhile.
                with contextlib.suppress(SlurmUnreachableError):
                    self._ask()
            return self._states.get(task_id)

    def _ask(self) -> None:
        if not self._watched:
            return
        known = current_states(self._watched)
        for task in self._watched:
            if task in known:
                self._missing.pop(task, None)
                self._states[task] = known[task]
                continue
            self._missing[task] = self._missing.get(task, 0) + 1
            if self._missing[task] > 1:
                self._states[task] = GONE


def _call(command: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_ANSWER_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise _unreachable(f"{command[0]} did not end in {_ANSWER_SECONDS} s") from error


def _unreachable(said: str) -> SlurmUnreachableError:
    return SlurmUnreachableError(
        f"Slurm does not answer: {said.strip()}.", "Try again later: sinfo shows when it is back."
    )


def _pairs(text: str) -> Iterable[tuple[str, str]]:
    for line in text.splitlines():
        task, _, state = line.strip().partition("|")
        if state:
            # The accounting writes: CANCELLED by 1000.
            yield task, state.split()[0]
