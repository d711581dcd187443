"""Step 4: tests marked ``gpu`` that are not slow and measure nothing, several files at a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from gpu.step import StepResult, run_step

ROOT = Path(__file__).parents[2]
MARGIN = 3.0
"""Seconds before the end of the step at which tests that still run are stopped."""
ENDED = (0, 1, 5)
"""Exit status of pytest after all tests passed, some failed, or there was none."""


def run_tests(result: StepResult, measuring: bool) -> str:
    """Run the tests of each file in its own process, so that one that dies loses no other file.

    Args:
        result: the result of the step.
        measuring: run the files whose tests measure, one after the other; otherwise all others, in
            as many processes as half the cores.
    """
    at_once = 1 if measuring else max(1, (os.cpu_count() or 1) // 2)

    def run_now(path: Path) -> dict[str, Any]:
        return run_file(path, result.seconds_left - MARGIN)

    with ThreadPoolExecutor(at_once) as threads:
        running = {
            name: threads.submit(run_now, path)
            for path in marked_files(ROOT / "tests", measuring, only_one=result.request.tiny)
            if not result.is_stored(name := str(path.relative_to(ROOT)))
        }
        for name, outcomes in running.items():
            result.case(name, outcomes.result)
    tested = [case for case in result.cases.values() if "failed" in case]
    failed_tests = [name for case in tested for name in case["failed"]]
    counts = {key: sum(case[key] for case in tested) for key in ("passed", "skipped")}
    result.wrong += failed_tests
    if result.request.device == "cuda" and not counts["passed"]:
        result.wrong.append("no test ran on the device")
    return (
        f"{counts['passed']} passed, {len(failed_tests)} failed, {counts['skipped']} skipped"
        f"{', first ' + failed_tests[0] if failed_tests else ''}"
    )


def measures(path: Path) -> bool:
    """Return whether a file's tests measure time or the memory of the device."""
    return path.parent.name == "measurement"


def marked_files(folder: Path, measuring: bool, only_one: bool = False) -> list[Path]:
    """Return the files that have tests marked ``gpu``, those with the most text first.

    Args:
        folder: the folder of the tests.
        measuring: return the files whose tests measure, or all others.
        only_one: return only one of them.
    """
    files = [
        path
        for path in folder.rglob("test_*.py")
        if measures(path) == measuring and "pytest.mark.gpu" in path.read_text("utf-8")
    ]
    files.sort(key=lambda path: (-path.stat().st_size, path))
    return files[-1:] if only_one else files


def run_file(path: Path, seconds: float) -> dict[str, Any]:
    """Run the marked tests of one file.

    Returns:
        Numbers of passed and skipped tests, failed tests -> their messages, and the seconds of each
        test. A ``failure`` says why there may be more tests.
    """
    with tempfile.TemporaryDirectory() as folder:
        outcomes, log = Path(folder) / "outcomes", Path(folder) / "log"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short"]
        command += ["-p", "gpu.outcomes", f"--outcomes={outcomes}", "--durations=5"]
        command += ["-m", "gpu and not slow", str(path)]
        failure = None
        with log.open("wb") as output:
            try:
                code = subprocess.run(
                    command,
                    cwd=ROOT,
                    env=environment(),
                    timeout=max(1.0, seconds),
                    check=False,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                ).returncode
            except subprocess.TimeoutExpired:
                failure = f"not done after {seconds:.0f} s"
            else:
                if code not in ENDED:
                    failure = f"pytest ended with status {code}"
        print(log.read_text("utf-8", errors="replace"), flush=True)
        return count(outcomes) | ({"failure": failure} if failure else {})


def environment() -> dict[str, str]:
    """Return this process's environment, in which the plugin is found."""
    paths = [str(ROOT / "benchmarks"), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def count(outcomes: Path) -> dict[str, Any]:
    """Count the outcomes in a file, see ``run_file``."""
    lines = outcomes.read_text("utf-8").splitlines() if outcomes.is_file() else []
    tests = [json.loads(line) for line in lines]
    by_outcome = {
        outcome: {test["test"]: test["message"] for test in tests if test["outcome"] == outcome}
        for outcome in ("passed", "skipped", "failed")
    }
    return {
        "passed": len(by_outcome["passed"].keys() - by_outcome["failed"].keys()),
        "skipped": len(by_outcome["skipped"]),
        "failed": by_outcome["failed"],
        "seconds_of_tests": {test["test"]: test["seconds"] for test in tests},
    }


run = partial(run_tests, measuring=False)

if __name__ == "__main__":
    sys.exit(run_step(run))
