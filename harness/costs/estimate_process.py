"""Memory of runs, estimated in a process of its own."""

from __future__ import annotations

from typing import NamedTuple, Self

from harness.api.plugins import installed
from harness.costs.fit import HEADROOM, resolve_checkpointing
from harness.costs.memory_estimate import try_to_estimate
from harness.costs.parallel_estimate import estimate_parallel
from harness.errors import first_line
from harness.measurement.request_server import ProcessEndedError, RequestServer, Service
from harness.model.composition import compose
from harness.model.contexts import skeleton_context
from harness.spec.run_spec import RunSpec
from harness.training.resolved_run import resolve_run
from harness.training.schedule import Step

DEVICE_BYTES = 80 * 10**9
"""Memory of a device that several processes are planned for if it is not known."""


class RunMemory(NamedTuple):
    """Estimate of the peak memory of a run's training."""

    peak_bytes: int | None
    """Estimated peak; None if it could not be estimated."""
    reason: str | None
    """Reason why it could not be estimated; None if it could."""
    spec: RunSpec
    """The run's spec, with ``auto`` settings resolved."""
    divided: bool = False
    """True if several processes will divide the model among themselves."""


class MemoryEstimator:
    """Estimates the memory of runs in a process of its own; a context manager.

    A third-party compressor may end the process, and code that trains on a GPU would keep some of
    its memory, which the runs would then lack. A process that dies or does not answer is replaced.

    Args:
        timeout: seconds after which an estimate is given up.
    """

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self._server: RequestServer | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def __call__(
        self, spec: RunSpec, longest: Step, processes: int = 1, room: int | None = None
    ) -> RunMemory:
        """Estimate the peak memory of a run, of each of its processes.

        Args:
            spec: the run's spec.
            longest: the step with its longest batch.
            processes: the number of processes.
            room: bytes of a device that training can use, if they are known. Several processes
                divide a model that needs more; by default they are planned for ``DEVICE_BYTES``.
        """
        if self._server is None:
            self._server = RequestServer(_EstimateService)
        try:
            memory: RunMemory = self._server.request(
                "estimate", spec, longest, processes, room, timeout=self.timeout
            )
            return memory
        except TimeoutError:
            reason = f"estimating it took longer than {self.timeout:g} seconds"
        except ProcessEndedError:
            reason = "the process that estimated it died"
        self._end()
        return RunMemory(None, reason, spec)

    def _end(self) -> None:
        if self._server is not None:
            self._server.kill()
            self._server.close()
            self._server = None


class _EstimateService(Service):
    def estimate(self, spec: RunSpec, longest: Step, processes: int, room: int | None) -> RunMemory:
        """Estimate the peak memory of a run; see ``MemoryEstimator``."""
        plugins = installed()
        try:
            backbone = plugins.backbone(spec.backbone)
            recipe = plugins.recipe(spec.recipe)
            run = resolve_checkpointing(resolve_run(spec, backbone, recipe), longest)
            context = skeleton_context(backbone, spec.seed)
            skeleton = compose(backbone.skeleton(), backbone, recipe, context)
            memory, reason = try_to_estimate(run, skeleton, longest)
            if memory and processes > 1:
                device = DEVICE_BYTES if room is None else room + HEADROOM
                each = estimate_parallel(run, longest, processes, device)
                peak = each.tensor_bytes + (memory.process_bytes or 0)
                return RunMemory(peak, None, run.spec, each.parallel == "fsdp")
        except Exception as error:
            # A recipe that cannot be built is a result of the sweep, not a reason not to start it.
            return RunMemory(None, first_line(error), spec)
        return RunMemory(memory.peak_bytes if memory else None, reason, run.spec)
