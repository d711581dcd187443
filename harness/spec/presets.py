"""Named settings to start from; every one of them can be changed with ``--set``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PRESETS: Mapping[str, Mapping[str, Any]] = {
    # Zhu et al. 2023, section 4.2: the defaults of the settings themselves.
    "paper": {},
    # Minutes on two CPU cores with a small backbone: few steps, so high rates and a warm-up that
    # is a share of them.
    "quick": {
        "train": {
            "batch_size": 16,
            "epochs": 1.0,
            "max_steps": 120,
            "learning_rate": 3e-3,
            "adapter_learning_rate": 2e-2,
            "warmup_steps": 1 / 6,
            "eval_every_epochs": 0.25,
            "eval_examples": 60,
        },
        "test": {"examples": 100, "max_new_tokens": 64},
        "probe": {"steps": 3},
    },
}
"""Preset -> values that differ from the defaults of ``harness.spec.run_spec``."""
