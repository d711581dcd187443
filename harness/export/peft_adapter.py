"""The LoRA layers of a trained model, as one adapter of PEFT."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import Linear, LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers import PreTrainedModel

from harness.errors import HarnessError

CONFIG = "adapter_config.json"
_MERGED = "Export the merged model: --merged"


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


def require_adapter(model: PreTrainedModel, recipe: str) -> None:
    """Check that everything that a composed model trains is an update that PEFT can hold.

    Args:
        model: the model with its adapters; it may be on the meta device.
        recipe: the recipe, for messages.

    Raises:
        HarnessError: there is no adapter, it is of another kind, or other weights are trained too.
    """
    layers = {name: m for name, m in model.named_modules() if isinstance(m, BaseTunerLayer)}
    if not layers:
        raise HarnessError(
            f"The recipe {recipe} has no adapter of PEFT: it trains weights of the model itself.",
            _MERGED,
        )
    for name, layer in layers.items():
        if type(layer) is not Linear or layer.lora_variant or layer.fan_in_fan_out:
            raise HarnessError(
                f"The recipe {recipe} has an adapter of another kind than plain LoRA of linear "
                f"layers: {type(layer).__name__} at {name}.",
                _MERGED,
            )
    allowed = {f"{name}.base_layer.bias" for name in layers}
    others = [
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and ".lora_" not in name and name not in allowed
    ]
    if others:
        more = ", ..." if len(others) > 2 else ""
        raise HarnessError(
            f"The recipe {recipe} trains {len(others):,} weights beside its adapter, which an "
            f"adapter cannot hold ({', '.join(others[:2])}{more}).",
            _MERGED,
        )


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
def strip(model: PreTrainedModel, stock_names: set[str]) -> PreTrainedModel:
    """Remove the updates from a model, in place, and biases that the plain model lacks.

    Args:
        model: a composed model, not trained yet.
        stock_names: names of the weights of a plain model of that structure.

    Raises:
        HarnessError: such a bias is not zero.
    """
    for name, layer in list(model.named_modules()):
        if not isinstance(layer, LoraLayer):
            continue
        plain = layer.get_base_layer()
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, plain)
        if plain.bias is not None and f"{name}.bias" not in stock_names:
            if not plain.bias.is_meta and plain.bias.any():
                raise HarnessError(
                    f"The recipe adds a bias to {name} that is not zero before training.", _MERGED
                )
            plain.bias = None
    # Left by PEFT; the model would be saved as if it still had adapters.
    vars(model).pop("peft_config", None)
    vars(model).pop("_hf_peft_config_loaded", None)
    return model


@torch.no_grad()
def save_adapter(
    base: PreTrainedModel, updates: Mapping[str, Update], folder: Path, base_name: str
) -> None:
    """Write an adapter as PEFT does.

    Args:
        base: the plain model that the adapter belongs to; it gets the adapter.
        updates: name of a layer -> its update.
        folder: the folder of the adapter.
        base_name: the base's folder or hub id, for PEFT.
    """
    config = _config(updates, base_name)
    base.name_or_path = base_name  # PEFT copies it into the configuration.
    with warnings.catch_warnings():
        # PEFT warns that biases of layers without one cannot be merged, which is why there is this
        # form, and of biases that it takes for incomplete matrices.
        warnings.simplefilter("ignore")
        model = get_peft_model(base, config)
        for name, update in updates.items():
            layer: Any = model.get_base_model().get_submodule(name)
            layer.lora_A["default"].weight.copy_(update.a)
            layer.lora_B["default"].weight.copy_(update.b)
            if config.lora_bias:
                layer.lora_B["default"].bias.copy_(_added_bias(update, layer.get_base_layer()))
        model.save_pretrained(str(folder))
    _sort_sets(folder / CONFIG)


def _added_bias(update: Update, plain: nn.Linear) -> Tensor:
    """Return the bias of the update: the trained bias is base + scaling x this."""
    if update.bias is None:
        return torch.zeros(plain.out_features)
    before = torch.zeros_like(update.bias) if plain.bias is None else plain.bias
    return (update.bias - before) / update.scaling


def _config(updates: Mapping[str, Update], base_name: str) -> LoraConfig:
    """Return the configuration: the most common rank and alpha, and the layers that differ."""
    rank = Counter(update.rank for update in updates.values()).most_common(1)[0][0]
    alpha = Counter(update.alpha for update in updates.values()).most_common(1)[0][0]
    return LoraConfig(
        task_type="SEQ_2_SEQ_LM",
        base_model_name_or_path=base_name,
        r=rank,
        lora_alpha=alpha,
        rank_pattern={name: u.rank for name, u in updates.items() if u.rank != rank},
        alpha_pattern={name: u.alpha for name, u in updates.items() if u.alpha != alpha},
        lora_dropout=max(update.dropout for update in updates.values()),
        bias="none",
        lora_bias=any(update.bias is not None for update in updates.values()),
        target_modules=sorted(updates),
    )


def _sort_sets(path: Path) -> None:
    """Sort the lists that PEFT makes from sets, whose order depends on the process."""
    values = json.loads(path.read_text("utf-8"))
    for name in ("target_modules", "exclude_modules", "modules_to_save"):
        if isinstance(values.get(name), list):
            values[name].sort()
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", "utf-8")
