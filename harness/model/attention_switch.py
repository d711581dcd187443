"""A context that changes a model's attention implementation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from transformers import PreTrainedModel


@contextmanager
def attention_implementation(model: PreTrainedModel, name: str) -> Iterator[None]:
    """Let every part of a model use a registered attention implementation; then restore its own.

    T5's stacks hold configurations of their own, which ``set_attn_implementation`` of some versions
    of transformers skips: it assumes that a part shares the model's configuration if both are of
    the same class.
    """
    parts = [part for part in model.modules() if isinstance(part, PreTrainedModel)]
    configs = {id(part.config): part.config for part in parts}.values()
    before = [config._attn_implementation for config in configs]
    for config in configs:
        config._attn_implementation = name
    try:
        yield
    finally:
        for config, own in zip(configs, before, strict=True):
            config._attn_implementation = own
