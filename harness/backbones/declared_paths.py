"""Layers and modules of a model by the paths that its family declares."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, ClassVar

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from harness import STACKS, Backbone, HarnessError, Role, Stack
from harness.backbones.narrower import keep_inputs, keep_outputs


class DeclaredPaths(Backbone):
    """A backbone whose family declares the paths of its modules.

    Attributes:
        layer_path: stack -> path of its ModuleList of layers.
        role_paths: stack -> role -> paths within a layer; paths that a variant lacks are skipped
            (a gated feed-forward has wi_0 and wi_1 instead of wi).
        depth_fields: stack -> fields of the configuration with its depth.
        width_fields: stack -> field of the configuration with the width of its feed-forward
            layers; without it they cannot become narrower.
    """

    layer_path: ClassVar[Mapping[Stack, str]]
    role_paths: ClassVar[Mapping[Stack, Mapping[Role, tuple[str, ...]]]]
    depth_fields: ClassVar[Mapping[Stack, tuple[str, ...]]]
    width_fields: ClassVar[Mapping[Stack, str]] = {}

    def modules(self, model: PreTrainedModel, role: Role) -> dict[str, nn.Module]:
        """Return all modules of a role, encoder first, in order of depth."""
        named_modules: dict[str, nn.Module] = {}
        for stack in STACKS:
            for index, layer in enumerate(self.layers(model, stack)):
                for path in self.role_paths[stack].get(role, ()):
                    try:
                        module = layer.get_submodule(path)
                    except AttributeError:
                        continue
                    named_modules[f"{self.layer_path[stack]}.{index}.{path}"] = module
        return named_modules

    def layers(self, model: PreTrainedModel, stack: Stack) -> nn.ModuleList:
        """Return the layers of a stack."""
        layers = model.get_submodule(self.layer_path[stack])
        assert isinstance(layers, nn.ModuleList)
        return layers

    def keep_layers(self, model: PreTrainedModel, stack: Stack, kept: Sequence[int]) -> None:
        """Drop all layers except ``kept``, renumber attention caches, and store the new depth."""
        layers = self.layers(model, stack)
        if not kept or sorted(set(kept)) != list(kept) or kept[0] < 1 or kept[-1] > len(layers):
            raise HarnessError(
                f"Cannot keep the layers {list(kept)} of {self.name}'s {stack}.",
                f"Give increasing numbers from 1 to {len(layers)}.",
            )
        remaining = nn.ModuleList(layers[i - 1] for i in kept)
        # layer_idx addresses the key-value cache: a wrong index would break generation.
        for index, layer in enumerate(remaining):
            modules: Iterable[Any] = layer.modules()
            for module in modules:
                if hasattr(module, "layer_idx"):
                    module.layer_idx = index
        parent, _, name = self.layer_path[stack].rpartition(".")
        owner = model.get_submodule(parent)
        setattr(owner, name, remaining)
        for config, fields in self._depth_configs(model, stack):
            for field in fields:
                setattr(config, field, len(remaining))

    def keep_neurons(
        self, model: PreTrainedModel, stack: Stack, kept: Sequence[Sequence[int]]
    ) -> None:
        """Drop neurons of the feed-forward layers, and store the new width."""
        if not self.width_fields:
            super().keep_neurons(model, stack, kept)
        paths = self.role_paths[stack]
        for layer, neurons in zip(self.layers(model, stack), kept, strict=True):
            for path in paths["ffn.in"]:
                with suppress(AttributeError):
                    keep_outputs(layer.get_submodule(path), neurons)
            for path in paths["ffn.out"]:
                keep_inputs(layer.get_submodule(path), neurons)
        self.set_field(model, self.width_fields[stack], len(kept[0]))

    def set_field(self, model: PreTrainedModel, field: str, value: int) -> None:
        """Set a field of the model's configuration, and of the copies that its stacks hold."""
        modules: Iterable[Any] = model.modules()
        for module in modules:
            if isinstance(getattr(module, "config", None), PreTrainedConfig):
                setattr(module.config, field, value)

    def _depth_configs(
        self, model: PreTrainedModel, stack: Stack
    ) -> list[tuple[PreTrainedConfig, tuple[str, ...]]]:
        """Return each configuration that holds the depth of a stack, with the fields to set."""
        return [(model.config, self.depth_fields[stack])]
