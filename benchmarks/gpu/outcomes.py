"""Plugin of pytest that writes the outcome of each test to a file as soon as it is known.

A process that is killed, or whose time runs out, then loses no outcome.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MESSAGE_LENGTH = 1000
"""Characters of a message that are kept; the log has all of it."""


def pytest_addoption(parser: Any) -> None:
    """Add the option that names the file."""
    parser.addoption("--outcomes", type=Path, required=True)


def pytest_configure(config: Any) -> None:
    """Register the writer."""
    config.pluginmanager.register(_Writer(config.getoption("--outcomes")))


class _Writer:
    def __init__(self, file: Path) -> None:
        self._file = file

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when != "call" and report.passed:
            return
        crash = getattr(report.longrepr, "reprcrash", None)
        message = crash.message if crash else str(report.longrepr or "")
        outcome = {
            "test": report.nodeid.partition("::")[2],
            "outcome": report.outcome,
            "seconds": round(report.duration, 1),
            "message": message[:MESSAGE_LENGTH],
        }
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(outcome) + "\n")
