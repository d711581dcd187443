"""Several processes that take the steps of one training together, each on a device of its own.

The first process is the run: it measures, holds the optimizer, evaluates and writes. The others
follow: for each step they are given the trained weights, compute the gradient of their share of the
step's examples, and send it back as part of a sum. Between steps they sleep in a read. They keep
nothing from step to step, so that a run in several processes is stopped and goes on like any other.

The sum is over all target tokens of the step: loss and gradient are those of one process, whatever
the number of processes, but for the order of floating-point additions and for dropout, which each
process draws by itself.
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

from harness.errors import HarnessError, OutOfMemoryError, is_out_of_memory
from harness.training.schedule import Step

_BUCKET_ELEMENTS = 2**24
"""Sent at once: many small tensors cost their latency, one large buffer its memory."""
_MESSAGE_BYTES = 512
_STOP = -1


@dataclass(frozen=True)
class Processes:
    """A group of processes, as one of them sees it; alone by default.

    Attributes:
        rank: this process; 0 is the one that runs, writes and speaks.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    def share(self, step: Step) -> Step:
        """Return this process's examples of a step, in micro-batches no larger than the step's.

        The shares of all processes hold each example once. A share is empty if there are fewer
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
        """Let the others get ready for the steps from ``first`` on, and wait until they are.

        Raises:
            OutOfMemoryError: one of them ran out of memory.
            RuntimeError: one of them cannot.
        """
        if self.size > 1:
            self._tell(first)
            self.raise_if_any_failed(None)

    def step(
        self, number: int, trained: Collection[nn.Parameter], backward: Callable[[], Tensor]
    ) -> Tensor:
        """Compute the loss and the gradients of a step together.

        Args:
            number: of the step, from 0; the others are told to take it.
            trained: parameters with the same shapes in all processes. The others get the values of
                the first; the first gets the gradients of all.
            backward: leaves the gradients of this process's share, and returns its loss.

        Returns:
            The loss, in the first process that of the whole step.

        Raises:
            BaseException: what ``backward`` raised here, or what ``raise_if_any_failed`` raises.
        """
        if self.size == 1:
            return backward()
        if self.rank == 0:
            self._tell(number)
        return self._together(trained, backward)

    def run_worker(
        self,
        seed: int,
        trained: Collection[nn.Parameter],
        backwards: Iterator[Callable[[], Tensor]],
    ) -> None:
        """Take part in the first process's steps until it has no more.

        Args:
            seed: of the run.
            trained: as for ``step``.
            backwards: as for ``step``, one for every step.
        """
        while (number := self.receive_step()) != _STOP:
            backward = next(backwards)
            # By step: a run that was resumed draws the same masks.
            state = np.random.SeedSequence([seed, self.rank, number]).generate_state(1, np.uint64)
            torch.manual_seed(int(state[0]))
            self._together(trained, backward)
            for parameter in trained:
                parameter.grad = None

    def receive_step(self) -> int:
        """Wait for the number of the next step, negative if there is none."""
        import torch.distributed as dist

        number = torch.empty((), dtype=torch.int64)
        dist.broadcast(number, 0)
        return int(number)

    def raise_if_any_failed(self, error: BaseException | None) -> None:
        """Go on together, or fail together.

        Args:
            error: why this process cannot go on; raised here.

        Raises:
            OutOfMemoryError: another process ran out of memory.
            RuntimeError: another process cannot go on; says why.
        """
        import torch.distributed as dist

        said = torch.zeros(_MESSAGE_BYTES, dtype=torch.uint8)
        if error is not None:
            kind = b"m" if is_out_of_memory(error) else b"e"
            text = str(error).partition("\n")[0] or type(error).__name__
            data = (kind + text.encode())[:_MESSAGE_BYTES]
            said[: len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        heard = [torch.empty_like(said) for _ in range(self.size)]
        dist.all_gather(heard, said)
        if error is not None:
            raise error
        for rank, message in enumerate(heard):
            data = bytes(message.tolist()).rstrip(b"\0")
            if data:
                text = f"Process {rank}: {data[1:].decode(errors='ignore')}"
                raise OutOfMemoryError(text) if data[:1] == b"m" else RuntimeError(text)

    def shutdown(self) -> None:
        """Let the others end."""
        # One that has died already cannot hear it.
        with contextlib.suppress(RuntimeError):
            self._tell(_STOP)

    def _together(
        self, trained: Collection[nn.Parameter], backward: Callable[[], Tensor]
    ) -> Tensor:
        import torch.distributed as dist

        _by_buckets([p.detach() for p in trained], lambda flat: dist.broadcast(flat, 0))
        error: BaseException | None = None
        loss = torch.zeros(())
        try:
            loss = backward()
        except BaseException as raised:  # The others must know before they wait for the sum.
            error = raised
        self.raise_if_any_failed(error)
        # A process may have no examples, hence no gradients. What even the first has none of stays
        # without: it is not trained.
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]
        _by_buckets([loss, *gradients], lambda flat: dist.reduce(flat, 0))
        return loss

    def _tell(self, number: int) -> None:
        import torch.distributed as dist

        dist.broadcast(torch.tensor(number), 0)


SINGLE_PROCESS = Processes()


@contextlib.contextmanager
def join(device: str) -> Iterator[Processes]:
    """Join the group that a launcher started this process for, until the context is left.

    Args:
        device: of the run's spec; each process of a machine takes a GPU of its own.

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
                f"Start at most {torch.cuda.device_count()} processes a machine.",
            )
        torch.cuda.set_device(local)
    if size > 1:
        # The launcher ends all processes when one dies; otherwise a wait is as long as a probe or
        # an evaluation of the first process.
        forever = timedelta(days=365)
        dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=forever)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    # From here on nobody else needs to know: least of all the processes that measure alone.
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
    """Apply a collective operation to tensors of one device in place, many at a time."""
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
