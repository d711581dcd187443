"""The lines on where time and memory go."""

from collections.abc import Callable

from harness.records.report import Report
from harness.reporting.cost_breakdown import breakdown_lines


def test_shares_sizes_and_the_limit_are_shown(make_report: Callable[..., Report]) -> None:
    plain = make_report()
    assert plain.speed
    assert plain.memory
    speed = {
        **plain.speed.model_dump(),
        "relative": 1.5,
        "flop_limit_relative": 2.0,
        "share_of_limit": 0.75,
        "parts": {"data": 0.1, "forward": 0.3, "backward": 0.5, "optimizer": 0.1},
    }
    names = ("weights", "gradients", "optimizer", "activations", "logits", "other")
    parts = {name: (number + 1) * 2**20 for number, name in enumerate(names)}
    memory = {**plain.memory.model_dump(), "parts": parts}
    assert list(breakdown_lines(make_report(speed=speed, memory=memory))) == [
        "step: data 10 %, forward 30 %, backward 50 %, optimizer 10 %",
        "tensors at the peak, MiB: weights 1, gradients 2, optimizer 3, activations 4, logits 5, "
        "other 6",
        "speed: 150 % of full fine-tuning's, 75 % of the 200 % that its matrix products allow",
    ]


def test_unknown_values_are_left_out(make_report: Callable[..., Report]) -> None:
    assert list(breakdown_lines(make_report())) == []
    assert list(breakdown_lines(make_report(speed=None, memory=None))) == []
