"""Tensors with a shape, a type and a device but no data: real code runs on them for free.

torch's own FakeTensor does the same for every operator and device there is, at some 0.3 ms an
operator; a step of a large model is 40,000 of them. Here an operator takes 0.03 ms, on its kernel
for the meta device, and what needs a value raises. Unlike plain meta tensors these name the device
that they stand for, so that code which looks at the device, and autocast, do what they would do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from harness.measurement.tensor_tracker import tensors_in
from harness.model.host_draws import fixed_draw


class ShapeTensor(Tensor):
    """A tensor without data; operators work on it while ``ShapesOnly`` is active.

    Attributes:
        meta: the meta tensor whose storage stands for what the data would take.
    """

    meta: Tensor

    @staticmethod
    def __new__(cls, meta: Tensor, device: torch.device) -> ShapeTensor:
        """Wrap a meta tensor."""
        wrapper: ShapeTensor = Tensor._make_wrapper_subclass(
            cls,
            meta.shape,
            strides=meta.stride(),
            storage_offset=meta.storage_offset(),
            dtype=meta.dtype,
            device=device,
        )
        wrapper.meta = meta
        return wrapper

    @property
    def data(self) -> Tensor:
        """The tensor apart from its history."""
        return self.detach()

    @data.setter
    def data(self, new: Tensor) -> None:
        assert isinstance(new, ShapeTensor)
        Tensor.data.__set__(self, new)  # type: ignore[attr-defined]
        self.meta = new.meta

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Refuse: the mode comes first where it is active."""
        raise RuntimeError(f"{func} was called on a tensor without data.")


class ShapesOnly(TorchDispatchMode):
    """While active, operators compute shapes, and new tensors have no data."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.device = device

    def __torch_dispatch__(
        self,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run the operator's kernel for the meta device, but on real tensors alone for real."""
        settled = fixed_draw(func, args)
        if settled is not None:
            return settled
        tensors = list(tensors_in((*args, *(kwargs or {}).values())))
        if tensors and not any(map(_without_data, tensors)):
            return func(*args, **(kwargs or {}))  # A batch and its masks, which code looks at.
        given: dict[int, Tensor] = {}
        named = {name: _down(value, given) for name, value in (kwargs or {}).items()}
        return self._up(func(*_down(args, given), **named), given)

    def adopt(self, model: nn.Module) -> None:
        """Let a skeleton on the meta device stand for a model on this mode's device, in place.

        Tied weights stay tied.
        """
        stand_ins: dict[int, Tensor] = {}

        def stand_in(tensor: Tensor) -> Tensor:
            if id(tensor) not in stand_ins:
                shape = tensor.detach()  # Under this mode.
                if isinstance(tensor, nn.Parameter):
                    shape = nn.Parameter(shape, tensor.requires_grad)
                stand_ins[id(tensor)] = shape
            return stand_ins[id(tensor)]

        with self:
            for module in model.modules():
                for tensors in (module._parameters, module._buffers):
                    for name, tensor in tensors.items():
                        if tensor is not None:
                            tensors[name] = stand_in(tensor)  # type: ignore[assignment]

    def _up(self, value: Any, given: Mapping[int, Tensor]) -> Any:
        if isinstance(value, Tensor):
            # In place and with out=, an operator returns an argument.
            argument = given.get(id(value))
            return ShapeTensor(value, self.device) if argument is None else argument
        if isinstance(value, (list, tuple)):
            return type(value)(self._up(item, given) for item in value)
        return value


def _without_data(tensor: Tensor) -> bool:
    return isinstance(tensor, ShapeTensor) or tensor.is_meta


def _down(value: Any, given: dict[int, Tensor]) -> Any:
    """Return what the meta device's kernel is called with; note in ``given`` what it stands for."""
    # Not a closure: one that calls itself is a cycle, and would keep its tensors alive.
    if isinstance(value, ShapeTensor):
        given[id(value.meta)] = value
        return value.meta
    if isinstance(value, Tensor) and not value.is_meta:
        return value.to("meta")
    if isinstance(value, (list, tuple)):
        return type(value)(_down(item, given) for item in value)
    return torch.device("meta") if isinstance(value, torch.device) else value


def storage_of_shape(tensor: Tensor) -> torch.UntypedStorage:
    """Return the storage that stands for a tensor's data, or is it."""
    return (tensor.meta if isinstance(tensor, ShapeTensor) else tensor).untyped_storage()
