"""Counts the kernels that a step launches on a CUDA device; an operator that waits is an error.

Each operator counts as the kernels that PyTorch's CUDA code launches for it. Most launch one kernel
and views none; the tables below list the others. A copy between processor and device counts as one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from demands import demand, demand_spread
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_NO_KERNEL = {
    "aten::_unsafe_view",
    "aten::empty",
    "aten::empty_like",
    "aten::empty_strided",
    "aten::is_pinned",
    "aten::lift_fresh",
    "aten::new_empty",
    "aten::new_empty_strided",
    "aten::set_",
    "prim::device",
}
_WAITS = {"aten::_local_scalar_dense", "aten::nonzero", "aten::item", "aten::equal"}
_KERNELS = {
    # Fills zeros, then one kernel for up to 3,072 indices.
    "aten::embedding_dense_backward": 2,
    # Sums of products, the gradients, and the rounding of the query's gradient.
    "aten::_flash_attention_backward": 3,
    "aten::_scaled_dot_product_flash_attention_backward": 3,
    # Fills zeros, then copies into them.
    "aten::select_backward": 2,
    "aten::slice_backward": 2,
    # Sums the lengths, then copies.
    "aten::repeat_interleave": 2,
}
_LIST_LIMITS = (110, 64, 48, 36, 30)
"""Tensors per kernel of a foreach operator that takes 1, 2, ... lists."""
_BLOCKS = 320
_CHUNK = 65_536
"""Elements per block of such a kernel; ``_BLOCKS`` is the number of blocks per kernel."""
_LISTS = {
    "aten::_fused_adamw_": (0, 1, 2, 3),
    "aten::_foreach_copy_": (0, 1),
}
"""Arguments of an operator that its kernels take together; by default every list of tensors."""
PARTS = {
    "products": ("mm", "linear"),
    "attention": ("attention", "softmax"),
    "backward pass": ("backward",),
    "clipping": ("norm",),
    "optimizer": ("adam",),
}
"""Part of a step -> words, one of which is in the names of its operators."""


class LaunchCounter(TorchDispatchMode):
    """Counts kernels by operator while it is active.

    Attributes:
        launches: operator -> kernels.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.launches: Counter[str] = Counter()

    @property
    def total(self) -> int:
        """Kernels of all operators."""
        return self.launches.total()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator and count its kernels.

        Raises:
            RuntimeError: the operator would make the processor wait for the device.
        """
        kwargs = kwargs or {}
        name = func._schema.name
        before = _devices((args, kwargs))
        if "cuda" in before and (name in _WAITS or _is_masked_index(name, args)):
            raise RuntimeError(f"{name} waits for the device.")
        result = func(*args, **kwargs)
        if name == "prim::device":
            return result
        devices = before | _devices(result)
        if "cuda" in devices:
            if len(devices) > 1 and _is_blocking_copy(name, args, kwargs):
                raise RuntimeError(f"{name} between {sorted(devices)} waits for the device.")
            self.launches[name.removeprefix("aten::")] += _kernels(func, args)
        return result


def _is_masked_index(name: str, args: Any) -> bool:
    """Return whether the index is a mask: the size of the result must be read from the device."""
    return name in ("aten::index", "aten::index_put", "aten::index_put_") and any(
        t is not None and t.dtype in (torch.bool, torch.uint8) for t in args[1]
    )


def _is_blocking_copy(name: str, args: Any, kwargs: Any) -> bool:
    if name == "aten::_to_copy":
        return not kwargs.get("non_blocking", False)
    if name == "aten::copy_":
        return not kwargs.get("non_blocking", args[2] if len(args) > 2 else False)
    return False


def _devices(tree: Any) -> set[str]:
    return {leaf.device.type for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)}


def _kernels(func: Any, args: Any) -> int:
    name = func._schema.name
    if name in _NO_KERNEL or _is_view(func):
        return 0
    if name.startswith(("aten::_foreach_", "aten::_fused_adam")):
        return _of_lists(name, args)
    if name == "aten::addmm" and args[0].dim() > 1:
        return 2  # A matrix summand is copied to the result first; a bias is added by the product.
    if name in ("aten::native_layer_norm_backward", "fake_cuda::rms_norm_backward"):
        # The gradient of the input, and the gradients of weight and bias in one kernel, as an H200
        # showed for PyTorch 2.11.
        trained = args[-1] if isinstance(args[-1], bool) else args[-1][1]
        return 2 if trained else 1
    if name == "harness::biased_attention_backward":
        # Gradients of queries, those of keys and values, and zeros that the bias's are added to.
        return 2 + bool(args[-1])
    return math.ceil(len(args[0]) / 128) if name == "aten::cat" else _KERNELS.get(name, 1)


def _is_view(func: Any) -> bool:
    returns = func._schema.returns
    return bool(returns) and all(r.alias_info and not r.alias_info.is_write for r in returns)


def _of_lists(name: str, args: Any) -> int:
    places = _LISTS.get(name, range(len(args)))
    lists = [args[i] for i in places if i < len(args) and _is_list(args[i])]
    if name == "aten::_foreach_copy_" and any(
        a.shape != b.shape or a.stride() != b.stride() for a, b in zip(*lists, strict=True)
    ):
        return len(lists[0])  # One by one.
    # The results are a list too; norms are written to one tensor.
    depth = len(lists) + (not name.endswith(("_", "norm")))
    kernels = tensors = blocks = 0
    for tensor in lists[0]:
        chunks = max(1, math.ceil(tensor.numel() / _CHUNK))
        tensors += 1
        while chunks:
            taken = min(chunks, _BLOCKS - blocks)
            chunks -= taken
            blocks += taken
            full = tensors == _LIST_LIMITS[depth - 1] and not chunks
            if full or blocks == _BLOCKS:
                kernels, blocks = kernels + 1, 0
                tensors = 1 if chunks else 0
    kernels += blocks > 0
    # Zeros, then partial norms, then the norms.
    return kernels + 2 * (name == "aten::_foreach_norm")


def _is_list(argument: Any) -> bool:
    return isinstance(argument, Sequence) and bool(argument) and isinstance(argument[0], Tensor)


def check_step(launches: Mapping[str, int], lengths: Sequence[int]) -> None:
    """Fail if lengths do not vary, or a part of the step launches nothing.

    Args:
        launches: operator -> kernels.
        lengths: lengths of the sources.
    """
    demand_spread(lengths, "sources")
    for part, words in PARTS.items():
        there = any(word in name for name in launches for word in words)
        demand(there, f"no kernel of the {part} among {len(launches)} operators")
