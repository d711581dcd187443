"""Compressors that each break one promise, and metrics and tasks that do."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from harness import (
    Backbone,
    Batch,
    Compressor,
    Context,
    HarnessError,
    Metric,
    Options,
    Outputs,
    Score,
    Stage,
)


class Nothing(Options):
    """No options."""


class Base(Compressor[Any]):
    """Trains the feed-forward outputs."""

    stage = Stage.ADAPTER
    Options: Any = Nothing
    conflicts = frozenset({Stage.ADAPTER})

    def apply(self, model: Any, backbone: Backbone, context: Context) -> Any:
        model.requires_grad_(False)
        for module in backbone.modules(model, "ffn.out").values():
            module.requires_grad_(True)
        return model


class Frozen(Base):
    """Trains nothing, and does not say so."""

    def apply(self, model: Any, backbone: Backbone, context: Context) -> Any:
        return model.requires_grad_(False)


class Adding(Base):
    """Adds a module to the model."""

    def apply(self, model: Any, backbone: Backbone, context: Context) -> Any:
        super().apply(model, backbone, context)
        model.add_module("extra", self.module(context))
        return model

    def module(self, context: Context) -> nn.Module:
        return nn.Linear(2, 2, device="meta" if context.skeleton else "cpu")


class WithValues(Adding):
    """Has values on a skeleton."""

    def module(self, context: Context) -> nn.Module:
        return nn.Linear(2, 2)


class Unused(Adding):
    """Trains what the loss does not depend on."""


class OwnSeed(Adding):
    """Draws the same numbers whatever the seed."""

    def module(self, context: Context) -> Any:
        module: Any = super().module(context).requires_grad_(False)
        if not context.skeleton:
            module.weight.data.normal_(generator=torch.Generator().manual_seed(1))
            module.bias.data.zero_()
        return module


class NoSeed(Adding):
    """Draws other numbers each time."""

    def module(self, context: Context) -> Any:
        module: Any = super().module(context).requires_grad_(False)
        if not context.skeleton:
            module.bias.data.fill_(random.SystemRandom().random())
        return module


class Forgetful(Base):
    """Counts steps, and does not save the count."""

    def on_train_start(self, model: Any, total_steps: int) -> None:
        self.count = 0

    def on_step(self, model: Any, step: int) -> None:
        self.count += 1
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.mul_(1 - 1e-3 * self.count)


class Remembering(Forgetful):
    """Saves the count."""

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.count = state.get("count", 0)


class Unmerged(Base):
    """Wraps layers and leaves them."""

    def apply(self, model: Any, backbone: Backbone, context: Context) -> Any:
        super().apply(model, backbone, context)
        for path, layer in backbone.modules(model, "self_attn.q").items():
            parent, _, child = path.rpartition(".")
            setattr(model.get_submodule(parent), child, nn.Sequential(layer))
        return model


class Nameless(Base):
    """Refuses to merge without saying its name."""

    def merge(self, model: Any) -> Any:
        raise HarnessError("This cannot be merged.")


class Positional(Base):
    """Adds a loss that depends on padding."""

    def loss(self, model: Any, batch: Batch, outputs: Outputs) -> Tensor:
        return 1e-2 * outputs.cross_entropy * len(batch.tensors)


class Still(Base):
    """Takes the loss away."""

    def loss(self, model: Any, batch: Batch, outputs: Outputs) -> Tensor:
        return -outputs.cross_entropy


class Silent(Base):
    """Freezes what other adapters train, and does not say that it conflicts."""

    stage = Stage.OBJECTIVE
    conflicts = frozenset()


class Crashing(Base):
    """Raises an error of Python for some values of its option."""

    class Options(Options):
        """Options."""

        share: int = 1
        """Divisor of the width."""

    def apply(self, model: Any, backbone: Backbone, context: Context) -> Any:
        model.config.d_model // max(0, 3 - self.options.share)
        return super().apply(model, backbone, context)


class Undocumented(Base):
    """Has an option without a docstring."""

    class Options(Options):
        """Options."""

        size: int = 1


class Words(Metric):
    """Counts words of predictions: less is better, but it says the opposite."""

    names = ("words",)

    def score(
        self, sources: Sequence[str], predictions: Sequence[str], references: Sequence[str]
    ) -> dict[str, Score]:
        pairs = zip(predictions, references, strict=True)
        return {"words": Score.mean([float(p != r) for p, r in pairs], "words")}


class Dividing(Metric):
    """Divides by the number of words."""

    names = ("dividing",)

    def score(
        self, sources: Sequence[str], predictions: Sequence[str], references: Sequence[str]
    ) -> dict[str, Score]:
        return {"dividing": Score.mean([1 / len(p.split()) for p in predictions], "dividing")}


class Ordered(Metric):
    """Depends on the order of the examples."""

    names = ("ordered",)

    def score(
        self, sources: Sequence[str], predictions: Sequence[str], references: Sequence[str]
    ) -> dict[str, Score]:
        values = [float(len(p) * n) for n, p in enumerate(predictions)]
        return {"ordered": Score.mean(values, "ordered")}
