"""Sweeps on a Slurm cluster: srun starts each worker on a node and passes its output through."""

from __future__ import annotations

import math
import shutil

from pydantic import Field

from harness import HarnessError, Job, Options, ProcessExecutor


class SrunOptions(Options):
    """Options of ``srun``."""

    jobs: int = Field(4, ge=1)
    """Runs in the queue or at work at once."""
    partition: str | None = None
    """Partition of the cluster; by default Slurm's own choice."""
    gpus: int = Field(1, ge=0)
    """GPUs of each process of a run."""
    cpus: int = Field(4, ge=1)
    """Processor cores of each process of a run."""


class Srun(ProcessExecutor[SrunOptions]):
    """Runs each worker under srun. All nodes must see the folder of results."""

    Options = SrunOptions

    def __init__(self, options: SrunOptions) -> None:
        super().__init__(options)
        if shutil.which("srun") is None:
            raise HarnessError("There is no srun here.", "Start the sweep on a login node.")

    def use_processes(self, count: int) -> None:
        """Request the GPUs and cores of all processes for each run."""
        self.processes = count

    @property
    def slots(self) -> int:
        """Return how many runs are requested at once."""
        return self.options.jobs

    def command(self, job: Job) -> list[str]:
        """Put srun before the worker's own command.

        The worker keeps to its timeout by itself; Slurm's limit is for one that cannot.
        """
        chosen, processes = self.options, self.processes
        cores = chosen.cpus * processes
        srun = ["srun", "--nodes=1", "--ntasks=1", "--unbuffered", f"--cpus-per-task={cores}"]
        if chosen.gpus:
            srun.append(f"--gpus={chosen.gpus * processes}")
        if chosen.partition:
            srun.append(f"--partition={chosen.partition}")
        if job.timeout:
            srun.append(f"--time={math.ceil(job.timeout / 60) + 2}")
        return [*srun, *super().command(job)]
