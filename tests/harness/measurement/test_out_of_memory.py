"""``harness profile`` under a real limit: a recipe that does not fit gets a row of its own."""

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.api.plugins import installed
from harness.api.task import LengthProfile
from harness.costs.batches import drawn_batches, profile_spec
from harness.measurement.process import MeasuredProcess
from harness.records.profile import Profile

BACKBONE, TASK, SMALL = "t5-small", "radiology_demo", "lora_ff:r=4"
SIZE = 60_506_624
"""Number of parameters; each takes 16 bytes: weight, gradient and two moments."""
LENGTHS = LengthProfile(source_mean=8, target_mean=4)


def address_space_of_small_recipe() -> int:
    """Return the peak address space of a process that trains the small recipe, in bytes."""
    settings = {"device": "cpu", "train.batch_size": 1, "probe.steps": 1, "probe.rounds": 2}
    spec = profile_spec(BACKBONE, TASK, settings)
    backbone = installed().backbone(BACKBONE)
    frozen = drawn_batches(spec, backbone, installed().task(spec.task, spec.task_options), LENGTHS)
    spec = spec.model_copy(update={"recipe": SMALL})
    with MeasuredProcess(spec, frozen.steps, frozen.longest) as process:
        process.window(0, 1)
        (child,) = multiprocessing.active_children()
        status = Path(f"/proc/{child.pid}/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    return int(fields["VmPeak"].split()[0]) * 1024


@pytest.mark.slow
@pytest.mark.usefixtures("fresh_processes")
@pytest.mark.skipif(shutil.which("prlimit") is None, reason="needs Linux' prlimit and /proc")
def test_a_recipe_that_does_not_fit_is_a_row_and_the_next_is_measured(
    tmp_path: Path, site: Path
) -> None:
    # The small recipe fits with a quarter of what full fine-tuning needs on top of it.
    limit = address_space_of_small_recipe() + 4 * SIZE
    command = ["profile", "--backbone", BACKBONE, "--compressor", f"full,killed,{SMALL}"]
    command += ["--task", TASK, "--source-tokens", "8", "--target-tokens", "4"]
    command += ["--batch-size", "1", "--steps", "1", "--repeats", "2", "--device", "cpu"]
    command += ["--out", str(tmp_path / "profile.json")]
    search_path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    result = subprocess.run(
        ["prlimit", f"--as={limit}", sys.executable, "-m", "harness", *command],
        env={**os.environ, "PYTHONPATH": search_path},
        capture_output=True,
        check=False,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    profile = Profile.model_validate(json.loads((tmp_path / "profile.json").read_text()))
    full, killed, small = profile.recipes

    assert (full.status, full.speed, full.memory) == ("oom", None, None)
    assert full.failure
    assert full.failure.phase == "probe speed"
    assert full.memory_reached
    # It held the weights at least, and not what the limit denied it.
    assert 4 * SIZE < full.memory_reached < limit

    # A process that was killed could not say, and nothing is made up for it.
    assert (killed.status, killed.memory_reached) == ("oom", None)
    assert killed.failure
    assert "was killed" in killed.failure.message

    assert (small.status, small.failure) == ("ok", None)
    assert small.speed
    assert small.speed.tokens_per_s > 0
    assert small.speed.relative is None
    assert "ran out of memory" in small.speed.baseline
    assert small.memory
    assert small.memory.peak_bytes < limit
    assert small.memory.relative is None

    table = [line.split() for line in result.stdout.splitlines()]
    assert ["killed", "oom"] in table
