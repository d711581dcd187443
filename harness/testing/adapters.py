"""The adapter of a tiny model, written as an export writes it and read by PEFT."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch
from peft import PeftModel

from harness.export.peft_adapter import read_updates, require_adapter, save_adapter, strip
from harness.export.stock_model import stock_skeleton
from harness.testing.subject import Subject, perturb

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def reloaded_adapter(subject: Subject, model: PreTrainedModel) -> PreTrainedModel:
    """Perturb a model's adapter, write it, and load it with PEFT on a plain base.

    Args:
        subject: the recipe and its backbone.
        model: the model with the recipe applied; its trained weights change.

    Raises:
        HarnessError: the recipe has no adapter that PEFT can hold.
    """
    require_adapter(model, subject.text)
    perturb(model)
    updates = read_updates(model)
    base, fresh = (_base(subject) for _ in range(2))
    folder = subject.folder / "adapter"
    save_adapter(base, updates, folder, "base")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = PeftModel.from_pretrained(fresh, str(folder))
    plain: PreTrainedModel = loaded.get_base_model()
    return plain.double()


def _base(subject: Subject) -> PreTrainedModel:
    model = subject.model()
    return strip(model, set(stock_skeleton(model).state_dict())).to(torch.float32)
