"""Step 9: a complete small run of the embedded model, from data to report."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from gpu.step import StepResult, run_step

TINY = {
    "task_options.train": 8,
    "task_options.eval": 2,
    "task_options.test": 2,
    "train.batch_size": 2,
    "train.max_steps": 2,
    "train.eval_examples": 2,
    "test.examples": 2,
    "test.max_new_tokens": 4,
    "probe.baseline": "off",
    "probe.steps": 1,
    "probe.rounds": 2,
    "probe.inference": "false",
}
SHORT = {"train.max_steps": 300, "test.examples": 64, "probe.rounds": 3}
"""Settings of a run that takes half a minute on a GPU."""


def run(result: StepResult) -> str:
    """Run the first command of the README on this device, but for fewer steps."""
    result.case("nano-t5 lora_ff+lprun", partial(fine_tune, result.request))
    report = result.cases["nano-t5 lora_ff+lprun"].get("report")
    if report is None:
        return ""
    rouge = (report.get("quality") or {}).get("rouge1", {})
    score = rouge.get("value") if isinstance(rouge, dict) else rouge
    return f"status {report['status']}, ROUGE-1 {score}, {report['seconds']:.0f} s"


def fine_tune(request: Any) -> dict[str, Any]:
    """Return the report of a run and the output of ``harness report``.

    Raises:
        RuntimeError: the run failed or left no report.
    """
    settings: dict[str, object] = {"device": request.device, **(TINY if request.tiny else SHORT)}
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    harness = [sys.executable, "-m", "harness"]
    with tempfile.TemporaryDirectory() as folder:
        command = [*harness, "run", "--out", folder, "--metrics", "rouge", *words]
        process = subprocess.run(command, check=False)
        reports = list(Path(folder).glob("*/report.json"))
        if not reports:
            raise RuntimeError(f"harness run ended with status {process.returncode}, see the log")
        report: dict[str, Any] = json.loads(reports[0].read_text("utf-8"))
        command = [*harness, "report", folder, "--format", "md"]
        shown = subprocess.run(command, capture_output=True, text=True, check=False)
        if report["status"] != "ok":
            raise RuntimeError(f"the run ended as {report['status']}: {report['failure']}")
        return {"report": report, "shown": shown.stdout}


if __name__ == "__main__":
    sys.exit(run_step(run))
