"""All steps of ``make gpu`` at tiny size on a CPU, from the command line to the page."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
STEPS = (
    "speed",
    "peer",
    "kernels",
    "tests",
    "equality",
    "measuring",
    "decoding",
    "inference",
    "run",
)


def call(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gpu", "--tiny", "--device", "cpu", "--minutes", "20"]
    command += ["--results", str(folder / "results"), "--out", str(folder / "out")]
    environment = {**os.environ, "PYTHONPATH": str(BENCHMARKS), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_every_step_writes_its_result(tmp_path: Path) -> None:
    done = call(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [text.split()[:3] for text in done.stdout.splitlines()[1:]]
    # Tests and equality run at the same time, and end in any order.
    assert sorted(lines) == [[f"{i}/9", name, "ok"] for i, name in enumerate(STEPS, start=1)]
    folder = tmp_path / "results" / "cpu-tiny"
    cases = {name: json.loads((folder / f"{name}.json").read_text())["cases"] for name in STEPS}
    row = cases["speed"]["nano-t5 1 x mimic_radiology lora_ff+lprun"]["row"]
    assert row["status"] == "ok"
    assert row["speed"]["relative"] > 0
    assert row["memory"]["relative"] > 0
    assert cases["peer"]["nano-t5 lora_ff+lprun"]["speed_ratio"] > 0
    assert cases["decoding"]["nano-t5"]["same"] == 2
    assert cases["inference"]["nano-t5 lprun"]["latency"]["relative"] > 0
    assert cases["run"]["nano-t5 lora_ff+lprun"]["report"]["status"] == "ok"
    assert "## nano-t5 on radiology" in cases["run"]["nano-t5 lora_ff+lprun"]["shown"]
    assert (folder / "README.md").read_text().count("| ok |") == 9
    with tarfile.open(tmp_path / "out" / "gpu-cpu-tiny.tar.gz") as file:
        assert {f"cpu-tiny/{name}.json" for name in STEPS} <= set(file.getnames())
    before = (folder / "steps.json").read_bytes()
    again = call(tmp_path)
    assert again.returncode == 0
    assert sorted(again.stdout.splitlines()) == sorted(done.stdout.splitlines())
    assert (folder / "steps.json").read_bytes() == before
