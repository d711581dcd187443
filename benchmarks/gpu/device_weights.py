"""Draws random weights on the device, which takes a second for a large model."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedModel
from work import Case

from harness import Backbone
from harness.api.backbone import Weights


def on_device(backbone: Backbone, device: str) -> Backbone:
    """Let a backbone draw its random weights on a device."""
    load = backbone.load

    def load_there(weights: Weights) -> PreTrainedModel:
        if weights != "random":
            return load(weights)
        with torch.device(device):
            return load(weights)

    backbone.load = load_there  # type: ignore[method-assign]
    return backbone


class DeviceCase(Case):
    """A case of the training benchmark whose weights are drawn on its device."""

    @property
    def backbone(self) -> Backbone:
        """Backbone with the case's shape, whose random weights are drawn on the device."""
        return on_device(super().backbone, self.device)


def new_case(shape: str, recipe: str, device: str, **more: Any) -> DeviceCase:
    """Return a case of eight examples per step."""
    settings: dict[str, Any] = {"batch": 8, "warmup": 3, "steps": 8, "threads": 1, **more}
    return DeviceCase(shape, recipe, device=device, **settings)
