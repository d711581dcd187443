"""Reports as Python and notebooks use them: loaded, summarized, as a data frame and as HTML."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

import harness
from harness import HarnessError, Reports

SWEEP = Path(__file__).parents[3] / "results" / "sweep"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    ignored = shutil.ignore_patterns(".cache")
    return shutil.copytree(SWEEP, tmp_path / "results", ignore=ignored)


@pytest.fixture
def reports(results: Path) -> Reports:
    return harness.load_reports(results)


class Cells(HTMLParser):
    """Collects the elements and the texts of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_a_report_is_loaded_from_a_folder_or_its_file(results: Path) -> None:
    folder = min(results.iterdir())
    report = harness.load_report(folder)
    assert report.id == folder.name
    assert harness.load_report(str(folder / "report.json")) == report


def test_all_reports_of_a_folder_are_loaded_in_order(results: Path, reports: Reports) -> None:
    folders = sorted(path.name for path in results.iterdir())
    assert [run.report.id for run in reports] == folders
    assert len(reports) == len(folders)
    assert reports[-1].folder == results / folders[-1]
    assert [run.report.id for run in reports[:2]] == folders[:2]


def test_a_damaged_folder_is_skipped_and_listed(results: Path) -> None:
    (min(results.iterdir()) / "report.json").write_text("{")
    reports = harness.load_reports(results)
    assert len(reports) == len(list(results.iterdir())) - 1
    assert len(reports.skipped) == 1
    assert "is not a report" in reports._repr_html_()


def test_a_folder_without_runs_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="no finished runs"):
        harness.load_reports(tmp_path)


def test_the_summary_is_that_of_the_command(
    results: Path, reports: Reports, harness: Callable[..., Result]
) -> None:
    calls: list[None] = []
    summary = reports.summarize(["rouge1"], lambda: calls.append(None))
    assert len(calls) == reports.recipe_count == 6
    shown = harness("report", str(results), "--format", "json", "--metrics", "rouge1").stdout
    assert summary.model_dump(mode="json") == json.loads(shown)


def test_an_unknown_metric_is_an_error(reports: Reports) -> None:
    with pytest.raises(HarnessError, match="has the metric 'rouge7'"):
        reports.summarize(["rouge7"])


def test_a_data_frame_has_a_row_per_run_and_the_fields_of_reports(reports: Reports) -> None:
    frame = reports.to_pandas()
    assert len(frame) == len(reports)
    assert list(frame["recipe"]) == [run.report.recipe for run in reports]
    assert list(frame["quality.rouge1.value"]) == [
        run.report.quality["rouge1"].value for run in reports
    ]
    assert list(frame["folder"]) == [str(run.folder) for run in reports]
    assert not [name for name in frame.columns if "not_measured" in name]


def test_without_pandas_the_error_names_the_command(
    reports: Reports, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(HarnessError, match=r"pip install 'seq2seq-harness\[pandas\]'"):
        reports.to_pandas()


def test_reports_show_their_numbers_as_a_table(reports: Reports) -> None:
    texts = Cells(reports._repr_html_()).texts
    first = reports[0].report
    assert {"recipe", "rouge1", first.recipe, f"{first.quality['rouge1'].value:.2f}"} <= {*texts}


def test_a_report_shows_its_numbers_as_a_table(reports: Reports) -> None:
    report = reports[0].report
    texts = Cells(report._repr_html_()).texts
    assert {"training speed", "trained parameters", "peak memory", "rouge1"} <= {*texts}
    assert str(reports[0].folder) in Cells(reports[0]._repr_html_()).texts


def test_a_summary_shows_a_table_for_each_group(reports: Reports) -> None:
    page = Cells(reports.summarize(["rouge1"])._repr_html_())
    assert page.tags.count("table") == 1
    assert "lora_ff+lprun" in page.texts


@pytest.mark.parametrize("field", ["backbone", "recipe", "task"])
def test_text_of_a_report_is_never_markup(reports: Reports, field: str) -> None:
    run = reports[0]
    evil = run.report.model_copy(update={field: "<script>alert(1)</script>"})
    stored = run._replace(report=evil)
    collection = Reports(reports.folder, (stored,), (HarnessError("<script>"),))
    shown: list[Any] = [evil, stored, collection, collection.summarize()]
    for html in (view._repr_html_() for view in shown):
        assert "script" not in Cells(html).tags
        assert "<script>" in "".join(Cells(html).texts)


def test_a_failed_run_shows_how_it_ended(reports: Reports) -> None:
    from harness.records.report import Failure

    failure = Failure(phase="train", message="memory <b>ran</b> out")
    report = reports[0].report.model_copy(update={"status": "oom", "failure": failure})
    page = Cells(report._repr_html_())
    assert "b" not in page.tags
    assert "In the phase 'train': memory <b>ran</b> out" in "".join(page.texts)
