"""``harness report``: the table of a folder of runs, which may hold other files too."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from harness.records.report import Report
from harness.records.run_folder import RunFolder
from harness.reporting.summary import Summary

Harness = Callable[..., Result]
Finish = Callable[..., Path]


@pytest.fixture
def finish(tmp_path: Path, make_report: Callable[..., Report]) -> Finish:
    """Write the run of a recipe into the folder of all runs."""

    def finish(recipe: str, **changes: Any) -> Path:
        return RunFolder(tmp_path, changes.get("id", recipe)).finish(
            make_report(recipe=recipe, **changes)
        )

    return finish


def recipes(result: Result) -> list[str]:
    names = {"full", "lora_ff", "lprun"}
    return [
        word for line in result.stdout.splitlines() for word in line.split()[:1] if word in names
    ]


def test_all_runs_of_a_folder_are_shown(harness: Harness, finish: Finish, tmp_path: Path) -> None:
    for recipe in ("lprun", "lora_ff", "full"):
        finish(recipe)
    result = harness("report", str(tmp_path))
    assert result.exit_code == 0
    assert recipes(result) == ["full", "lora_ff", "lprun"]
    assert result.stderr == ""


def test_the_baseline_may_be_written_in_any_order_and_must_be_there(
    harness: Harness, finish: Finish, tmp_path: Path
) -> None:
    for recipe in ("lora_ff+lprun", "full"):
        finish(recipe)
    result = harness("report", str(tmp_path), "--baseline", "lprun+lora_ff", "--format", "json")
    assert result.exit_code == 0
    (group,) = Summary.model_validate_json(result.stdout).groups
    assert group.baseline == "lora_ff+lprun"
    assert [row.recipe for row in group.rows] == ["lora_ff+lprun", "full"]
    result = harness("report", str(tmp_path), "--baseline", "lora_ff+lprum", columns=1000)
    assert result.exit_code == 2
    assert "No run in" in result.output
    assert "Did you mean 'lora_ff+lprun'?" in result.output


def test_failed_runs_are_shown_with_their_status(
    harness: Harness, finish: Finish, tmp_path: Path
) -> None:
    finish("full")
    finish("lprun", status="nan", failure={"phase": "train", "message": "The loss is nan."})
    result = harness("report", str(tmp_path))
    assert result.exit_code == 0
    assert "nan" in result.stdout.split("lprun")[1].splitlines()[0]


def test_an_unfinished_run_is_not_a_result(
    harness: Harness, finish: Finish, tmp_path: Path
) -> None:
    finish("full")
    unfinished = RunFolder(tmp_path, "lprun")
    (unfinished.work / "report.json").write_text((tmp_path / "full" / "report.json").read_text())
    result = harness("report", str(tmp_path))
    assert recipes(result) == ["full"]
    assert result.stderr == ""


@pytest.mark.parametrize("content", ["", '{"schema_version": 1, "id"', '{"schema_version": 99}'])
def test_a_damaged_report_is_skipped_and_named(
    harness: Harness, finish: Finish, tmp_path: Path, content: str
) -> None:
    finish("full")
    damaged = finish("lprun") / "report.json"
    damaged.write_text(content)
    result = harness("report", str(tmp_path))
    assert result.exit_code == 0
    assert recipes(result) == ["full"]
    assert f"Skipped: {str(damaged)!r} is not a report of schema version 1" in result.stderr


def test_damaged_reports_alone_are_no_runs(
    harness: Harness, finish: Finish, tmp_path: Path
) -> None:
    (finish("full") / "report.json").write_text("{}")
    result = harness("report", str(tmp_path))
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Skipped: " in result.stderr
    assert "There are no finished runs" in result.stderr


@pytest.mark.parametrize(
    ("name", "complaint"),
    [(".", "There are no finished runs in"), ("missing", "There is no results folder")],
)
def test_without_runs_the_next_command_is_named(
    harness: Harness, tmp_path: Path, name: str, complaint: str
) -> None:
    result = harness("report", str(tmp_path / name))
    assert result.exit_code == 2
    assert complaint in result.stderr
    assert "harness run" in result.stderr
    assert "Traceback" not in result.output


def test_every_format_goes_to_the_terminal_or_a_file(
    harness: Harness, finish: Finish, tmp_path: Path
) -> None:
    finish("full")
    finish("lprun")
    starts = {"table": "tiny on notes", "md": "## tiny", "latex": "%", "csv": "backbone,task,"}
    for form, start in starts.items():
        shown = harness("report", str(tmp_path), "--format", form)
        assert shown.exit_code == 0, shown.output
        assert shown.stdout.startswith(start)
        out = tmp_path / f"report.{form}"
        written = harness("report", str(tmp_path), "--format", form, "--out", str(out))
        assert written.stdout == ""
        assert str(out) in written.stderr
        assert out.read_text() == shown.stdout


def test_the_json_is_the_summary(harness: Harness, finish: Finish, tmp_path: Path) -> None:
    finish("full")
    result = harness("report", str(tmp_path), "--format", "json", "--metrics", "rouge2,rouge1")
    summary = Summary.model_validate_json(result.stdout)
    assert summary.metrics == ["rouge2", "rouge1"]
    assert summary.groups[0].rows[0].quality["rouge1"].value.value == 41.25


def test_an_unknown_metric_is_an_error_that_lists_the_known(
    harness: Harness, finish: Finish, tmp_path: Path
) -> None:
    finish("full")
    result = harness("report", str(tmp_path), "--metrics", "rouge3")
    assert result.exit_code == 2
    assert "has the metric 'rouge3'" in result.stderr
    assert "rougeL" in result.stderr


def test_comparisons_are_shown_and_named(harness: Harness, finish: Finish, tmp_path: Path) -> None:
    finish("full", backbone="bart-large", task="mimic_discharge")
    shown = harness("report", str(tmp_path), "--compare", "paper").stdout
    assert "Table 4a" in shown
    assert "-2.21" in shown  # 41.25 less 43.46
    shown = harness("report", str(tmp_path), "--compare", str(tmp_path)).stdout
    assert "+0.00" in shown
    missing = harness("report", str(tmp_path), "--compare", str(tmp_path / "missing"))
    assert missing.exit_code == 2
    assert "There is no results folder" in missing.stderr


@pytest.fixture
def add_paper_reference(finish: Finish) -> None:
    """Write runs of two of the paper's tables, and one that the paper does not have."""
    for backbone, task in (("t5-large", "hcm"), ("facebook/bart-large", "mimic_discharge")):
        for recipe in ("full", "lora_ff+lprun"):
            size = 12_500_000_000 if recipe == "full" else 6_500_000_000
            finish(
                recipe,
                id=f"{task}-{recipe}",
                backbone=backbone,
                task=task,
                memory={"peak_bytes": size, "static_bytes": 10**9},
            )
    finish("full", id="nano", backbone="nano-t5")


@pytest.mark.usefixtures("add_paper_reference")
@pytest.mark.parametrize("columns", [80, 120])
def test_numbers_of_the_paper_and_of_runs_fit_a_terminal(
    harness: Harness, tmp_path: Path, columns: int
) -> None:
    result = harness("report", str(tmp_path), "--compare", "paper", columns=columns)
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= columns
    headings = [line.split() for line in lines if line.startswith("recipe ")]
    assert [words[3] for words in headings] == ["GB", "GB", "GiB"]
    title = lines.index("t5-large on hcm, 6 test examples")
    at = next(n for n, line in enumerate(lines) if n > title and line.startswith("recipe "))
    full, _, paper, difference = lines[at + 1 : at + 5]
    assert full.split()[-4:] == ["12.50", "41.25", "18.50", "33.00"]
    assert paper.split()[-6:] == ["737.6", "M", "31.01", "26.97", "6.83", "24.84"]
    # Speed was not measured, so it is not compared.
    assert difference.split()[1:] == ["-737.6", "M", "-18.51", "+14.28", "+11.67", "+8.16"]
    assert result.stdout.count("Table 4a") == 2
    assert "The paper has no numbers on this backbone and task." in result.stdout


@pytest.mark.usefixtures("add_paper_reference")
@pytest.mark.parametrize("form", ["md", "html"])
def test_numbers_of_the_paper_are_in_documents(harness: Harness, tmp_path: Path, form: str) -> None:
    if form == "html":
        pytest.importorskip("vl_convert")
    result = harness("report", str(tmp_path), "--compare", "paper", "--format", form)
    assert result.exit_code == 0, result.output
    headings = re.findall(r"peak (GB|GiB)(?: \||</button>)", result.stdout)
    assert headings == ["GB", "GB", "GiB"]
    assert result.stdout.count("-18.51") == 1


def test_neither_report_nor_help_imports_torch(finish: Finish, tmp_path: Path) -> None:
    finish("full")
    script = """
import sys
from typer.testing import CliRunner
from harness.cli.main import app
for arguments in (["report", sys.argv[1]], ["run", "--help"], ["report", "--help"], ["--help"]):
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
heavy = {"torch", "transformers", "datasets", "peft", "accelerate", "scipy", "pandas"}
print(sorted(heavy & set(sys.modules)))
"""
    command = [sys.executable, "-c", script, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.stdout.strip(), result.stderr) == ("[]", "")
