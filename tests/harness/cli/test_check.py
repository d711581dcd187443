"""``harness check``: its table, its JSON, its exit status, and the outcomes that are expected."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from harness.api.plugins import installed as plugins

Harness = Callable[..., Result]

EXPECTED = Path(__file__).parents[1] / "testing" / "expected.json"


@pytest.fixture
def faulty(tmp_path: Path, forget_plugins: None) -> Path:
    """A plugin of one file: a metric that cannot score an empty prediction."""
    source = Path(__file__).parents[1] / "testing" / "faulty.py"
    hooks = (
        "\n\nfrom harness import hookimpl\n\n\n@hookimpl\n"
        'def register_metrics(register):\n    register("dividing", Dividing, "divides")\n'
    )
    file = tmp_path / "faulty_metric.py"
    file.write_text(source.read_text() + hooks)
    return file


def test_a_metric_that_passes(harness: Harness) -> None:
    result = harness("check", "chrf")
    assert result.exit_code == 0, result.output
    assert "metric chrf" in result.stdout
    assert "✓ every text has a finite score" in result.stdout
    assert "all that apply passed" in result.stdout


def test_a_failure_has_its_reason_its_line_and_an_exit_status(
    harness: Harness, faulty: Path
) -> None:
    plugins.cache_clear()
    try:
        result = harness("check", "dividing", "--plugin", str(faulty), columns=300)
        assert result.exit_code == 1, result.output
        assert "✗ every text has a finite score" in result.stdout
        assert "ZeroDivisionError" in result.stdout
        lines = faulty.read_text().splitlines()
        number = next(n for n, line in enumerate(lines, 1) if "1 / len" in line)
        assert f"{faulty}:{number}" in result.stdout
        printed = json.loads(harness("check", "dividing", "--json").stdout)
        (report,) = printed
        failures = {r["check"]: r for r in report["results"] if r["outcome"] == "failed"}
        failure = failures["every text has a finite score"]
        assert failure["place"] == f"{faulty}:{number}"
    finally:
        plugins.cache_clear()


def test_expected_outcomes_are_written_once_and_compared(harness: Harness, tmp_path: Path) -> None:
    file = tmp_path / "expected.json"
    words = ("check", "chrf", "--expected", str(file))
    assert harness(*words).exit_code == 0
    outcomes = json.loads(file.read_text())
    assert outcomes["chrf"]["every text has a finite score"] == "passed"
    assert harness(*words).exit_code == 0
    outcomes["chrf"]["every text has a finite score"] = "does not apply: because"
    file.write_text(json.dumps(outcomes))
    result = harness(*words, columns=300)
    assert result.exit_code == 1
    assert "Not as expected: chrf: every text has a finite score: passed" in result.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "nothing to check"),
        (["lora_fff"], "no plugin 'lora_fff'"),
        (["lora_ff", "--kind", "metric"], "Unknown metric 'lora_ff'"),
    ],
)
def test_a_mistake_is_said(harness: Harness, words: list[str], message: str) -> None:
    result = harness("check", *words, columns=300)
    assert result.exit_code == 2, result.output
    assert message in result.output


@pytest.mark.slow
def test_several_processes_find_what_one_finds(harness: Harness, faulty: Path) -> None:
    plugins.cache_clear()
    words = ("check", "dividing", "chrf", "--plugin", str(faulty), "--json", "--jobs")
    try:
        one, two = (harness(*words, jobs) for jobs in ("1", "2"))
    finally:
        plugins.cache_clear()
    assert (one.exit_code, two.exit_code) == (1, 1), two.output
    found, other = (json.loads(result.stdout) for result in (one, two))
    assert [report["name"] for report in other] == ["dividing", "chrf"]
    assert [report["results"] for report in other] == [report["results"] for report in found]


@pytest.mark.slow
def test_every_built_in_compressor_has_the_expected_outcomes(harness: Harness) -> None:
    installed = {entry.name for entry in plugins().compressors}
    names = list(json.loads(EXPECTED.read_text()))
    assert {name.partition(":")[0] for name in names} == installed
    result = harness("check", *names, "--quick", "--expected", str(EXPECTED), columns=300)
    assert result.exit_code == 0, result.output
