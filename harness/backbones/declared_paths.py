"""Layers and modules of a model by the paths that its family declares."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from harness import STACKS, Backbone, HarnessError, Role, Stack


class DeclaredPaths(Backbone):
    """A backbone whose family declares the paths of its modules.

    Attributes:
        layer_path: stack -> path of its ModuleList of layers.
        role_paths: stack -> role -> paths within a layer; paths that a variant lacks are skipped
            (a gated feed-forward has wi_0 and wi_1 instead of wi).
        depth_fields: stack -> fields of the configuration with its depth.
    """

    layer_path: ClassVar[Mapping[Stack, str]]
    role_paths: ClassVar[Mapping[Stack, Mapping[Role, tuple[str, ...]]]]
    depth_fields: ClassVar[Mapping[Stack, tuple[str, ...]]]

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

    def _depth_configs(
        self, model: PreTrainedModel, stack: Stack
    ) -> list[tuple[PreTrainedConfig, tuple[str, ...]]]:
        """Return each configuration that holds the depth of a stack, with the fields to set."""
        return [(model.config, self.depth_fields[stack])]
