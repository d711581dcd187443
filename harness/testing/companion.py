"""The method beside which a compressor is tried that is refused alone."""

from __future__ import annotations

from contextlib import suppress

from harness.errors import HarnessError
from harness.model.composition import compose
from harness.model.contexts import skeleton_context
from harness.testing.subject import SEED, Subject, trained
from harness.training.parameter_groups import own_groups

COMPANION = "lora_ff"
"""It trains few weights, and nearly everything composes with it."""
FREEZING = "freeze:encoder_top=0"
"""It trains the decoder alone, for compressors that store the outputs of a frozen encoder."""


def companion_of(subject: Subject) -> str | None:
    """Return the method beside which to try a compressor, or None to try it alone.

    A compressor has one if it trains nothing alone and refuses to, by a message of its own, or if
    it stores the outputs of an encoder that it does not freeze. One that trains nothing without
    saying so is tried alone, and fails.
    """
    backbone = subject.backbone
    with suppress(Exception):  # The checks say what it is.
        recipe = subject.recipe()
        context = skeleton_context(backbone, SEED)
        try:
            model = compose(backbone.skeleton(), backbone, recipe, context)
        except HarnessError:
            return FREEZING if recipe.encoder_storage else None
        if not trained(model):
            try:
                own_groups(recipe.compressors, model, {})
            except HarnessError as error:
                return COMPANION if subject.name in error.message else None
    return None
