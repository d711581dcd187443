"""Many runs: which ones, in fresh processes, to the end whatever becomes of each."""

from harness.api.hookspecs import hookimpl
from harness.api.registry import Register


@hookimpl
def register_executors(register: Register) -> None:
    """Register where a sweep can run."""
    register("local", "harness.sweeps.executor:Local", "this machine")
    register("ray", "harness.sweeps.ray:Ray", "a Ray cluster; needs the package's extra: ray")
