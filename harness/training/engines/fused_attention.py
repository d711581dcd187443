"""Attention within the sequences of a packed row by the fused kernels of an accelerator.

On an accelerator an operator's launch costs as much as its arithmetic, so that a loop over
sequences would be slow. Flash attention takes packed rows with the offsets of their sequences, and
supports dropout of the probabilities. It is used for BART and for the cross-attention of T5.

Flash attention does not support a bias of the scores, which T5's self-attention has. If a bias
depends on relative positions only, as T5's does, there are Triton kernels (``biased_attention``).
Where they cannot be used, T5's self-attention is padded inside: its tensors are laid out as
(sequences, longest) for the fused attention that adds a mask. The rest of the layer never sees
padding. In batches of 8 with sources of 130 tokens on average and at most 512, padding makes four
times as many scores.

PyTorch's flex attention could add the bias without padding, but does not support dropout of the
probabilities. T5 is trained with it, and without it this would be a different training.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from harness.training.engines.biased_attention import attention_with_bias, takes_bias
from harness.training.engines.rows import PackedRow

_WIDTHS = 8
"""Flash attention takes heads whose width is a multiple of this."""
_WIDEST = 192
"""Flash attention takes heads up to this width: wider heads with dropout have no backward pass on
some GPUs."""


def takes_rows(dtype: torch.dtype, device: torch.device) -> bool:
    """Return whether flash attention is available: on an NVIDIA GPU since Ampere, in 16 bits."""
    return dtype in (torch.bfloat16, torch.float16) and _has_flash(device)


@cache
def _has_flash(device: torch.device) -> bool:
    return (
        device.type == "cuda"
        and torch.backends.cuda.is_flash_attention_available()
        and torch.cuda.get_device_capability(device) >= (8, 0)
    )


def without_cudnn_attention() -> None:
    """Exclude cuDNN from the kernels that PyTorch chooses from for fused attention.

    PyTorch uses cuDNN for masked attention in half precision on recent GPUs, except where the mask
    requires a gradient. T5's bias requires one in ``full`` and not with LoRA, so that recipes would
    be compared on different kernels. cuDNN also plans anew for each shape, and lengths vary with
    each step.
    """
    torch.backends.cuda.enable_cudnn_sdp(False)


def fused_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    queries: PackedRow,
    keys: PackedRow,
    scaling: float,
    p: float,
    causal: bool,
    relative: bool = False,
) -> Tensor:
    """Attend within each sequence: by the first way that supports the inputs.

    They are flash attention, Triton kernels for a relative bias, and padding.

    Args:
        query: shape (heads, query tokens, width).
        key: shape (heads, key tokens, width).
        value: shape (heads, key tokens, width).
        bias: added to the scores; shape (1, heads, longest query, longest key).
        queries: the row that the queries belong to.
        keys: the row that the keys belong to.
        scaling: the factor of the scores.
        p: the probability of dropping an attention probability.
        causal: hide later keys.
        relative: an element of the bias depends on key position minus query position only.

    Returns:
        The output, of shape (query tokens, heads, width).
    """
    q, k, v = (t.transpose(0, 1) for t in (query, key, value))
    if bias is None and q.shape[-1] <= _WIDEST and takes_rows(q.dtype, q.device):
        return flash_within(q, k, v, queries, keys, scaling, p, causal)
    if bias is not None and relative and takes_bias(q.dtype, q.device, q.shape[-1]):
        return attention_with_bias(q, k, v, bias, queries, scaling, p, causal)
    return padded_within(q, k, v, bias, queries, keys, scaling, p, causal)


def flash_within(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    queries: PackedRow,
    keys: PackedRow,
    scaling: float,
    p: float,
    causal: bool,
) -> Tensor:
    """Attend within each sequence by flash attention; see ``fused_attention`` for the arguments.

    Tensors have the shape (tokens, heads, width). ``torch.nn.attention.varlen`` wraps the same
    operator without its dropout.
    """
    width = query.shape[-1]
    if width % _WIDTHS:
        query, key, value = (F.pad(t, (0, -width % _WIDTHS)) for t in (query, key, value))
    result: Tensor = torch.ops.aten._flash_attention_forward(
        query,
        key,
        value,
        queries.offsets,
        keys.offsets,
        queries.longest,
        keys.longest,
        p,
        causal,
        False,  # Do not return the probabilities.
        scale=scaling,
    )[0]
    return result[..., :width]


def padded_within(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    queries: PackedRow,
    keys: PackedRow,
    scaling: float,
    p: float,
    causal: bool,
) -> Tensor:
    """Attend within each sequence on padded copies; see ``fused_attention`` for the arguments.

    Tensors have the shape (tokens, heads, width).
    """
    if queries is keys:
        padded = queries.padded(query, key, value)
    else:
        padded = (*queries.padded(query), *keys.padded(key, value))
    q, k, v = (t.transpose(1, 2) for t in padded)
    mask = keys.mask(bias, causal, q.dtype, queries).expand(-1, -1, queries.width, -1)
    result = F.scaled_dot_product_attention(q, k, v, mask, dropout_p=p, scale=scaling)
    return queries.packed(result.transpose(1, 2))
