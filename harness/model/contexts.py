"""Contexts for compressors where there is no run: skeletons, and models of a script."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from harness.api.context import Context

if TYPE_CHECKING:
    import torch
    from transformers import BatchEncoding, PreTrainedModel

    from harness.api.backbone import Backbone

_SIZE = 8
_SOURCE, _TARGET = 128, 64
"""Examples in a synthetic batch, and tokens of their sources and targets."""


def skeleton_context(backbone: Backbone, seed: int = 0) -> Context:
    """Return the context for a skeleton of the backbone; its calibration batches have no values.

    Args:
        backbone: the backbone that the skeleton came from.
        seed: the seed of the run that the skeleton stands for.
    """
    import torch

    meta = torch.device("meta")
    return Context(
        device=meta,
        dtype=torch.float32,
        skeleton=True,
        seed=seed,
        synthetic=True,
        read_batches=lambda examples: synthetic_batches(backbone, examples, meta, seed),
        load_original=backbone.skeleton,
    )


def default_context(model: PreTrainedModel, backbone: Backbone) -> Context:
    """Return the context for a model outside a run: random tokens and pre-trained weights."""
    import torch

    device = next(model.parameters()).device
    if device.type == "meta":
        return skeleton_context(backbone)
    return Context(
        device=device,
        dtype=torch.float32,
        skeleton=False,
        seed=0,
        synthetic=True,
        read_batches=lambda examples: synthetic_batches(backbone, examples, torch.device("cpu"), 0),
        load_original=lambda: backbone.load("pretrained"),
    )


def synthetic_batches(
    backbone: Backbone, examples: int, device: torch.device, seed: int
) -> list[BatchEncoding]:
    """Return batches of random tokens, which are all of one length; on meta without values.

    Args:
        backbone: provides the size of the vocabulary and the longest sequence.
        examples: number of examples in all batches together.
        device: the device of the tensors.
        seed: seeds the tokens.
    """
    import torch
    from transformers import BatchEncoding

    limit = backbone.longest_sequence() or _SOURCE
    vocabulary = backbone.config().vocab_size
    generator = torch.Generator().manual_seed(seed)

    def tokens(count: int, length: int) -> torch.Tensor:
        # The lowest ids are special tokens in every model family.
        shape = (count, min(length, limit))
        return torch.randint(10, vocabulary, shape, generator=generator).to(device)

    batches = []
    for start in range(0, examples, _SIZE):
        count = min(_SIZE, examples - start)
        sources, labels = tokens(count, _SOURCE), tokens(count, _TARGET)
        mask = torch.ones_like(sources)
        batches.append(
            BatchEncoding({"input_ids": sources, "attention_mask": mask, "labels": labels})
        )
    return batches


@contextmanager
def preserved_random_state() -> Iterator[None]:
    """Restore all global random generators afterwards."""
    import torch

    python, numpy_state = random.getstate(), np.random.get_state()
    cuda = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    try:
        with torch.random.fork_rng(devices=cuda):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy_state)
