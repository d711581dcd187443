"""The table of runs in a terminal of 80 columns."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from rich.cells import cell_len

from harness.records.report import Report
from harness.records.run_folder import StoredRun
from harness.reporting.aggregation import summarize
from harness.reporting.cost_breakdown import breakdown_lines
from harness.reporting.paired_comparison import Comparisons
from harness.reporting.summary import Estimate
from harness.reporting.table import table
from harness.reporting.text_columns import Line, in_columns

MakeReport = Callable[..., Report]


def show(*reports: Report, width: int = 80) -> str:
    runs = [StoredRun(Path("nowhere"), report) for report in reports]
    return click.unstyle(table(summarize(runs, Comparisons(None)), width))


def rows(shown: str) -> list[str]:
    """Return the lines from the first table's headings on, without the answer above."""
    lines = shown.splitlines()
    return lines[next(n for n, line in enumerate(lines) if line.startswith("recipe ")) :]


def cells(shown: str, recipe: str) -> list[str]:
    (line,) = [line for line in rows(shown) if line.startswith(f"{recipe} ")]
    return line.removeprefix(recipe).replace(" %", "%").replace(" k", "k").split()


def below(shown: str, recipe: str) -> list[str]:
    lines = rows(shown)
    (at,) = [n for n, line in enumerate(lines) if line.startswith(f"{recipe} ")]
    return lines[at + 1].replace(" %", "%").split()


def measured(report: Report, relative: float, interval: tuple[float, float]) -> Report:
    assert report.speed
    assert report.memory
    report.speed.relative, report.speed.relative_ci = relative, interval
    report.speed.noise_floor = 1.02
    report.memory.relative = 0.504
    return report


def test_a_row_holds_the_numbers_of_a_run(make_report: MakeReport) -> None:
    shown = show(measured(make_report(recipe="lora_ff"), 1.534, (1.5, 1.5688)))
    assert cells(shown, "lora_ff") == ["153%", "2.0k", "1.00", "41.25", "18.50", "33.00"]
    assert below(shown, "lora_ff") == ["±3%¹", "100.00%", "50%", *["±1.50¹"] * 3]
    assert "test examples" in shown.splitlines()[0]


def test_without_a_baseline_no_ratio_is_invented(make_report: MakeReport) -> None:
    shown = show(make_report())
    assert cells(shown, "full")[:3] == ["-", "2.0k", "1.00"]
    assert below(shown, "full") == ["100.00%", *["±1.50¹"] * 3]
    assert "quality kept" not in shown


def test_a_failed_run_shows_its_status_and_no_number(make_report: MakeReport) -> None:
    failure = {"phase": "train", "message": "no memory"}
    shown = show(make_report(), make_report(recipe="lprun", status="oom", failure=failure))
    assert cells(shown, "lprun") == ["oom"]
    assert "lprun, seed 0: oom in train." in shown


def test_runs_are_grouped_and_full_comes_first(make_report: MakeReport) -> None:
    reports = [
        make_report(recipe=recipe, backbone=backbone, task="notes")
        for backbone in ("b-two", "b-one")
        for recipe in ("lprun", "full", "lora_ff")
    ]
    shown = show(*reports)
    words = [line.split()[0] for line in shown.splitlines() if line[:1].strip()]
    labels = {"b-one", "b-two", "full", "lora_ff", "lprun"}
    recipes = ["full", "lora_ff", "lprun"]
    assert [word for word in words if word in labels] == ["b-one", *recipes, "b-two", *recipes]
    assert "b-one on notes" in shown


def test_the_notes_say_how_to_read_it(make_report: MakeReport) -> None:
    shown = " ".join(show(measured(make_report(), 1.5, (1.4, 1.6))).split())
    assert "speed below 2 % is noise, as full fine-tuning differed from itself" in shown
    assert "sampling of test examples only, not the spread between seeds" in shown
    assert "R-1, R-2, R-L: ROUGE F1; in percent." in shown
    assert "is noise" not in show(make_report())


def test_retried_allocations_come_with_advice(make_report: MakeReport) -> None:
    short, well = make_report(recipe="lprun"), make_report()
    assert short.memory
    assert well.memory
    short.memory.allocation_retries, well.memory.allocation_retries = 3, 0
    shown = " ".join(show(short, well).split())
    assert "lprun, seed 0: 3 allocations had to be tried again" in shown
    assert "expandable_segments:True" in shown
    assert shown.count("tried again") == 1
    assert any(line.startswith("memory: 3 allocations") for line in breakdown_lines(short))
    assert not any(line.startswith("memory:") for line in breakdown_lines(well))


def test_only_headings_that_are_shown_are_explained(make_report: MakeReport) -> None:
    report = make_report()
    quality = report.quality["rouge1"]
    names = ["rouge1", "rouge2", "rougeL", "bleu", "mine", "bleu1_precision", "bleu4_precision"]
    report.quality = dict.fromkeys(names, quality)
    explained = "R-1, R-2, R-L: ROUGE F1; BLEU: n-grams up to 4; P-1: BLEU's unigram precision"
    assert f"{explained}; in percent." in " ".join(show(report, width=80).split())
    assert f"{explained}; P-4: BLEU's 4-gram precision;" in show(report, width=200)


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_rows_fit_the_width_and_lose_no_number(make_report: MakeReport, width: int) -> None:
    large: dict[str, Any] = {
        "original": 737_668_096,
        "total": 737_668_096,
        "trainable": 737_668_096,
        "trainable_pct_of_original": 100.0,
        "trainable_pct_of_total": 100.0,
    }
    names = {"backbone": "b" * 70, "task": "t" * 70}
    recipes = ["full", "lora_qv+lprun", "lora_ff:alpha=16,dropout=0.05,r=8+lprun:strategy=top"]
    reports = [
        measured(make_report(recipe=recipe, parameters=large, **names), 2.47, (2.4, 2.5))
        for recipe in recipes
    ]
    for report in reports:
        assert report.memory
        report.memory.peak_bytes = 71 * 2**30
        quality = report.quality["rouge1"]
        report.quality = dict.fromkeys(("rouge1", "rougeL", "bleu", "chrf", "other"), quality)
    shown = show(*reports, width=width)
    assert max(map(cell_len, shown.splitlines())) <= width
    assert shown.count("737.7 M") == shown.count("71.00") == 3
    assert "b" * 70 in "".join(shown.split())
    columns = next(line for line in shown.splitlines() if line.startswith("recipe")).split()[4:]
    named = {"R-1": "rouge1", "R-L": "rougeL", "BLEU": "bleu", "chrF": "chrf", "other": "other"}
    unnamed = [metric for heading, metric in named.items() if heading not in columns]
    # Columns that do not fit are named.
    assert all(metric in " ".join(shown.split()).partition("Not shown")[2] for metric in unnamed)
    assert ("Not shown" in shown) == bool(unnamed)


def test_names_cannot_send_control_characters(make_report: MakeReport) -> None:
    shown = show(make_report(backbone="model[/v2]\x1b[31m", task="notes [old]\n\u202e"))
    assert "model[/v2]\ufffd[31m on notes [old]\ufffd\ufffd" in shown
    assert "\x1b" not in shown


def test_cells_align_by_their_width_on_a_screen() -> None:
    lines = [Line(["名前", "1"]), Line(["a", "10"])]
    assert list(in_columns(lines, 80)) == ["名前  1", "a    10"]


def test_a_long_first_cell_wraps_and_loses_nothing() -> None:
    shown = list(in_columns([Line(["x" * 30, "123456"])], 20))
    assert "".join(shown).replace(" ", "").replace("123456", "") == "x" * 30
    assert max(map(len, shown)) <= 20


def test_marks_of_front_and_significance(make_report: MakeReport) -> None:
    runs = [
        StoredRun(Path("nowhere"), measured(make_report(recipe=recipe), speed, (speed, speed)))
        for recipe, speed in (("full", 1.0), ("lprun", 1.5))
    ]
    summary = summarize(runs, Comparisons(None))
    full, lprun = summary.groups[0].rows
    assert (full.on_front, lprun.on_front) == (False, True)
    lprun.quality["rouge1"].p_value = 0.01
    lprun.quality["rouge1"].retention = Estimate(value=0.912, low=0.9, high=0.93)
    shown = click.unstyle(table(summary, 80))
    first, second = [line for line in rows(shown) if line.startswith("lprun")][:2]
    assert "•" in first
    assert "41.25*" in first
    assert "18.50*" not in first
    assert second.split() == ["lprun", "91.2*", "90-93"]
    assert "p < 0.05 after Holm" in shown
    assert "Pareto front" in shown
