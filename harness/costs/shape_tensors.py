"""Tensors with a shape, a data type and a device but no data; operators compute only shapes.

torch's own FakeTensor does the same for all operators and devices, but takes about 0.3 ms an
operator, and a step of a large model has 40,000 operators. Here an operator takes 0.03 ms, because
it runs its kernel for the meta device; an operator that needs a value raises an error. Unlike plain
meta tensors, these tensors name the device that they stand for. Code that looks at the device, and
autocast, behave as on that device.
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
        meta: the meta tensor; its storage has the size that the data would have.
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
        """The tensor, detached from the graph of gradients."""
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
        """Raise an error; while ``ShapesOnly`` is active it handles operators before this."""
        raise RuntimeError(f"{func} was called on a tensor without data.")


class ShapesOnly(TorchDispatchMode):
    """While active, operators compute shapes, and new tensors have no data."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        if device.type == "cuda" and device.index is None:
            # The backward pass has a queue for each GPU, and none for a GPU without an index.
            device = torch.device(device.type, torch.cuda.current_device())
        self.device = device

    def __torch_dispatch__(
        self,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run the operator's kernel for the meta device, or as it is if all tensors are real."""
        drawn = fixed_draw(func, args)
        if drawn is not None:
            return drawn
        tensors = list(tensors_in((*args, *(kwargs or {}).values())))
        if tensors and not any(map(_without_data, tensors)):
            return func(*args, **(kwargs or {}))  # A batch and its masks, whose values code reads.
        originals: dict[int, Tensor] = {}
        named = {name: _to_meta(value, originals) for name, value in (kwargs or {}).items()}
        return self._from_meta(func(*_to_meta(args, originals), **named), originals)

    def adopt(self, model: nn.Module) -> None:
        """Let a skeleton on the meta device stand for a model on this mode's device, in place.

        Tied weights stay tied.
        """
        stand_ins: dict[int, Tensor] = {}

        def stand_in(tensor: Tensor) -> Tensor:
            if id(tensor) not in stand_ins:
                replacement = tensor.detach()  # Under this mode, which returns a ShapeTensor.
                if isinstance(tensor, nn.Parameter):
                    replacement = nn.Parameter(replacement, tensor.requires_grad)
                stand_ins[id(tensor)] = replacement
            return stand_ins[id(tensor)]

        with self:
            for module in model.modules():
                for tensors in (module._parameters, module._buffers):
                    for name, tensor in tensors.items():
                        if tensor is not None:
                            tensors[name] = stand_in(tensor)  # type: ignore[assignment]

    def _from_meta(self, value: Any, originals: Mapping[int, Tensor]) -> Any:
        """Return a result of the meta device's kernel as tensors of this mode's device."""
        if isinstance(value, Tensor):
            # In place and with out=, an operator returns an argument.
            argument = originals.get(id(value))
            return ShapeTensor(value, self.device) if argument is None else argument
        if isinstance(value, (list, tuple)):
            return type(value)(self._from_meta(item, originals) for item in value)
        return value


def _without_data(tensor: Tensor) -> bool:
    return isinstance(tensor, ShapeTensor) or tensor.is_meta


def _to_meta(value: Any, originals: dict[int, Tensor]) -> Any:
    """Return an argument for the meta device's kernel, and add its tensors to ``originals``.

    Args:
        value: an argument of an operator.
        originals: id of a meta tensor -> the tensor that it was made from.
    """
    # Not a closure: a closure that calls itself is a reference cycle and keeps its tensors alive.
    if isinstance(value, ShapeTensor):
        originals[id(value.meta)] = value
        return value.meta
    if isinstance(value, Tensor) and not value.is_meta:
        return value.to("meta")
    if isinstance(value, (list, tuple)):
        return type(value)(_to_meta(item, originals) for item in value)
    return torch.device("meta") if isinstance(value, torch.device) else value


def storage_of_shape(tensor: Tensor) -> torch.UntypedStorage:
    """Return the storage of a tensor, or of the meta tensor that a ``ShapeTensor`` wraps."""
    return (tensor.meta if isinstance(tensor, ShapeTensor) else tensor).untyped_storage()
