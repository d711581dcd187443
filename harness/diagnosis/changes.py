"""Changes by training, by role: their size and their rank."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from harness.api.backbone import Backbone
from harness.diagnosis.gradients import role_weights
from harness.diagnosis.record import RoleChange

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

RANKS = (1, 2, 4, 8, 16, 32, 64, 128)
"""Ranks that are reported, as far as a matrix has them."""


def role_changes(
    before: PreTrainedModel, after: PreTrainedModel, backbone: Backbone
) -> list[RoleChange] | None:
    """Compare the matrices of two models of the same structure, by stack and role.

    Args:
        before: the model before training.
        after: the model after training.
        backbone: finds the modules.

    Returns:
        A record for each stack and role whose matrices were trained; None if none was.
    """
    old = dict(before.named_parameters())
    found = []
    for place, weights in role_weights(after, backbone):
        pairs = [(old[name].detach().float(), weight.detach().float()) for name, weight in weights]
        if any(not torch.equal(first, second) for first, second in pairs):
            found.append((place, pairs))
    if not found:
        return None
    total = sum(_squares(b - a) for _, pairs in found for a, b in pairs)
    records = []
    for (stack, role), pairs in found:
        spectra = [torch.linalg.svdvals(b - a).double() for a, b in pairs]
        energy = [spectrum.square() for spectrum in spectra]
        # A matrix that did not change has no share.
        shares = [(e / e.sum()).cumsum(0) for e in energy if float(e.sum()) > 0]
        mean = torch.stack(shares).mean(0)
        changed = sum(float(e.sum()) for e in energy)
        records.append(
            RoleChange(
                stack=stack,
                role=role,
                modules=len(pairs),
                relative=(changed / sum(_squares(a) for a, _ in pairs)) ** 0.5,
                energy_share=changed / total,
                rank_shares={r: float(mean[r - 1]) for r in RANKS if r <= len(mean)},
                # Rounding can leave the last share below 1.
                rank_90=min(int((mean < 0.9).sum()) + 1, len(mean)),
                effective_rank=_mean([effective_rank(s) for s in spectra if float(s.sum()) > 0]),
            )
        )
    return records


def effective_rank(singular_values: Tensor) -> float:
    """Return the exponential of the entropy of the singular values (Roy and Vetterli 2007).

    Args:
        singular_values: at least one is above zero; shape (rank,).
    """
    shares = singular_values / singular_values.sum()
    return float(torch.special.entr(shares).sum().exp())


def _squares(tensor: Tensor) -> float:
    return float(tensor.double().square().sum())


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
