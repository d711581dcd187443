"""Step 1: the tests marked ``gpu``, all that are not slow."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from gpu.step import StepResult, run_step

ROOT = Path(__file__).parents[2]
FIRST_LINES = 300
"""Characters of a failed test's message that are kept; the log has it whole."""


def run(result: StepResult) -> str:
    """Run the tests of each file in turn, so that a file that kills its process costs no other."""
    for path in marked_files(ROOT / "tests", only_one=result.request.tiny):
        result.case(str(path.relative_to(ROOT)), partial(run_file, path, result.seconds_left))
    found = [case for case in result.cases.values() if "failure" not in case]
    bad = [name for case in found for name in case["failed"]]
    counts = {key: sum(case[key] for case in found) for key in ("passed", "skipped")}
    result.wrong += bad
    if result.request.device == "cuda" and not counts["passed"]:
        result.wrong.append("no test ran on the device")
    return (
        f"{counts['passed']} passed, {len(bad)} failed, {counts['skipped']} skipped"
        f"{', first ' + bad[0] if bad else ''}"
    )


def marked_files(folder: Path, only_one: bool = False) -> list[Path]:
    """Return the files that have tests marked ``gpu``, the quickest to import first."""
    files = [p for p in folder.rglob("test_*.py") if "pytest.mark.gpu" in p.read_text("utf-8")]
    files.sort(key=lambda path: (path.stat().st_size, path))
    return files[:1] if only_one else files


def run_file(path: Path, seconds: float) -> dict[str, Any]:
    """Run the marked tests of one file.

    Raises:
        TimeoutExpired: they took longer.
        RuntimeError: they did not come to their end.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short"]
        command += ["-m", "gpu and not slow", f"--junitxml={report}", str(path)]
        done = subprocess.run(command, cwd=ROOT, timeout=max(1.0, seconds), check=False)
        if not report.is_file():
            raise RuntimeError(f"pytest ended with status {done.returncode}")
        return read_report(report)


def read_report(report: Path) -> dict[str, Any]:
    """Count the outcomes in a JUnit report.

    Returns:
        Numbers of passed and skipped tests, and failed tests -> their messages.
    """
    passed, skipped = 0, 0
    failed: dict[str, str] = {}
    for test in ElementTree.parse(report).iter("testcase"):
        bad = next((e for e in test if e.tag in ("failure", "error")), None)
        if bad is not None:
            failed[test.get("name", "?")] = (bad.get("message") or "")[:FIRST_LINES]
        elif any(e.tag == "skipped" for e in test):
            skipped += 1
        else:
            passed += 1
    return {"passed": passed, "skipped": skipped, "failed": failed}


if __name__ == "__main__":
    sys.exit(run_step(run))
