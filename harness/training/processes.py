"""Data-parallel training: several processes take each step together, each on its own device.

The main process (rank 0) is the run: it measures, scores and writes files. The others are workers.
All of them hold the model and the optimizer, and take the same steps: each computes the gradient of
its share of a step's tokens, torch's DistributedDataParallel sums the gradients, and each updates
its own weights in the same way. They also divide the predictions. A model that is too large for one
device is itself divided, see ``harness.training.parallel.sharding``.

The loss is a sum over all target tokens of the step, divided by their number. Loss and gradient are
therefore those of one process, whatever the number of processes, except for the order of
floating-point additions and for dropout, which each process draws by itself.
"""

from __future__ import annotations

import contextlib
import os
import signal
import warnings
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from harness.data.examples import Example
from harness.errors import HarnessError
from harness.interrupts import end_with_parent
from harness.training.failing import end_workers, find_cause, leave, terminate
from harness.training.schedule import Step

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

_UNLIMITED = timedelta(days=365)
_TIMEOUT = "HARNESS_PROCESS_TIMEOUT"
_DEFAULT_TIMEOUT = 1800
"""Seconds that a process waits for the others within a step, an evaluation or an exchange."""
MEASURE, PREDICT, FINISHED = "measure", "predict", "finished"
TRAIN, TRAIN_SHARDED = "train", "train sharded"
"""Stages that workers take part in, and the end."""
_STAGE = "harness/stage"
"""Key of the store that the processes share."""


@dataclass(frozen=True)
class Processes:
    """A group of processes, as seen by one of them; by default a single process.

    Attributes:
        rank: number of this process; 0 is the main process.
        size: number of processes.
        store: the store that the group shares; None for a single process.
        local_size: number of processes on this machine.
    """

    rank: int = 0
    size: int = 1
    store: Store | None = None
    local_size: int = 1

    def share(self, step: Step) -> Step:
        """Return this process's examples of a step, in micro-batches no larger than the step's.

        The tokens are divided as evenly as whole examples allow, and all shares have equally many
        micro-batches. A process with fewer examples gets fillers: micro-batches whose loss does
        not count, since every process must take part in every exchange.
        """
        if self.size == 1:
            return step
        width = max(map(len, step.micro_batches))
        shares = _divided([e for batch in step.micro_batches for e in batch], self.size)
        rounds = max(-(-len(share) // width) for share in shares)
        own = shares[self.rank]
        # As many examples in each micro-batch as possible without leaving one empty.
        sizes = [len(own) // rounds + (number < len(own) % rounds) for number in range(rounds)]
        batches, start = [], 0
        for size in sizes:
            batches.append(tuple(own[start : start + size]) or (shares[0][-1],))
            start += size
        return Step(tuple(batches), fillers=sum(size == 0 for size in sizes))

    def wrap(self, module: nn.Module) -> nn.Module:
        """Return a module that sums gradients over the processes; its ``forward`` is the same.

        torch averages the gradients, so a loss must be multiplied by ``size`` before its backward
        pass.
        """
        if self.size == 1:
            return module
        from torch.nn.parallel import DistributedDataParallel

        with warnings.catch_warnings():
            # The option that is to replace broadcast_buffers does not say the same.
            warnings.simplefilter("ignore", FutureWarning)
            return DistributedDataParallel(
                module, broadcast_buffers=False, gradient_as_bucket_view=True, init_sync=False
            )

    def without_exchange(self, module: nn.Module) -> AbstractContextManager[object]:
        """Return a context in which a wrapped module adds up gradients without exchanging them."""
        if self.size == 1:
            return nullcontext()
        context: AbstractContextManager[object] = module.no_sync()  # type: ignore[operator]
        return context

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum a tensor over the processes, in place, and return it."""
        if self.size > 1:
            torch.distributed.all_reduce(tensor)
        return tensor

    def seed(self, seed: int, number: int) -> None:
        """Seed the dropout of a worker's step, so that a resumed run draws the same masks.

        The main process keeps its generator, whose state is saved.

        Args:
            seed: the run's seed.
            number: the step's number.
        """
        if self.rank > 0:
            state = np.random.SeedSequence([seed, self.rank, number]).generate_state(1, np.uint64)
            torch.manual_seed(int(state[0]))

    def decision(self, own: bool = False) -> bool:
        """Return what the main process passes, in every process."""
        if self.size == 1:
            return own
        decided = torch.tensor(int(own))
        torch.distributed.broadcast(decided, 0)
        return bool(decided)

    @torch.no_grad()
    def copy_from_main(self, tensors: Iterable[Tensor]) -> None:
        """Replace the values of tensors by those of the main process."""
        if self.size > 1:
            for tensor in tensors:
                torch.distributed.broadcast(tensor.detach(), 0)

    def start(self, stage: str) -> None:
        """Let the workers begin a stage, and wait until all are ready; the main process calls it.

        Raises:
            RuntimeError: a worker failed; see ``cause``.
        """
        if self.store is not None:
            self.store.set(_STAGE, stage)
            torch.distributed.barrier()
            self.store.delete_key(_STAGE)
            torch.distributed.barrier()

    def await_stage(self) -> str:
        """Wait for the main process to begin a stage, and return its name.

        Call ``ready`` afterwards, unless the stage is ``FINISHED``.
        """
        assert self.store is not None
        self.store.wait([_STAGE], _UNLIMITED)
        return self.store.get(_STAGE).decode()

    def ready(self) -> None:
        """Tell the main process that this worker is ready for the stage."""
        torch.distributed.barrier()
        torch.distributed.barrier()

    def fail(self, error: BaseException) -> None:
        """Leave the reason for the others, and the group; then wait for the main process's end.

        Call it in a worker that failed, before its process ends.
        """
        assert self.store is not None
        leave(self.store, self.rank, error)

    def cause(self, error: BaseException) -> BaseException:
        """Return the error of the worker whose failure this error follows from, or the same error.

        When a process leaves the group, exchanges of the others raise RuntimeError.
        """
        if self.store is None:
            return error
        return find_cause(self.store, self.size, error, process_timeout())

    def end(self) -> None:
        """Let the workers end; in a worker it does nothing."""
        if self.store is not None and self.rank == 0:
            self.store.set(_STAGE, FINISHED)
            end_workers(self.store)


def _divided(examples: list[Example], parts: int) -> list[list[Example]]:
    """Divide examples into parts with nearly equal numbers of tokens, the longest first."""
    divided: list[list[Example]] = [[] for _ in range(parts)]
    tokens = [0] * parts
    for example in sorted(examples, key=lambda e: -len(e.source) - len(e.target)):
        least = tokens.index(min(tokens))
        divided[least].append(example)
        tokens[least] += len(example.source) + len(example.target)
    return divided


SINGLE_PROCESS = Processes()


@contextlib.contextmanager
def join(device: str) -> Iterator[Processes]:
    """Join the process group that a launcher started this process for, until the context ends.

    Args:
        device: the device of the run's spec. On CUDA each process of a machine uses its own GPU.

    Raises:
        HarnessError: there are fewer GPUs than processes, or the timeout is not a number.
    """
    import torch.distributed as dist
    from torch.distributed.rendezvous import rendezvous

    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    local = int(os.environ.get("LOCAL_RANK", "0"))
    end_with_parent()
    local_size = int(os.environ.get("LOCAL_WORLD_SIZE", size))
    on_gpu = device != "cpu" and torch.cuda.is_available()
    if on_gpu:
        if local >= torch.cuda.device_count():
            raise HarnessError(
                f"Process {local} of this machine has no GPU: there are "
                f"{torch.cuda.device_count()}.",
                f"Start at most {torch.cuda.device_count()} processes on each machine.",
            )
        torch.cuda.set_device(local)
    store = None
    if size > 1:
        store, _, _ = next(rendezvous("env://", rank, size))
        backend = "cpu:gloo,cuda:nccl" if on_gpu else "gloo"
        dist.init_process_group(
            backend, store=store, rank=rank, world_size=size, timeout=process_timeout()
        )
        # A worker writes nothing, and may end anywhere.
        signal.signal(signal.SIGTERM, terminate if rank == 0 else signal.SIG_DFL)
    # Processes that are started from here on measure alone and must not join the group.
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR"):
        os.environ.pop(name, None)
    processes = Processes(rank, size, store, local_size)
    try:
        yield processes
    finally:
        processes.end()
        if dist.is_initialized():
            dist.destroy_process_group()


def process_timeout() -> timedelta:
    """Return the time that a process waits for the others, from the environment or the default.

    Raises:
        HarnessError: the variable is not a number of seconds above 0.
    """
    text = os.environ.get(_TIMEOUT, str(_DEFAULT_TIMEOUT))
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if seconds <= 0:
        raise HarnessError(
            f"{_TIMEOUT}={text!r} is not a number of seconds.",
            f"Write a number above 0, for example: export {_TIMEOUT}={_DEFAULT_TIMEOUT}",
        )
    return timedelta(seconds=seconds)
