"""CUDA tensors without data on a machine without a GPU: a whole training step runs on them.

``load_guard`` comes before the first ``import torch`` of a process, ``pretend`` after it.
"""

import ctypes
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import mock


def load_guard() -> None:
    """Compile the device guard with g++ and load it; takes some seconds.

    Raises:
        RuntimeError: torch was imported before.
        OSError: there is no g++.
        subprocess.CalledProcessError: g++ failed.
    """
    if "torch" in sys.modules:
        raise RuntimeError("The guard must be loaded before torch is imported.")
    spec = find_spec("torch")
    assert spec is not None
    assert spec.submodule_search_locations
    torch = Path(spec.submodule_search_locations[0])
    source = Path(__file__).with_name("guard.cpp")
    for name in ("libc10.so", "libtorch_cpu.so"):
        ctypes.CDLL(str(torch / "lib" / name), mode=ctypes.RTLD_GLOBAL)
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "guard.so"
        command = ["g++", "-shared", "-fPIC", "-std=c++20", "-I", str(torch / "include")]
        subprocess.run([*command, str(source), "-o", str(library)], check=True)
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)


@contextmanager
def pretend() -> Iterator[None]:
    """Let torch and the harness find one recent CUDA device, whose tensors are fake.

    A build for the CPU has no table of the kernels from which torch chooses an attention; what a
    recent card would choose is called directly.
    """
    import torch
    from torch._subclasses import FakeTensor, FakeTensorMode
    from torch.nn import functional
    from torch.utils import _foreach_utils

    from harness.training.engines import biased_attention, fused_attention

    yes, no = (lambda *_, **__: True), (lambda *_, **__: False)
    lists = _foreach_utils._foreach_supported_types
    with (
        mock.patch.object(torch.cuda, "is_available", yes),
        mock.patch.object(torch.cuda, "is_bf16_supported", yes),
        mock.patch.object(torch.cuda, "is_current_stream_capturing", no),
        mock.patch.object(torch.cuda.amp.common, "amp_definitely_not_available", no),
        mock.patch.object(torch.Tensor, "pin_memory", lambda tensor, *_: tensor),
        mock.patch.object(functional, "scaled_dot_product_attention", _attention),
        mock.patch.object(functional, "rms_norm", _rms_norm),
        mock.patch.object(_foreach_utils, "_foreach_supported_types", [FakeTensor, *lists]),
        mock.patch.object(fused_attention, "_has_flash", yes),
        mock.patch.object(biased_attention, "_failure", return_value=None),
        FakeTensorMode(allow_non_fake_inputs=True),
    ):
        yield


def move(model: Any) -> None:
    """Give a model on the meta device parameters and buffers on the fake one; ties stay."""
    import torch

    moved: dict[int, Any] = {}
    for module in model.modules():
        for held in (module._parameters, module._buffers):
            for name, tensor in held.items():
                if tensor is None:
                    continue
                if id(tensor) not in moved:
                    new = torch.empty_like(tensor, device="cuda")
                    if isinstance(tensor, torch.nn.Parameter):
                        new = torch.nn.Parameter(new, tensor.requires_grad)
                    moved[id(tensor)] = new
                held[name] = moved[id(tensor)]
    # It is there; torch would exchange tensors that others hold already, and refuse.
    model.to = lambda *_, **__: model


def _attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    **_: Any,
) -> Any:
    """Call what PyTorch chooses on a recent card with cuDNN's attention turned off."""
    import torch

    if torch.is_autocast_enabled("cuda"):
        dtype = torch.get_autocast_dtype("cuda")
        query, key, value = (t.to(dtype) for t in (query, key, value))
        attn_mask = None if attn_mask is None else attn_mask.to(dtype)
    if attn_mask is None and query.dtype != torch.float32:
        flash = torch.ops.aten._scaled_dot_product_flash_attention
        return flash(query, key, value, dropout_p, is_causal, False, scale=scale)[0]
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:
            attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype).masked_fill_(
                ~attn_mask, -torch.inf
            )
        attn_mask = attn_mask.expand(*query.shape[:-1], key.shape[-2])
    efficient = torch.ops.aten._scaled_dot_product_efficient_attention
    needs_gradient = query.requires_grad or key.requires_grad or value.requires_grad
    return efficient(
        query, key, value, attn_mask, needs_gradient, dropout_p, is_causal, scale=scale
    )[0]


def _rms_norm(x: Any, shape: Any, weight: Any, eps: float) -> Any:
    """Norm by one operator each way, as a card has it; a build for the CPU would write it out."""
    return _rms_norm_operator()(x, weight)


@cache
def _rms_norm_operator() -> Any:
    import torch

    library = torch.library

    def forward(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return torch.empty_like(x)

    def backward(
        gradient: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, trained: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.empty_like(x), torch.empty_like(weight)

    def keep(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)

    def differentiate(ctx: Any, gradient: Any) -> Any:
        x, weight = ctx.saved_tensors
        trained = ctx.needs_input_grad[1]
        grad_x, grad_weight = backwards(gradient, x, weight, trained)
        return grad_x, grad_weight if trained else None

    forwards = library.custom_op("fake_cuda::rms_norm", forward, mutates_args=())
    backwards = library.custom_op("fake_cuda::rms_norm_backward", backward, mutates_args=())
    forwards.register_fake(forward)
    backwards.register_fake(backward)
    forwards.register_autograd(differentiate, setup_context=keep)
    return forwards
