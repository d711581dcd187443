"""Costs of decoding in every format, on the front and in the notes."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from typer.testing import Result

from harness.records.inference import Inference
from harness.records.report import Report
from harness.records.run_folder import StoredRun
from harness.reporting.aggregation import summarize
from harness.reporting.answer import answer
from harness.reporting.cost_breakdown import breakdown_lines
from harness.reporting.documents import latex, markdown, notebook_html, table_csv
from harness.reporting.inference_row import inference_row, milliseconds
from harness.reporting.paired_comparison import Comparisons
from harness.reporting.summary import Front, Summary
from harness.reporting.table import table

MakeReport = Callable[..., Report]
Costs = Callable[..., dict[str, Any]]
HEADINGS = ["latency", "decode", "decode x16", "decode GiB", "model MB"]


def summary_of(*reports: Report, front: Front = "training") -> Summary:
    runs = [StoredRun(Path("nowhere"), report) for report in reports]
    return summarize(runs, Comparisons(None), front=front)


@pytest.fixture
def reports(make_report: MakeReport, inference_of: Costs) -> list[Report]:
    """Full fine-tuning, LoRA that decodes as fast, pruning that decodes twice as fast."""
    found = [
        make_report(
            recipe=recipe,
            id=recipe,
            inference=inference_of(
                latency=0.2 / speed, speed=speed, peak_bytes=size, model_bytes=model
            ),
        )
        for recipe, speed, size, model in [
            ("full", 1.0, 2**30, 26_000_000),
            ("lora_ff", 1.0, 2**30, 26_000_000),
            ("lprun", 2.0, 2**29, 19_000_000),
        ]
    ]
    for report in found:
        assert report.speed
        report.speed.relative, report.speed.relative_ci = 1.0, (0.95, 1.05)
    return found


@pytest.fixture
def old(make_report: MakeReport) -> Report:
    """A run that did not measure decoding."""
    return make_report(recipe="lora_qv", id="lora_qv")


def test_the_terminal_has_a_table_of_decoding(reports: list[Report], old: Report) -> None:
    shown = click.unstyle(table(summary_of(*reports, old)))
    part = shown.split("decoding:\n")[1].splitlines()
    assert re.split(r" {2,}|(?<=latency) |(?<=decode) ", part[0].strip())[0] == "recipe"
    assert all(heading in part[0] for heading in HEADINGS)
    (pruned,) = [line.split() for line in part if line.startswith("lprun ")]
    assert pruned == ["lprun", "100", "ms", "200", "%", "200", "%", "0.50", "19"]
    below = part[[line.startswith("lprun ") for line in part].index(True) + 1]
    assert below.split() == ["p95", "150", "ms", "181-221¹", "181-221¹", "50", "%"]
    assert max(map(len, shown.splitlines())) <= 80
    assert not any(line.startswith("lora_qv ") for line in part)
    assert "6 beams; every text gets 40 tokens." in " ".join(shown.split())
    note = "No decoding was measured (the run is of an older version): lora_qv."
    assert note in " ".join(shown.split())
    assert "A difference of decoding speed below 2 % is noise" in " ".join(shown.split())


def test_without_any_measurement_no_format_mentions_decoding(old: Report) -> None:
    summary = summary_of(old)
    texts = [table(summary), markdown(summary), latex(summary), notebook_html(summary)]
    for text in [*texts, table_csv(summary)]:
        assert "decod" not in text.replace("decoded in", "")
        assert "latency" not in text


def test_markdown_latex_and_html_have_the_columns(reports: list[Report], old: Report) -> None:
    summary = summary_of(*reports, old)
    lines = [line for line in markdown(summary).splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert rows[0][-5:] == HEADINGS
    by_name = {row[0]: row for row in rows}
    pruned = ["100 ms (p95 150 ms)", *["200 % (181-221, 1 seed)"] * 2, "0.50 (50 %)", "19"]
    assert by_name["lprun"][-5:] == pruned
    assert by_name[r"lora\_qv"][-5:] == ["-"] * 5
    assert {len(row) for row in rows} == {len(rows[0])}
    text = latex(summary)
    assert "decode x16" in text
    assert r"200 \% (181-221, 1 seed)" in text
    html = notebook_html(summary)
    assert "<th>decode x16</th>" in html
    assert "<td>100 ms (p95 150 ms)</td>" in html


def test_csv_and_json_hold_plain_numbers(reports: list[Report], old: Report) -> None:
    summary = summary_of(*reports, old)
    rows = {row["recipe"]: row for row in csv.DictReader(io.StringIO(table_csv(summary)))}
    pruned = rows["lprun"]
    assert float(pruned["inference_latency_seconds"]) == 0.1
    assert float(pruned["inference_latency"]) == pytest.approx(2)
    assert float(pruned["inference_latency_low"]) == pytest.approx(2 * (0.9 / 1.1) ** 0.5)
    assert pruned["inference_memory_bytes"] == str(2**29)
    assert rows["lora_qv"]["inference_latency_seconds"] == ""
    (group,) = json.loads(summary.model_dump_json())["groups"]
    (row,) = [row for row in group["rows"] if row["recipe"] == "lprun"]
    assert row["inference"]["throughput"]["value"] == pytest.approx(2)
    assert row["inference"]["not_measured"] == {}


def test_the_page_has_the_columns_and_the_chart(
    harness: Callable[..., Result],
    write_run: Callable[..., Path],
    inference_of: Costs,
    tmp_path: Path,
) -> None:
    pytest.importorskip("altair")
    results = tmp_path / "results"
    write_run(results, {"rouge1": [40.0, 42.0, 44.0]}, inference=inference_of(speed=1.0))
    costs = inference_of(latency=0.1, speed=2.0)
    write_run(results, {"rouge1": [40.0, 41.0, 45.0]}, recipe="lprun", inference=costs)
    path = tmp_path / "page.html"
    command = ["report", str(results), "--format", "html", "--out", str(path)]
    result = harness(*command, "--front", "inference")
    assert result.exit_code == 0, result.output
    text = path.read_text()
    assert 'data-column="decode x16"' in text
    assert '<td data-value="0.1">100 ms<small>p95 150 ms</small></td>' in text
    assert "R-1 against decoding speed" in text
    assert "on the Pareto front of decoding speed, decoding memory and quality" in text


def test_the_front_is_that_of_the_chosen_costs(reports: list[Report], old: Report) -> None:
    def front(name: Front, *runs: Report) -> dict[str, bool | None]:
        (group,) = summary_of(*runs, front=name).groups
        assert group.front == name
        return {row.recipe: row.on_front for row in group.rows}

    # Training costs and quality are equal: all are ties.
    assert set(front("training", *reports).values()) == {True}
    beaten = {"full": False, "lora_ff": False, "lprun": True}
    assert front("inference", *reports) == beaten
    # A recipe without the costs has no place, and does not take the others' away.
    assert front("inference", *reports, old) == {**beaten, "lora_qv": None}


def test_the_answer_names_a_difference_in_decoding_or_that_none_was_shown(
    reports: list[Report],
) -> None:
    full, lora, pruned = reports
    (group,) = summary_of(full, pruned).groups
    assert "decodes 2.00 times as fast (1.81 to 2.21)" in " ".join(answer(group, ["rouge1"]))
    (group,) = summary_of(full, lora).groups
    shown = " ".join(answer(group, ["rouge1"]))
    assert "no difference in decoding speed was shown (0.90 to 1.11)" in shown


def test_seeds_are_averaged_and_nulls_keep_their_reasons(inference_of: Costs) -> None:
    first, second = (
        Inference.model_validate(inference_of(latency=latency, speed=2.0, peak_bytes=size))
        for latency, size in ((0.1, 100), (0.3, 300))
    )
    second.latency.p95_seconds = None
    row = inference_row([first, second])
    assert row
    assert row.latency_seconds == pytest.approx(0.2)
    assert row.p95_seconds == pytest.approx(0.15)
    assert row.memory_bytes == 300
    assert row.latency
    assert row.latency.value == pytest.approx(2)
    assert row.latency.seeds == 2
    alone = Inference.model_validate(inference_of(throughput=None, per_token=None))
    alone.not_measured = {"throughput": "too long", "per_token": "too short"}
    row = inference_row([alone])
    assert row
    assert row.noise_floor is None
    assert row.not_measured["latency"] == "no baseline: off"
    assert row.not_measured["batch_size"] == "too long"
    assert row.not_measured["per_token_seconds"] == "too short"
    missing = {name for name in type(row).model_fields if getattr(row, name) is None}
    assert missing - {"memory_relative"} <= set(row.not_measured)
    assert inference_row([]) is None


def test_a_run_shows_what_decoding_costs(reports: list[Report]) -> None:
    (line,) = [line for line in breakdown_lines(reports[2]) if line.startswith("decoding: ")]
    assert "100 ms for one example" in line
    assert "640 tokens/s at batch 16" in line
    assert "19.0 MB on disk" in line


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.00123, "1.23 ms"), (0.05, "50 ms"), (0.9, "900 ms"), (12, "12,000 ms")]
)
def test_times_are_written_in_milliseconds(seconds: float, text: str) -> None:
    assert milliseconds(seconds) == text
