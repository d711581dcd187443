"""The choice between a model in each process and a model that processes divide."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import PreTrainedConfig, T5Config

from harness import HarnessError, RunSpec
from harness.api.plugins import installed
from harness.backbones.t5 import T5
from harness.costs import parallel
from harness.costs.memory_estimate import process_bytes
from harness.costs.parallel import Parallel, choose_parallel
from harness.data.examples import Example
from harness.spec.setting_groups import TrainSettings
from harness.training.processes import Processes
from harness.training.resolved_run import resolve_run
from harness.training.schedule import Step


class Tiny(T5):
    def config(self) -> PreTrainedConfig:
        return T5Config(
            vocab_size=48,
            d_model=16,
            d_kv=8,
            d_ff=24,
            num_heads=2,
            num_layers=2,
            decoder_start_token_id=0,
        )


TWO = Processes(0, 2, None, local_size=2)


@pytest.fixture
def choose(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Choose for a tiny T5, on a machine with so many bytes of free memory."""

    def chosen(free: int, processes: Processes = TWO, **settings: Any) -> Parallel:
        monkeypatch.setattr(parallel, "free_bytes", lambda device: free)
        train = TrainSettings(batch_size=2, **settings)
        spec = RunSpec(recipe="lora_ff", weights="random", device="cpu", train=train)
        run = resolve_run(spec, Tiny("tiny"), installed().recipe(spec.recipe))
        example = Example([5] * 8, [6] * 4)
        return choose_parallel(run, Step(((example, example),)), processes)

    return chosen


def test_auto_divides_a_model_that_one_device_cannot_train(choose: Any) -> None:
    assert choose(2**40) == Parallel("ddp")
    chosen = choose(2**20)
    assert chosen.kind == "fsdp"
    assert "GiB to train" in chosen.too_large
    assert chosen.notes[0].startswith("The model was divided: one process needs")
    assert "Each of the 2 processes held a share" in chosen.notes[1]


def test_processes_of_a_machine_share_its_memory(choose: Any) -> None:
    # Nearly all that the tiny model needs is what a process needs without one, such as this one.
    needed = 3 * process_bytes()
    assert choose(needed).kind == "ddp"
    assert choose(needed, Processes(0, 500, None, local_size=500)).kind == "fsdp"
    assert choose(needed, Processes(0, 500, None, local_size=1)).kind == "ddp"


def test_what_cannot_be_divided_is_held_whole_and_the_report_says_so(choose: Any) -> None:
    chosen = choose(2**20, optimizer="adafactor")
    assert chosen.kind == "ddp"
    assert "could not be divided: the optimizer adafactor" in chosen.notes[0]
    with pytest.raises(HarnessError, match="cannot be divided") as error:
        choose(2**20, optimizer="adafactor", parallel="fsdp")
    assert "train.parallel=ddp" in str(error.value.hint)


def test_the_settings_decide_before_the_estimate(choose: Any) -> None:
    assert choose(2**20, parallel="ddp") == Parallel("ddp")
    assert choose(2**40, parallel="fsdp").kind == "fsdp"
    assert choose(2**40, cpu_offload=True).kind == "fsdp"
    assert choose(2**20, Processes()) == Parallel()
    for wrong in ({"parallel": "ddp"}, {"processes": Processes()}):
        with pytest.raises(HarnessError, match="cpu_offload"):
            choose(2**40, cpu_offload=True, **wrong)
