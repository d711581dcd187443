"""The adapter of a trained model, as PEFT writes and reads it."""

from __future__ import annotations

import copy
import json
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers import PreTrainedModel

from harness.api.recipe import Recipe
from harness.errors import HarnessError
from harness.export.low_rank import Update, fill, is_plain, low_rank_config, read_updates

CONFIG = "adapter_config.json"
MERGED = "Export the merged model: --merged"


class PeftAdapter(ABC):
    """An adapter that PEFT can hold, read from a composed model.

    Args:
        config: its configuration; it is copied.
    """

    def __init__(self, config: PeftConfig) -> None:
        self.config = copy.deepcopy(config)

    @abstractmethod
    def holds(self, parameter: str) -> bool:
        """Return whether a parameter of the composed model is part of the adapter."""

    @abstractmethod
    def fill(self, model: PeftModel) -> None:
        """Copy the trained values into the base with a new adapter of this configuration."""

    def base_recipe(self, recipe: Recipe) -> Recipe:
        """Return the recipe of its base, from which layers of PEFT are then removed."""
        return recipe

    @torch.no_grad()
    def save(self, base: PreTrainedModel, folder: Path, base_name: str) -> None:
        """Write the adapter.

        Args:
            base: the plain model that the adapter belongs to; it gets the adapter.
            folder: the folder of the adapter.
            base_name: the base's folder or hub id, for PEFT.
        """
        base.name_or_path = base_name  # PEFT copies it into the configuration.
        with warnings.catch_warnings():
            # PEFT warns that biases of layers without one cannot be merged, which is why there is
            # this form, and of biases that it takes for incomplete matrices.
            warnings.simplefilter("ignore")
            model = get_peft_model(base, self.config)
            self.fill(model)
            # The base has the embedding already, also one of another size.
            model.save_pretrained(str(folder), save_embedding_layers=False)
        _sort_sets(folder / CONFIG, self.config)


class LowRank(PeftAdapter):
    """Plain LoRA, with the biases of its layers."""

    def __init__(self, updates: Mapping[str, Update]) -> None:
        super().__init__(low_rank_config(updates))
        self.updates = updates

    def holds(self, parameter: str) -> bool:
        """Return whether it is a factor, or a bias of an adapted layer."""
        layer, _, bias = parameter.partition(".base_layer.")
        return ".lora_" in parameter or (layer in self.updates and bias == "bias")

    def fill(self, model: PeftModel) -> None:
        """Copy factors and biases."""
        fill(model, self.updates)


class Layers(PeftAdapter):
    """Layers of one method of PEFT, whatever the method.

    Args:
        name: name of the adapter in the composed model.
        config: its configuration.
        layers: qualified name -> layer.
    """

    def __init__(self, name: str, config: PeftConfig, layers: Mapping[str, BaseTunerLayer]) -> None:
        super().__init__(config)
        if isinstance(self.config, LoraConfig):
            # The base has the weights that other first factors left; they must not change again.
            self.config = replace(self.config, init_lora_weights=True, loftq_config={})
        self.weights = {path: _own_weights(layer, name) for path, layer in layers.items()}
        self.indices = {path: _indices(layer, name) for path, layer in layers.items()}

    def holds(self, parameter: str) -> bool:
        """Return whether it belongs to a layer of PEFT and not to the layer inside."""
        layers = (path for path in self.weights if parameter.startswith(f"{path}."))
        return any(not parameter.startswith(f"{path}.base_layer.") for path in layers)

    def fill(self, model: PeftModel) -> None:
        """Copy all that the layers have beside the layer inside."""
        base = model.get_base_model()
        for path, weights in self.weights.items():
            layer: Any = base.get_submodule(path)
            assert _own_weights(layer, "default").keys() == weights.keys(), path
            layer.load_state_dict(weights, strict=False)
            for attribute, indices in self.indices[path].items():
                getattr(layer, attribute)["default"] = indices


class VirtualTokens(PeftAdapter):
    """Trained vectors of a prompt, which no layer of the base holds.

    Args:
        name: name of the compressor, and of the model's module that is PEFT's prompt encoder.
        config: its configuration.
        encoder: that module.
    """

    def __init__(self, name: str, config: PeftConfig, encoder: nn.Module) -> None:
        super().__init__(config)
        self.name = name
        self.weights = encoder.state_dict()

    def holds(self, parameter: str) -> bool:
        """Return whether it belongs to the prompt encoder."""
        return parameter.startswith(f"{self.name}.")

    def fill(self, model: PeftModel) -> None:
        """Copy the prompt encoder; PEFT saves the vectors that it makes."""
        model.prompt_encoder["default"].load_state_dict(self.weights)

    def base_recipe(self, recipe: Recipe) -> Recipe:
        """Return the recipe without the virtual tokens."""
        return Recipe(tuple(c for c in recipe.compressors if c.name != self.name))


def find_adapter(model: PreTrainedModel, recipe: Recipe) -> PeftAdapter:
    """Return the adapter of a composed model.

    Args:
        model: the model with its adapters; it may be on the meta device.
        recipe: the recipe that it was composed with.

    Raises:
        HarnessError: PEFT has no format for what the recipe trains.
    """
    layers = {name: m for name, m in model.named_modules() if isinstance(m, BaseTunerLayer)}
    named = {c.name: c.peft_config(model) for c in recipe.compressors}
    configs = {name: config for name, config in named.items() if config is not None}
    adapter: PeftAdapter
    if layers and all(is_plain(layer) for layer in layers.values()):
        adapter = LowRank(read_updates(model))
    elif not configs:
        raise HarnessError(f"The recipe {recipe} has no adapter in the format of PEFT.", MERGED)
    elif len(configs) > 1:
        raise HarnessError(
            f"The recipe {recipe} has {len(configs)} adapters, which PEFT can hold as one only if "
            "all are plain LoRA.",
            MERGED,
        )
    else:
        ((name, config),) = configs.items()
        prompt = config.is_prompt_learning
        adapter = (
            VirtualTokens(name, config, model.get_submodule(name))
            if prompt
            else Layers(name, config, layers)
        )
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    others = [name for name in trained if not adapter.holds(name)]
    if others:
        more = ", ..." if len(others) > 2 else ""
        raise HarnessError(
            f"The recipe {recipe} trains {len(others):,} weights beside its adapter, which an "
            f"adapter cannot hold ({', '.join(others[:2])}{more}).",
            MERGED,
        )
    return adapter


def _own_weights(layer: Any, name: str) -> dict[str, Tensor]:
    """Return the weights of an adapter in a layer, under PEFT's own name of the adapter."""
    return {
        ".".join("default" if part == name else part for part in key.split(".")): tensor
        for key, tensor in layer.state_dict().items()
        if not key.startswith("base_layer.")
    }


def _indices(layer: Any, name: str) -> dict[str, Tensor]:
    """Return what a layer keeps beside its weights, such as the places of trained entries."""
    kept = {attribute: getattr(layer, attribute, None) for attribute in layer.other_param_names}
    return {
        attribute: values[name]
        for attribute, values in kept.items()
        if isinstance(values, dict) and isinstance(values.get(name), Tensor)
    }


@torch.no_grad()
def strip(model: PreTrainedModel, stock_names: set[str]) -> PreTrainedModel:
    """Remove the layers of PEFT from a model, in place, and biases that the plain model lacks.

    Args:
        model: a composed model, not trained yet.
        stock_names: names of the weights of a plain model of that structure.

    Raises:
        HarnessError: such a bias is not zero.
    """
    for name, layer in list(model.named_modules()):
        if not isinstance(layer, BaseTunerLayer):
            continue
        plain = layer.get_base_layer()
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, plain)
        if getattr(plain, "bias", None) is not None and f"{name}.bias" not in stock_names:
            if not plain.bias.is_meta and plain.bias.any():
                raise HarnessError(
                    f"The recipe adds a bias to {name} that is not zero before training.", MERGED
                )
            plain.bias = None
    # Left by PEFT; the model would be saved as if it still had adapters.
    vars(model).pop("peft_config", None)
    vars(model).pop("_hf_peft_config_loaded", None)
    return model


def _sort_sets(path: Path, config: PeftConfig) -> None:
    """Sort the lists that PEFT makes from sets, whose order depends on the process."""
    values = json.loads(path.read_text("utf-8"))
    for name, value in vars(config).items():
        if isinstance(value, set) and isinstance(values.get(name), list):
            values[name].sort()
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", "utf-8")
