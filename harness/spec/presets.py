"""Presets: named settings to start from. ``--set`` changes any of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PRESETS: Mapping[str, Mapping[str, Any]] = {
    # Zhu et al. 2023, section 4.2: the defaults of the settings themselves.
    "paper": {},
    # Takes minutes on two CPU cores with a small backbone. With few steps, learning rates are high
    # and the warm-up is a share of the steps.
    "quick": {
        "train": {
            "batch_size": 16,
            "epochs": 1.0,
            "max_steps": 120,
            "learning_rate": 3e-3,
            "default_adapter_learning_rate": 2e-2,
            "warmup_steps": 1 / 6,
            "eval_every_epochs": 0.25,
            "eval_examples": 60,
        },
        "test": {"examples": 100, "max_new_tokens": 64},
        "probe": {"steps": 3},
    },
}
"""Preset -> values that differ from the defaults of ``harness.spec.run_spec``."""
