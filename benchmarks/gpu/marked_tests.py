"""Step 1: all tests marked ``gpu`` that are not slow."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from gpu.step import StepResult, run_step

ROOT = Path(__file__).parents[2]
AT_ONCE = 8
"""Files whose tests run at the same time."""
MESSAGE_LENGTH = 300
"""Characters of a failed test's message that are kept; the log has all of it."""


def run(result: StepResult) -> str:
    """Run the tests of each file in its own process, so that one that dies loses no other file."""
    files = marked_files(ROOT / "tests", only_one=result.request.tiny)
    with ThreadPoolExecutor(AT_ONCE) as threads:
        running = {
            path: threads.submit(run_file, path, result.seconds_left)
            for path in files
            if not measures(path)
        }
        for path in files:
            if path in running:
                result.case(str(path.relative_to(ROOT)), running[path].result)
    for path in filter(measures, files):  # When nothing else uses the device.
        result.case(str(path.relative_to(ROOT)), partial(run_file, path, result.seconds_left))
    finished = [case for case in result.cases.values() if "failure" not in case]
    failed_tests = [name for case in finished for name in case["failed"]]
    counts = {key: sum(case[key] for case in finished) for key in ("passed", "skipped")}
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


def marked_files(folder: Path, only_one: bool = False) -> list[Path]:
    """Return the files that have tests marked ``gpu``, the quickest to import first."""
    files = [p for p in folder.rglob("test_*.py") if "pytest.mark.gpu" in p.read_text("utf-8")]
    files.sort(key=lambda path: (path.stat().st_size, path))
    return files[:1] if only_one else files


def run_file(path: Path, seconds: float) -> dict[str, Any]:
    """Run the marked tests of one file.

    Raises:
        TimeoutExpired: the tests took longer than ``seconds``.
        RuntimeError: pytest ended without a report.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short"]
        command += ["-m", "gpu and not slow", f"--junitxml={report}", "--durations=5", str(path)]
        process = subprocess.run(
            command,
            cwd=ROOT,
            timeout=max(1.0, seconds),
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        sys.stdout.write(process.stdout.decode(errors="replace"))
        if not report.is_file():
            raise RuntimeError(f"pytest ended with status {process.returncode}")
        return read_report(report)


def read_report(report: Path) -> dict[str, Any]:
    """Count the outcomes in a JUnit report.

    Returns:
        Numbers of passed and skipped tests, and failed tests -> their messages.
    """
    passed, skipped = 0, 0
    failed: dict[str, str] = {}
    for test in ElementTree.parse(report).iter("testcase"):
        problem = next((e for e in test if e.tag in ("failure", "error")), None)
        if problem is not None:
            failed[test.get("name", "?")] = (problem.get("message") or "")[:MESSAGE_LENGTH]
        elif any(e.tag == "skipped" for e in test):
            skipped += 1
        else:
            passed += 1
    return {"passed": passed, "skipped": skipped, "failed": failed}


if __name__ == "__main__":
    sys.exit(run_step(run))
