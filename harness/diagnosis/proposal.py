"""A recipe worth trying, with the evidence for each of its parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from harness.api.backbone import Backbone, Stack
from harness.api.plugins import installed
from harness.diagnosis.losses import Batches, example_losses, target_tokens, with_shared_weights
from harness.diagnosis.record import LayerRemoval, Proposal, RoleChange, RoleGradient
from harness.errors import HarnessError
from harness.model.composition import compose, kept_layers
from harness.model.composition import layers as layers_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from harness.api.arrays import FloatArray

RANKS = (4, 8, 16, 32, 64)
"""Ranks that are proposed."""
_ENERGY = 0.9
"""Share of the change's sum of squares that a proposed rank must have."""
_MOST = 2 / 3
"""Share of the evidence above which one group of roles is adapted alone."""


def propose(
    model: PreTrainedModel,
    backbone: Backbone,
    batches: Batches,
    losses: FloatArray,
    layers: Sequence[LayerRemoval],
    gradients: Sequence[RoleGradient],
    changes: Sequence[RoleChange] | None,
) -> Proposal:
    """Propose layers to drop and layers to adapt.

    As many layers are dropped as ``lprun`` drops by its pattern, those whose single removal costs
    least, unless the pattern itself costs less.

    Args:
        model: the model with all layers, in evaluation mode.
        backbone: drops layers.
        batches: the examples.
        losses: losses of the examples with all layers.
        layers: what happens without each layer.
        gradients: gradients by role.
        changes: what full fine-tuning changed, if that is known.
    """
    adapter, evidence = adapter_for(gradients, changes)
    pattern = _pattern(backbone)
    if pattern is None:
        return Proposal(recipe=adapter, evidence=evidence)
    tokens = target_tokens(batches)

    def increase(kept: Mapping[Stack, list[int]]) -> float:
        pruned = with_shared_weights(model)
        for stack, numbers in kept.items():
            backbone.keep_layers(pruned, stack, numbers)
        return float((example_losses(pruned, batches) - losses).sum() / tokens.sum())

    chosen = {stack: _most_needed(stack, layers, len(kept)) for stack, kept in pattern.items()}
    own, of_pattern = increase(chosen), increase(pattern)
    evidence.append(
        f"Without training afterwards, the loss rises by {own:.3f} nats per token without the "
        f"layers that cost least one by one (kept: {_choice(chosen)}), and by "
        f"{of_pattern:.3f} without those of lprun's pattern (kept: {_choice(pattern)}). They were "
        "chosen and compared on the same examples."
    )
    layers_text = f":{_choice(chosen)}" if own < of_pattern else ""
    return Proposal(recipe=f"{adapter}+lprun{layers_text}", evidence=evidence)


def _pattern(backbone: Backbone) -> dict[Stack, list[int]] | None:
    """Return the layers that ``lprun`` keeps; None if it drops none or cannot be applied."""
    skeleton = backbone.skeleton()
    before = layers_of(skeleton, backbone)
    try:
        pruned = compose(skeleton, backbone, installed().recipe("lprun"))
    except HarnessError:
        return None
    return kept_layers(before, layers_of(pruned, backbone))


def _most_needed(stack: Stack, layers: Sequence[LayerRemoval], count: int) -> list[int]:
    """Return the numbers of the layers whose removal raises the loss most."""
    own = [layer for layer in layers if layer.stack == stack]
    order = sorted(own, key=lambda layer: -layer.loss_increase.value)
    return sorted(layer.number for layer in order[:count])


def _choice(kept: Mapping[Stack, list[int]]) -> str:
    return ",".join(f"{stack}={layer_list(numbers)}" for stack, numbers in kept.items())


def adapter_for(
    gradients: Sequence[RoleGradient], changes: Sequence[RoleChange] | None
) -> tuple[str, list[str]]:
    """Return a LoRA compressor and the evidence for its targets and its rank."""
    if changes:
        ffn = sum(change.energy_share for change in changes if change.role.startswith("ffn"))
        seen = f"{ffn:.0%} of what full fine-tuning changed (sum of squares) lies in"
    else:
        squares = [(g.role, g.root_mean_square**2 * g.weights) for g in gradients]
        total = sum(square for _, square in squares)
        ffn = sum(square for role, square in squares if role.startswith("ffn")) / total
        seen = f"{ffn:.0%} of the squared gradient before training lies in"
    group = "ffn" if ffn >= _MOST else "attn" if 1 - ffn >= _MOST else "all"
    name = {"ffn": "lora_ff", "attn": "lora:targets=attn", "all": "lora:targets=all"}[group]
    evidence = [f"{seen} feed-forward layers: adapt {_TARGETS[group]}."]
    if not changes:
        return name, evidence
    chosen = [c for c in changes if group == "all" or c.role.startswith("ffn") == (group == "ffn")]
    rank = _rank(chosen)
    if rank is None:
        evidence.append(
            f"No rank up to {RANKS[-1]} holds {_ENERGY:.0%} of that change: LoRA cannot make it, "
            "which does not say that it cannot learn the task."
        )
        rank = RANKS[-1]
    else:
        evidence.append(f"Rank {rank} holds {_ENERGY:.0%} of the change of these layers.")
    separator = "," if ":" in name else ":"
    return f"{name}{separator}r={rank}", evidence


_TARGETS = {"ffn": "them alone", "attn": "attention alone", "all": "all layers"}


def _rank(changes: Sequence[RoleChange]) -> int | None:
    """Return the least proposed rank that holds most of a change, weighted by its energy."""
    total = sum(change.energy_share for change in changes)
    for rank in RANKS:
        held = sum(change.energy_share * change.rank_shares.get(rank, 1.0) for change in changes)
        if held >= _ENERGY * total:
            return rank
    return None


def layer_list(numbers: Sequence[int]) -> str:
    """Write a list of layers as ``lprun`` reads it, such as 1-3.5.7."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ".".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
