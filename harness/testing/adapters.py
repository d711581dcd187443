"""The adapter of a tiny model, written as an export writes it and read by PEFT."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from peft import PeftModel

from harness.export.peft_adapter import find_adapter, strip
from harness.export.stock_model import stock_skeleton
from harness.model.composition import compose
from harness.testing.subject import Subject, perturb
from harness.training.run_context import load_original, run_context

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from harness.api.recipe import Recipe


def reloaded_adapter(subject: Subject, model: PreTrainedModel) -> PeftModel:
    """Perturb a model's adapter, write it, and load it with PEFT on a plain base.

    Args:
        subject: the recipe and its backbone.
        model: the model with the recipe applied; its trained weights change.

    Raises:
        HarnessError: the recipe has no adapter that PEFT can hold.
    """
    recipe = subject.recipe()
    find_adapter(model, recipe)  # Before its weights change: it may have none.
    perturb(model)
    adapter = find_adapter(model, recipe)
    folder = subject.folder / "adapter"
    without = adapter.base_recipe(recipe)
    adapter.save(_base(subject, without), folder, "base")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded: PeftModel = PeftModel.from_pretrained(_base(subject, without), str(folder))
    return loaded.double()


def _base(subject: Subject, recipe: Recipe) -> PreTrainedModel:
    run = subject.run()
    model = compose(load_original(run), run.backbone, recipe, run_context(run))
    return strip(model, set(stock_skeleton(model).state_dict()))
