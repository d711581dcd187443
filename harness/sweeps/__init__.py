"""Sweeps: many runs, each in a process of its own, and the built-in executors of runs."""

from harness.api.hookspecs import hookimpl
from harness.api.registry import Register


@hookimpl
def register_executors(register: Register) -> None:
    """Register the executors that can run a sweep."""
    register("local", "harness.sweeps.executor:Local", "this machine")
    register("ray", "harness.sweeps.ray:Ray", "a Ray cluster; needs the package's extra: ray")
    register(
        "slurm",
        "harness.sweeps.slurm.executor:Slurm",
        "a Slurm cluster; needs the package's extra: slurm",
    )
