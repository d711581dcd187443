"""Tracker of tensors: bytes that are alive at the peak of a training step, by purpose."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from harness.records.measurements import MemoryParts
from harness.training.engines.loss import head_rows

StorageOf = Callable[[Tensor], torch.UntypedStorage]
PARTS = tuple(MemoryParts.model_fields)


class TensorTracker(TorchDispatchMode):
    """Records, while active, the storage of each tensor that operators return, until it is freed.

    It sees the tensors that operators return, on any device, and not a kernel's own workspace.

    Args:
        held: part -> tensors that exist already. Other arguments of operators count as weights if
            they are floating-point: they are copies of weights in another precision.
        vocabulary: number of outputs of the LM head; floating-point tensors of this width are
            logits or their gradient, those too whose width is that of a head that is filled up.
        storage_of: returns the storage behind a tensor.
    """

    def __init__(
        self,
        held: Mapping[str, Iterable[Tensor]],
        vocabulary: int,
        storage_of: StorageOf = Tensor.untyped_storage,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.part = "activations"
        self._widths = {vocabulary, head_rows(vocabulary)}
        self._storage_of = storage_of
        self._keys: dict[int, int] = {}
        self._parts: list[str] = []
        self._events: list[tuple[int, int]] = []
        for part, tensors in held.items():
            for tensor in tensors:
                self._book(tensor, part)

    def __torch_dispatch__(
        self,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Record the results of an operator, and those arguments that are not recorded yet."""
        for tensor in tensors_in(args):
            self._book(tensor, "weights" if tensor.is_floating_point() else "other")
        result = func(*args, **(kwargs or {}))
        for tensor in tensors_in((result,)):
            wide = tensor.is_floating_point() and tensor.dim() and tensor.shape[-1] in self._widths
            self._book(tensor, "logits" if wide else self.part)
        return result

    def mark_gradients(self, gradients: Iterable[Tensor]) -> None:
        """Count recorded tensors as gradients of weights."""
        for gradient in gradients:
            key = self._keys.get(id(self._storage_of(gradient)))
            if key is not None:
                self._parts[key] = "gradients"

    def peak(self, leaving_out: Sequence[str] = ()) -> dict[str, int]:
        """Return the bytes of each part at the peak, the moment of their largest sum.

        Args:
            leaving_out: parts that do not count; the others are those of their own peak.
        """
        keys, changes = np.array(self._events, dtype=np.int64).reshape(-1, 2).T
        index = {part: number for number, part in enumerate(PARTS)}
        part_of = np.array([index[part] for part in self._parts], dtype=np.int64)[keys]
        changes = np.where(np.isin(part_of, [index[part] for part in leaving_out]), 0, changes)
        end = int(changes.cumsum().argmax()) + 1
        return {
            part: int(changes[:end][part_of[:end] == number].sum())
            for part, number in index.items()
        }

    def _book(self, tensor: Tensor, part: str) -> None:
        storage = self._storage_of(tensor)
        if id(storage) in self._keys:
            return
        key = len(self._parts)
        self._keys[id(storage)] = key
        self._parts.append(part)
        size = storage.nbytes()
        self._events.append((key, size))
        weakref.finalize(storage, self._free, id(storage), size).atexit = False

    def _free(self, identity: int, size: int) -> None:
        self._events.append((self._keys.pop(identity), -size))


def tensors_in(values: Iterable[Any]) -> Iterator[Tensor]:
    """Yield the tensors among an operator's arguments or results, lists included."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from tensors_in(value)
