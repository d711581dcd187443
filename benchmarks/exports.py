"""Export every family and recipe, and print the differences as a table: docs/export.md has it.

The hard part is that each export is loaded by a fresh process of stock libraries, by the lines of
its model card, on all families, recipes and forms; the tests that do so fail where a prediction
differs. The models are tiny, with random weights and random updates that are larger than training
makes them.

    python benchmarks/exports.py
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]
TESTS = "tests/harness/export/test_entry.py"
MATRIX = "another_process or paper_counts"
HEADING = """\
| backbone | recipe | form | largest difference of logits | equal predictions |
| --- | --- | --- | --- | --- |"""


def main() -> None:
    """Run the tests and print their records."""
    with tempfile.TemporaryDirectory() as place:
        report = Path(place) / "report.xml"
        process = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", TESTS, "-k", MATRIX, f"--junitxml={report}"],
            cwd=ROOT,
            check=False,
        )
        # The file was written by pytest, from this repository's tests.
        properties = ElementTree.parse(report).iter("property")
        rows = sorted(item.attrib["value"] for item in properties if item.attrib["name"] == "row")
    print(HEADING, *rows, sep="\n")
    sys.exit(process.returncode)


if __name__ == "__main__":
    main()
