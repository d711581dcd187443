"""The table of runs, as a terminal of 80 columns shows it."""

from collections.abc import Callable
from io import StringIO
from typing import Any

from rich.console import Console

from harness.reporting.report import Report
from harness.reporting.table import results_table

MakeReport = Callable[..., Report]


def show(*reports: Report) -> str:
    console = Console(width=80, file=StringIO(), highlight=False)
    console.print(results_table(reports))
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def row(table: str, recipe: str) -> list[str]:
    (line,) = [line for line in table.splitlines() if line.startswith(f"{recipe} ")]
    return line.removeprefix(recipe).replace(" %", "%").split()


def measured(report: Report, relative: float, interval: tuple[float, float]) -> Report:
    assert report.speed
    assert report.memory
    report.speed.relative, report.speed.relative_ci = relative, interval
    report.speed.noise_floor = 1.02
    report.memory.relative = 0.504
    return report


def test_a_row_holds_the_numbers_of_a_run(make_report: MakeReport) -> None:
    report = measured(make_report(recipe="lora_ff"), 1.534, (1.49, 1.58))
    cells = row(show(report), "lora_ff")
    expected = ["153%", "149-158", "2,000", "100.00", "1.00", "50%", "41.25", "18.50", "33.00"]
    assert cells == expected


def test_without_a_baseline_no_ratio_is_invented(make_report: MakeReport) -> None:
    cells = row(show(make_report()), "full")
    assert cells == ["-", "-", "2,000", "100.00", "1.00", "-", "41.25", "18.50", "33.00"]


def test_a_failed_run_shows_its_status_and_no_number(make_report: MakeReport) -> None:
    failure = {"phase": "train", "message": "no memory"}
    shown = show(make_report(), make_report(recipe="lprun", status="oom", failure=failure))
    assert row(shown, "lprun") == ["oom"]


def test_runs_are_grouped_and_full_comes_first(make_report: MakeReport) -> None:
    reports = [
        make_report(recipe=recipe, backbone=backbone, task="notes")
        for backbone in ("b-two", "b-one")
        for recipe in ("lprun", "full", "lora_ff")
    ]
    first_words = [line.split()[0] for line in show(*reports).splitlines() if line.strip()]
    recipes = ["full", "lora_ff", "lprun"]
    expected = ["recipe", "b-one", "notes", *recipes, "b-two", "notes", *recipes]
    assert first_words[: len(expected)] == expected


def test_seeds_are_told_apart_where_there_are_several(make_report: MakeReport) -> None:
    one, two = make_report(seed=0), make_report(seed=1)
    assert "full s0" not in show(one)
    assert row(show(one, two), "full s1")


def test_the_notes_say_how_to_read_it(make_report: MakeReport) -> None:
    shown = " ".join(show(measured(make_report(), 1.5, (1.4, 1.6))).split())
    assert "differed by 2 % at most" in shown
    assert "on 6 test examples" in shown
    assert "differed" not in show(make_report())


def test_the_longest_rows_fit_eighty_columns(make_report: MakeReport) -> None:
    large: dict[str, Any] = {
        "original": 737_668_096,
        "total": 737_668_096,
        "trainable": 737_668_096,
        "trainable_pct_of_original": 100.0,
        "trainable_pct_of_total": 100.0,
    }
    recipes = ["full", "lora_qv+lprun"]
    names = {"backbone": "b" * 70, "task": "t" * 70}
    reports = [
        measured(make_report(recipe=recipe, parameters=large, **names), 2.47, (2.4, 2.5))
        for recipe in recipes
    ]
    for report in reports:
        assert report.memory
        report.memory.peak_bytes = 71 * 2**30
    shown = show(*reports)
    assert max(map(len, shown.splitlines())) <= 80
    assert "…" not in shown
    assert shown.count("737,668,096") == 2
    # Long names fold within their column; no character of them is lost.
    assert "b" * 70 + "t" * 70 in "".join(shown.split())


def test_names_with_brackets_are_not_markup(make_report: MakeReport) -> None:
    shown = show(make_report(backbone="model[/v2]", task="notes [old]"))
    assert "model[/v2]" in shown
    assert "notes [old]" in shown
