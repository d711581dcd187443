"""The history: what is written when."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from harness.api.events import StepDone
from harness.training.log import NonFiniteLossError, TrainingLog


@pytest.mark.parametrize("behind", [0, 1, 2])
def test_it_stays_behind_and_catches_up_in_order(tmp_path: Path, behind: int) -> None:
    file = tmp_path / "history.jsonl"
    events: list[StepDone] = []
    history = TrainingLog(file, events.append, behind)
    for number in range(1, 5):
        history.step_taken(number, torch.tensor(number / 2), 0.1 * number)
        assert [event.step for event in events] == list(range(1, number + 1 - behind))
    history.catch_up()
    history.catch_up()
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["step"] for line in lines] == [event.step for event in events] == [1, 2, 3, 4]
    assert [line["loss"] for line in lines] == [0.5, 1, 1.5, 2]
    assert events[3].values == {"loss": 2, "learning_rate": pytest.approx(0.4)}


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_found_at_the_latest_when_catching_up(
    tmp_path: Path, loss: float
) -> None:
    history = TrainingLog(tmp_path / "history.jsonl", lambda event: None, behind=1)
    history.step_taken(1, torch.tensor(1.0), 0.1)
    history.step_taken(2, torch.tensor(loss), 0.1)
    with pytest.raises(NonFiniteLossError, match=r"The loss of step 2 is (nan|inf)"):
        history.catch_up()
