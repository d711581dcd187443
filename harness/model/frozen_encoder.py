"""A check that nothing in an encoder is trained, if its outputs are computed only once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.api.compressor import Compressor
from harness.errors import HarnessError

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

    from harness.api.recipe import Recipe

_SHOWN = 2
"""Trained weights that the error names."""


def require_frozen_encoder(model: PreTrainedModel, recipe: Recipe) -> None:
    """Check that the encoder's outputs stay the same during training, if they are to be stored.

    Args:
        model: the composed model or skeleton.
        recipe: the recipe that was applied.

    Raises:
        HarnessError: they change, or something needs more of the encoder than its outputs.
    """
    storing = [c.name for c in recipe.compressors if c.encoder_storage is not None]
    if not storing:
        return
    for compressor in recipe.compressors:
        if type(compressor).change_after is not Compressor.change_after:
            raise HarnessError(
                f"{storing[0]}: {compressor.name} changes the structure during training, and the "
                "encoder's outputs are computed once.",
                f"Leave out {storing[0]} or {compressor.name}.",
            )
        if "hidden_states" in compressor.needs:
            raise HarnessError(
                f"{storing[0]}: {compressor.name} needs the states after each layer of the "
                "encoder, and only those after the last one are stored.",
                f"Leave out {storing[0]}, or the part of {compressor.name} that reads states.",
            )
    trained = trained_in_encoder(model)
    if trained:
        more = f" and {len(trained) - _SHOWN} more" if len(trained) > _SHOWN else ""
        raise HarnessError(
            f"{storing[0]}: the encoder's outputs change during training, because they depend on "
            f"trained weights: {', '.join(trained[:_SHOWN])}{more}.",
            "Train the decoder alone, for example freeze:encoder_top=0 or "
            f"lora:targets=decoder.ffn, or leave out {storing[0]}.",
        )


def trained_in_encoder(model: PreTrainedModel) -> list[str]:
    """Return the names of the trained weights that the encoder's outputs depend on.

    They are found in the graph of gradients of one token, so that those which reach the encoder by
    a hook or as a shared embedding count as well.
    """
    import torch

    modes = [(module, module.training) for module in model.modules()]
    device = next(model.parameters()).device
    try:
        model.eval()  # Nothing is drawn.
        with torch.enable_grad():
            token = torch.zeros(1, 1, dtype=torch.long, device=device)
            output = model.get_encoder()(input_ids=token)[0]
    finally:
        for module, training in modes:
            module.training = training
    found = _leaves(output.grad_fn)
    return [name for name, parameter in model.named_parameters() if id(parameter) in found]


def _leaves(function: object) -> set[int]:
    """Return the ids of the parameters that a function of the graph depends on."""
    found: set[int] = set()
    seen: set[object] = set()
    waiting: list[object] = [function]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        variable: nn.Parameter | None = getattr(node, "variable", None)
        if variable is not None:
            found.add(id(variable))
        waiting += [following for following, _ in getattr(node, "next_functions", ())]
    return found
