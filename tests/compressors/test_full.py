"""Full fine-tuning changes nothing and trains everything."""

from collections.abc import Callable
from typing import Any

import torch

from harness import Backbone
from harness.api.plugins import installed
from harness.api.recipe import parse
from harness.model.composition import compose, count_parameters

IDS = torch.tensor([[5, 7, 11, 13, 17, 1], [8, 9, 31, 42, 44, 1]])


def test_full_changes_nothing_and_trains_everything(
    backbone: Backbone, make_model: Callable[[], Any]
) -> None:
    plain = make_model().state_dict()
    model = compose(make_model(), backbone, parse("full", installed().compressors))
    assert model.state_dict().keys() == plain.keys()
    assert all(torch.equal(value, plain[key]) for key, value in model.state_dict().items())
    model(input_ids=IDS, labels=IDS).loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    count = count_parameters(model)
    assert count.trainable == count.total
    assert count.total_bytes == 4 * count.total
