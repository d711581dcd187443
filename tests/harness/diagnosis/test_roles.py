"""Gradients and changes by role, against computations by hand."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
import torch

from harness.diagnosis.changes import effective_rank, role_changes
from harness.diagnosis.gradients import role_gradients, role_weights

if TYPE_CHECKING:
    from transformers import BatchEncoding, PreTrainedModel

    from harness import Backbone

MakeModel = Callable[[], "PreTrainedModel"]


def test_gradients_are_those_of_the_mean_loss_of_all_tokens(
    backbone: Backbone, make_model: MakeModel, batches: list[BatchEncoding]
) -> None:
    model = make_model().eval()
    model.requires_grad_(False)
    next(model.parameters()).requires_grad_(True)
    records = role_gradients(model, backbone, batches)
    assert [p.requires_grad for p in model.parameters()].count(True) == 1
    assert all(p.grad is None for p in model.parameters())
    model.requires_grad_(True)
    total = 0.0
    loss = torch.tensor(0.0)
    for batch in batches:
        tokens = int((batch["labels"] != -100).sum())
        loss = loss + model(**batch).loss * tokens
        total += tokens
    (loss / total).backward()
    assert {(r.stack, r.role) for r in records} >= {
        ("encoder", "self_attn.q"),
        ("decoder", "cross_attn.v"),
        ("encoder", "ffn.in"),
        ("decoder", "ffn.out"),
    }
    assert not any(r.stack == "encoder" and r.role.startswith("cross") for r in records)
    weights = dict(role_weights(model, backbone))
    for record in records:
        found = [weight for _, weight in weights[record.stack, record.role]]
        gradients = torch.cat([w.grad.flatten() for w in found if w.grad is not None])
        flat = torch.cat([w.detach().flatten() for w in found])
        assert record.weights == len(flat)
        rms = float(gradients.square().mean().sqrt())
        assert record.root_mean_square == pytest.approx(rms, rel=1e-4)
        assert record.relative == pytest.approx(float(gradients.norm() / flat.norm()), rel=1e-4)


def test_changes_of_known_rank_and_size(backbone: Backbone, make_model: MakeModel) -> None:
    before = make_model()
    after = copy.deepcopy(before)
    torch.manual_seed(1)
    changed = {
        place: weights
        for place, weights in role_weights(after, backbone)
        if place in {("decoder", "ffn.out"), ("encoder", "self_attn.v")}
    }
    with torch.no_grad():
        for (_, role), weights in changed.items():
            for _, weight in weights:
                rank = 2 if role == "ffn.out" else 1
                left, right = torch.randn(len(weight), rank), torch.randn(rank, weight.shape[1])
                weight.add_(left @ right * (2 if role == "ffn.out" else 1))
    records = role_changes(before, after, backbone)
    assert records is not None
    by_role = {(r.stack, r.role): r for r in records}
    assert by_role.keys() == changed.keys()
    assert sum(r.energy_share for r in records) == pytest.approx(1)
    out, value = by_role["decoder", "ffn.out"], by_role["encoder", "self_attn.v"]
    assert out.modules == 7
    assert value.modules == 8
    assert out.rank_shares[1] < 0.99
    assert out.rank_shares[2] == pytest.approx(1, abs=1e-5)
    assert value.rank_shares[1] == pytest.approx(1, abs=1e-5)
    assert (out.rank_90, value.rank_90) == (2, 1)
    assert 1 < out.effective_rank <= 2.01
    assert value.effective_rank == pytest.approx(1, abs=1e-3)
    first, second = (
        torch.cat(
            [
                w.detach().flatten()
                for _, w in dict(role_weights(model, backbone))[out.stack, out.role]
            ]
        )
        for model in (before, after)
    )
    expected = float((second - first).norm() / first.norm())
    assert out.relative == pytest.approx(expected, rel=1e-4)


def test_without_a_change_there_is_no_record(backbone: Backbone, make_model: MakeModel) -> None:
    assert role_changes(make_model(), make_model(), backbone) is None


def test_the_effective_rank_of_equal_singular_values_is_their_number() -> None:
    assert effective_rank(torch.full((5,), 0.3)) == pytest.approx(5)
    assert effective_rank(torch.tensor([2.0, 0.0, 0.0])) == pytest.approx(1)
