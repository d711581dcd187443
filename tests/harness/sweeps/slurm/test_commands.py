"""Questions to Slurm, whose commands are replaced by scripts that answer as they do."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import HarnessError
from harness.clock import ManualClock
from harness.sweeps.slurm.commands import (
    SlurmUnreachableError,
    States,
    current_states,
    require_slurm,
)
from harness.sweeps.slurm.follower import GONE

Answer = Callable[..., None]


@pytest.fixture
def answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Answer:
    """Return a function that replaces a command by an output, an error and an exit status."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def replace(command: str, output: str, error: str = "", code: int = 0) -> None:
        for name, text in (("out", output), ("err", error)):
            (tmp_path / f"{command}.{name}").write_text(text)
        script = tmp_path / command
        shown = f"/bin/cat {script}.out; /bin/cat {script}.err >&2; exit {code}"
        script.write_text(f'#!/bin/sh\necho "$@" >> {script}.calls\n{shown}\n')
        script.chmod(0o755)

    return replace


def down(answer: Answer) -> None:
    answer("squeue", "", "slurm_load_jobs error: Unable to contact slurm controller\n", 1)


def forgotten(answer: Answer) -> None:
    answer("squeue", "", "slurm_load_jobs error: Invalid job id specified\n", 1)


@pytest.fixture
def states() -> States:
    states = States(interval=10)
    states.watch("7_0")
    return states


def test_states_are_asked_only_after_the_interval(
    states: States, answer: Answer, tmp_path: Path, manual_clock: ManualClock
) -> None:
    answer("squeue", "7_0|PENDING\n7_1|RUNNING\n")
    assert [states.of("7_0") for _ in range(3)] == ["PENDING"] * 3
    answer("squeue", "7_0|RUNNING\n")
    assert states.of("7_0") == "PENDING"
    manual_clock.sleep(10)
    assert states.of("7_0") == "RUNNING"
    calls = (tmp_path / "squeue.calls").read_text().splitlines()
    assert len(calls) == 2
    assert "--array --states=all --jobs=7 " in calls[0]


def test_a_job_is_gone_when_slurm_has_not_known_it_twice(
    states: States, answer: Answer, manual_clock: ManualClock
) -> None:
    answer("squeue", "7_0|RUNNING\n")
    assert states.of("7_0") == "RUNNING"
    forgotten(answer)
    seen = []
    for _ in range(2):
        manual_clock.sleep(10)
        seen.append(states.of("7_0"))
    assert seen == ["RUNNING", GONE]


def test_a_controller_that_does_not_answer_says_nothing_about_a_job(
    states: States, answer: Answer, manual_clock: ManualClock
) -> None:
    answer("squeue", "7_0|RUNNING\n")
    assert states.of("7_0") == "RUNNING"
    down(answer)
    for _ in range(5):
        manual_clock.sleep(10)
        assert states.of("7_0") == "RUNNING"
    with pytest.raises(SlurmUnreachableError, match="Unable to contact slurm controller"):
        current_states(["7_0"])


def test_the_accounting_knows_a_job_that_the_controller_has_forgotten(answer: Answer) -> None:
    forgotten(answer)
    answer("sacct", "7_0|CANCELLED by 1000\n7_1|OUT_OF_MEMORY\n")
    assert current_states(["7_0", "7_1"]) == {"7_0": "CANCELLED", "7_1": "OUT_OF_MEMORY"}
    answer("sacct", "", "Slurm accounting storage is disabled\n", 1)
    assert current_states(["7_0"]) == {}


def test_a_machine_without_slurms_commands_is_named(answer: Answer) -> None:
    answer("sbatch", "")
    if importlib.util.find_spec("submitit") is None:
        match = "needs the package submitit"
    else:
        match = "There is no squeue on this machine"
    with pytest.raises(HarnessError, match=match):
        require_slurm()
