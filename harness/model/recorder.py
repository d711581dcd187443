"""Recording of functions on a GPU as CUDA graphs, which launch all their kernels at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol
from weakref import ReferenceType, ref

import torch


class Recording(Protocol):
    """A recorded function without arguments."""

    def replay(self) -> None:
        """Run it again, on what its tensors hold now."""


Record = Callable[[Callable[[], None]], Recording]


class CudaRecorder:
    """Records functions as CUDA graphs that share their memory."""

    def __init__(self) -> None:
        self._pool: Any = None
        self._graphs: list[ReferenceType[torch.cuda.CUDAGraph]] = []

    def __call__(self, function: Callable[[], None]) -> Recording:
        """Record a function; its kernels do not run."""
        self._graphs = [graph for graph in self._graphs if graph() is not None]
        if not self._graphs:
            # A pool whose graphs are gone takes no other graph while a tensor still lies in it.
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        # Other threads pin memory for the next batches, which only this mode allows.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            function()
        self._graphs.append(ref(graph))
        recording: Recording = graph
        return recording
