"""Data-parallel training: several processes take each step together, each on its own device.

The main process (rank 0) is the run: it measures, holds the optimizer, evaluates and writes. The
others are workers. For each step a worker receives the trained weights, computes the gradient of
its share of the step's examples, and adds it to a sum in the main process. Between steps it waits
for the next broadcast. A worker keeps nothing from step to step, so that a run in several processes
is stopped and resumed like any other.

The loss is a sum over all target tokens of the step, divided by their number. Loss and gradient are
therefore those of one process, whatever the number of processes, except for the order of
floating-point additions and for dropout, which each process draws by itself.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import torch
from torch import Tensor, nn

from harness.errors import HarnessError, OutOfMemoryError, first_line, is_out_of_memory
from harness.training.schedule import Step

_BUCKET_ELEMENTS = 2**24
"""Elements sent at once: many small messages cost latency, one large buffer costs memory."""
_MESSAGE_BYTES = 512
_STOP = -1
"""Step number that ends the workers."""


@dataclass(frozen=True)
class Processes:
    """A group of processes, as seen by one of them; by default a single process.

    Attributes:
        rank: number of this process; 0 is the main process.
        size: number of processes.
    """

    rank: int = 0
    size: int = 1

    def share(self, step: Step) -> Step:
        """Return this process's examples of a step, in micro-batches no larger than the step's.

        Each example is in the share of exactly one process. A share is empty if there are fewer
        examples than processes.
        """
        if self.size == 1:
            return step
        width = max(map(len, step.micro_batches))
        examples = [e for batch in step.micro_batches for e in batch][self.rank :: self.size]
        return Step(
            tuple(
                tuple(examples[start : start + width]) for start in range(0, len(examples), width)
            )
        )

    def start(self, first: int) -> None:
        """Start the workers at step number ``first``, and wait until all are ready.

        Raises:
            OutOfMemoryError: a worker ran out of memory.
            RuntimeError: a worker failed.
        """
        if self.size > 1:
            self._broadcast_step(first)
            self.raise_if_any_failed(None)

    def step(
        self, number: int, trained: Collection[nn.Parameter], backward: Callable[[], Tensor]
    ) -> Tensor:
        """Compute the loss and the gradients of a step in all processes.

        Args:
            number: the step's number, from 0; the main process broadcasts it.
            trained: parameters with the same shapes in all processes. The workers receive the main
                process's values; the main process receives the sum of all gradients.
            backward: computes the gradients of this process's share, and returns its loss.

        Returns:
            The loss; in the main process, that of the whole step.

        Raises:
            BaseException: the error of ``backward`` here, or see ``raise_if_any_failed``.
        """
        if self.size == 1:
            return backward()
        if self.rank == 0:
            self._broadcast_step(number)
        return self._reduced_step(trained, backward)

    def run_worker(
        self,
        seed: int,
        trained: Collection[nn.Parameter],
        backwards: Iterator[Callable[[], Tensor]],
    ) -> None:
        """Take part in the main process's steps until it shuts the workers down.

        Args:
            seed: the run's seed; dropout is seeded with it, the rank and the step's number.
            trained: see ``step``.
            backwards: yields the ``backward`` of each step, see ``step``.
        """
        while (number := self.receive_step()) != _STOP:
            backward = next(backwards)
            # Seeded by step, so that a resumed run draws the same dropout masks.
            state = np.random.SeedSequence([seed, self.rank, number]).generate_state(1, np.uint64)
            torch.manual_seed(int(state[0]))
            self._reduced_step(trained, backward)
            for parameter in trained:
                parameter.grad = None

    def receive_step(self) -> int:
        """Wait for the number of the next step and return it; a negative number ends the worker."""
        import torch.distributed as dist

        number = torch.empty((), dtype=torch.int64)
        dist.broadcast(number, 0)
        return int(number)

    def raise_if_any_failed(self, error: BaseException | None) -> None:
        """Exchange errors between all processes, and raise in each one if any of them failed.

        Args:
            error: the error of this process, or None. It is raised here.

        Raises:
            OutOfMemoryError: another process ran out of memory.
            RuntimeError: another process failed; the message holds its error's first line.
        """
        import torch.distributed as dist

        own = torch.zeros(_MESSAGE_BYTES, dtype=torch.uint8)
        if error is not None:
            kind = b"m" if is_out_of_memory(error) else b"e"
            text = first_line(error)
            data = (kind + text.encode())[:_MESSAGE_BYTES]
            own[: len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        messages = [torch.empty_like(own) for _ in range(self.size)]
        dist.all_gather(messages, own)
        if error is not None:
            raise error
        for rank, message in enumerate(messages):
            data = bytes(message.tolist()).rstrip(b"\0")
            if data:
                text = f"Process {rank}: {data[1:].decode(errors='ignore')}"
                raise OutOfMemoryError(text) if data[:1] == b"m" else RuntimeError(text)

    def shutdown(self) -> None:
        """End the workers."""
        # The broadcast fails if a worker has died already.
        with contextlib.suppress(RuntimeError):
            self._broadcast_step(_STOP)

    def _reduced_step(
        self, trained: Collection[nn.Parameter], backward: Callable[[], Tensor]
    ) -> Tensor:
        """Broadcast the weights, compute, and sum loss and gradients in the main process."""
        import torch.distributed as dist

        _by_buckets([p.detach() for p in trained], lambda flat: dist.broadcast(flat, 0))
        error: BaseException | None = None
        loss = torch.zeros(())
        try:
            loss = backward()
        except BaseException as raised:  # The others must know before they wait for the sum.
            error = raised
        self.raise_if_any_failed(error)
        # A process without examples has no gradients; it adds zeros. A parameter without a
        # gradient on rank 0 is not trained; its grad stays None.
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]
        _by_buckets([loss, *gradients], lambda flat: dist.reduce(flat, 0))
        return loss

    def _broadcast_step(self, number: int) -> None:
        import torch.distributed as dist

        dist.broadcast(torch.tensor(number), 0)


SINGLE_PROCESS = Processes()


@contextlib.contextmanager
def join(device: str) -> Iterator[Processes]:
    """Join the process group that a launcher started this process for, until the context ends.

    Args:
        device: the device of the run's spec. On CUDA each process of a machine uses its own GPU.

    Raises:
        HarnessError: there are fewer GPUs than processes.
    """
    import torch.distributed as dist

    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    local = int(os.environ.get("LOCAL_RANK", "0"))
    on_gpu = device != "cpu" and torch.cuda.is_available()
    if on_gpu:
        if local >= torch.cuda.device_count():
            raise HarnessError(
                f"Process {local} of this machine has no GPU: there are "
                f"{torch.cuda.device_count()}.",
                f"Start at most {torch.cuda.device_count()} processes on each machine.",
            )
        torch.cuda.set_device(local)
    if size > 1:
        # No timeout: a worker waits as long as a probe or an evaluation of the main process takes,
        # and the launcher ends all processes when one dies.
        no_timeout = timedelta(days=365)
        dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=no_timeout)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    # Processes that are started from here on measure alone and must not join the group.
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR"):
        os.environ.pop(name, None)
    processes = Processes(rank, size)
    try:
        yield processes
    finally:
        if size > 1:
            if rank == 0:
                processes.shutdown()
            dist.destroy_process_group()


@torch.no_grad()
def _by_buckets(tensors: Collection[Tensor], collective: Callable[[Tensor], object]) -> None:
    """Apply a collective operation in place to tensors of one device, in buckets."""
    bucket: list[Tensor] = []
    for index, tensor in enumerate(tensors, 1):
        bucket.append(tensor)
        if index < len(tensors) and sum(t.numel() for t in bucket) < _BUCKET_ELEMENTS:
            continue
        flat = torch.cat([t.flatten() for t in bucket])
        collective(flat)
        for part, values in zip(
            bucket, torch.split(flat, [t.numel() for t in bucket]), strict=True
        ):
            part.copy_(values.view_as(part))
        bucket = []
