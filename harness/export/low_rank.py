"""Plain LoRA of a trained model, as one adapter of PEFT, however many adapters there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from peft import LoraConfig, PeftModel
from peft.tuners.lora import Linear, LoraLayer
from torch import Tensor, nn
from transformers import PreTrainedModel


class Update(NamedTuple):
    """Low-rank update of one layer: it adds ``scaling * (B A x + bias)``.

    Attributes:
        a: the first factor, rank x inputs.
        b: the second factor, outputs x rank.
        scaling: alpha / rank.
        dropout: dropout probability of its input in training.
        bias: the layer's whole trained bias; None if its bias was not trained.
    """

    a: Tensor
    b: Tensor
    scaling: float
    dropout: float
    bias: Tensor | None

    @property
    def rank(self) -> int:
        """Return the rank."""
        return len(self.a)

    @property
    def alpha(self) -> float:
        """Return the scaling as PEFT stores it."""
        alpha = self.scaling * self.rank
        return int(alpha) if alpha == int(alpha) else alpha


def is_plain(layer: nn.Module) -> bool:
    """Return whether a layer of PEFT is LoRA of a linear layer, without a variant."""
    return type(layer) is Linear and not layer.lora_variant and not layer.fan_in_fan_out


@torch.no_grad()
def read_updates(model: PreTrainedModel) -> dict[str, Update]:
    """Return the update of each adapted layer; several adapters of one layer become one."""
    updates = {}
    for name, layer in model.named_modules():
        if not isinstance(layer, LoraLayer):
            continue
        adapters = [key for key in layer.active_adapters if key in layer.lora_A]
        a = [layer.lora_A[key].weight.detach() for key in adapters]
        b = [layer.lora_B[key].weight.detach() for key in adapters]
        scalings = [layer.scaling[key] for key in adapters]
        bias = layer.get_base_layer().bias
        trained = bias.detach().clone() if bias is not None and bias.requires_grad else None
        if len(adapters) > 1:
            b = [weight * scaling for weight, scaling in zip(b, scalings, strict=True)]
            scalings = [1.0]
        dropout = max(getattr(layer.lora_dropout[key], "p", 0.0) for key in adapters)
        updates[name] = Update(torch.cat(a), torch.cat(b, 1), scalings[0], dropout, trained)
    return updates


@torch.no_grad()
def fill(model: PeftModel, updates: Mapping[str, Update]) -> None:
    """Copy updates into the adapter of a model that was made with ``low_rank_config``.

    Args:
        model: the base with a new adapter.
        updates: name of a layer -> its update.
    """
    for name, update in updates.items():
        layer: Any = model.get_base_model().get_submodule(name)
        layer.lora_A["default"].weight.copy_(update.a)
        layer.lora_B["default"].weight.copy_(update.b)
        if layer.lora_bias["default"]:
            layer.lora_B["default"].bias.copy_(_added_bias(update, layer.get_base_layer()))


def _added_bias(update: Update, plain: nn.Linear) -> Tensor:
    """Return the bias of the update: the trained bias is base + scaling x this."""
    if update.bias is None:
        return torch.zeros(plain.out_features)
    before = torch.zeros_like(update.bias) if plain.bias is None else plain.bias
    return (update.bias - before) / update.scaling


def low_rank_config(updates: Mapping[str, Update]) -> LoraConfig:
    """Return the configuration: the most common rank and alpha, and the layers that differ."""
    rank = Counter(update.rank for update in updates.values()).most_common(1)[0][0]
    alpha = Counter(update.alpha for update in updates.values()).most_common(1)[0][0]
    return LoraConfig(
        task_type="SEQ_2_SEQ_LM",
        r=rank,
        lora_alpha=alpha,
        rank_pattern={name: u.rank for name, u in updates.items() if u.rank != rank},
        alpha_pattern={name: u.alpha for name, u in updates.items() if u.alpha != alpha},
        lora_dropout=max(update.dropout for update in updates.values()),
        bias="none",
        lora_bias=any(update.bias is not None for update in updates.values()),
        target_modules=sorted(updates),
    )
