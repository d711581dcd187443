"""The files at the root agree with the package: version, changes, checks."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import yaml

import harness
from harness.records.run_folder import read_report

ROOT = Path(__file__).parents[2]


def read(name: str) -> str:
    return (ROOT / name).read_text()


def releases() -> list[str]:
    """The headings of the changelog, newest first."""
    return re.findall(r"(?m)^## (.+)$", read("CHANGELOG.md"))


def test_every_file_names_the_same_version() -> None:
    assert tomllib.loads(read("pyproject.toml"))["project"]["version"] == harness.__version__
    assert yaml.safe_load(read("CITATION.cff"))["version"] == harness.__version__
    newest = next(name for name in releases() if name != "Unreleased")
    assert newest.partition(" - ")[0] == harness.__version__


def test_the_changelog_is_cut_into_releases_with_dates_that_fall() -> None:
    unreleased, *dated = releases()
    assert unreleased == "Unreleased"
    dates = [re.fullmatch(r"\d+\.\d+\.\d+ - (\d{4}-\d\d-\d\d)", name) for name in dated]
    assert all(dates)
    days = [date[1] for date in dates if date]
    assert days == sorted(days, reverse=True)


def test_an_entry_of_the_changelog_is_one_line_under_a_known_heading() -> None:
    kinds = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]
    assert set(re.findall(r"(?m)^### (.+)$", read("CHANGELOG.md"))) <= set(kinds)
    changes = read("CHANGELOG.md").partition("## Unreleased")[2]
    assert not [line for line in changes.splitlines() if line and not re.match("- |##", line)]


def test_before_a_commit_the_checks_of_make_lint_are_run() -> None:
    (repository,) = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"]
    hooks = [hook["entry"].removesuffix(" --force-exclude") for hook in repository["hooks"]]
    lint = re.search(r"(?m)^lint:.*\n((?:\t.*\n)+)", read("Makefile"))
    assert lint
    commands = [line.strip().replace("$(BIN)", ".venv/bin") for line in lint[1].splitlines()]
    wanted = {command.replace(" --check", "") for command in commands}
    assert set(hooks) == wanted


def test_reports_of_earlier_versions_still_load() -> None:
    versions = {
        report.fingerprint.versions["harness"]
        for path in (ROOT / "results").rglob("report.json")
        if (report := read_report(path.parent)).fingerprint
    }
    assert "0.1.0" in versions
