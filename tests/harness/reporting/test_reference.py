"""Runs with reference numbers: those of the paper and of another folder."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.records.run_folder import read_runs
from harness.reporting.aggregation import summarize
from harness.reporting.paired_comparison import Comparisons
from harness.reporting.reference import add_folder_reference, add_paper_reference
from harness.reporting.summary import Summary
from harness.reporting.wording import reference_lines, signed

WriteRun = Callable[..., Path]


def summary_of(folder: Path) -> Summary:
    return summarize(read_runs(folder)[0], Comparisons(None))


def test_numbers_of_the_paper_are_added_to_its_rows(tmp_path: Path, write_run: WriteRun) -> None:
    scores = {"rouge1": [40.0, 44.0], "summac_conv": [50.0, 60.0], "rougeLsum": [1.0, 2.0]}
    where = {"task": "mimic_discharge"}
    write_run(tmp_path, scores, backbone="facebook/bart-large", recipe="lora_ff", id="a", **where)
    write_run(tmp_path, scores, backbone="facebook/bart-large", recipe="mine", id="b", **where)
    write_run(tmp_path, scores, backbone="nano-t5", id="c", **where)
    summary = summary_of(tmp_path)
    add_paper_reference(summary)
    bart, nano = summary.groups
    assert (bart.memory_unit, nano.memory_unit) == ("GB", "GiB")
    lora, mine = bart.rows
    assert lora.reference
    assert (lora.reference.speed, lora.reference.trainable) == (1.25, 4_000_000)
    assert lora.reference.memory_bytes == pytest.approx(27.25e9)
    assert lora.reference.quality["rouge1"] == 41.6
    assert lora.reference.quality["summac_conv"] == 56.25
    assert mine.reference is None
    assert any("A40" in note for note in bart.notes)
    assert any("no numbers on this backbone and task" in note for note in nano.notes)
    (source, paper_values), (label, difference) = reference_lines(
        lora, "GB", ["rouge1", "rougeLsum"]
    )
    assert (source, label) == ("Table 4a", "difference")
    assert paper_values == ["125 %", "4.0 M", "27.25", "41.60", "-"]
    assert difference == ["", "-4.0 M", "-26.18", "+0.40", ""]
    assert any("which variant of SummaC" in note for note in bart.notes)


@pytest.mark.parametrize(
    ("value", "reference", "written"),
    [(0.998, 1, "+0 %"), (1.002, 1, "+0 %"), (0.99, 1, "-1 %"), (1.2, 1, "+20 %"), (None, 1, "")],
)
def test_a_difference_that_rounds_to_zero_has_no_minus(
    value: float | None, reference: float, written: str
) -> None:
    assert signed(value, reference, 100, 0, " %") == written


def other_run(folder: Path, write_run: WriteRun, **changes: Any) -> None:
    speed = {
        "tokens_per_s": 500.0,
        "samples_per_s": 25.0,
        "relative": 1.5,
        "baseline": "probe",
        "engine": "packed",
        "schedule_sha256": "cd" * 32,
        "window_seconds": [1.0],
    }
    write_run(folder, {"rouge1": [40.0, 42.0]}, speed=speed, **changes)


def test_another_folder_with_an_equal_fingerprint_is_a_reference(
    tmp_path: Path, write_run: WriteRun
) -> None:
    other_run(tmp_path / "ours", write_run)
    other_run(tmp_path / "theirs", write_run)
    summary = summary_of(tmp_path / "ours")
    add_folder_reference(summary, summary_of(tmp_path / "theirs"), "theirs")
    reference = summary.groups[0].rows[0].reference
    assert reference
    assert (reference.speed, reference.memory_bytes) == (1.5, 2**30)
    assert reference.quality == {"rouge1": 41.0}
    assert reference.unlike == []


@pytest.mark.parametrize(
    ("field", "value", "lost", "note"),
    [
        ("fingerprint", {"threads": 9}, "speed", "threads (2, 9)"),
        ("decoding", "greedy", "quality", "decoded in different ways"),
        ("data", {"sha256": "00" * 32}, "quality", "seeds or data differ"),
    ],
)
def test_numbers_of_different_conditions_are_left_out_and_named(
    tmp_path: Path, write_run: WriteRun, field: str, value: Any, lost: str, note: str
) -> None:
    other_run(tmp_path / "ours", write_run)
    plain = json.loads(next(tmp_path.glob("ours/*/report.json")).read_text())[field]
    changed = {**plain, **value} if isinstance(value, dict) else value
    other_run(tmp_path / "theirs", write_run, **{field: changed})
    summary = summary_of(tmp_path / "ours")
    add_folder_reference(summary, summary_of(tmp_path / "theirs"), "theirs")
    (group,) = summary.groups
    reference = group.rows[0].reference
    assert reference
    assert (reference.speed is None) == (reference.memory_bytes is None) == (lost == "speed")
    assert (reference.quality == {}) == (lost == "quality")
    assert any(note in text for text in group.notes)


def test_different_signatures_and_settings_are_named(tmp_path: Path, write_run: WriteRun) -> None:
    other_run(tmp_path / "ours", write_run)
    other_run(tmp_path / "theirs", write_run)
    path = next(tmp_path.glob("theirs/*/report.json"))
    path.write_text(path.read_text().replace("rouge1|measure:f1", "rouge1|other"))
    summary = summary_of(tmp_path / "ours")
    add_folder_reference(summary, summary_of(tmp_path / "theirs"), "theirs")
    (group,) = summary.groups
    assert group.rows[0].reference
    assert group.rows[0].reference.quality == {}
    assert any("computed as rouge1|other there" in note for note in group.notes)

    other_run(tmp_path / "elsewhere", write_run, settings="ff")
    summary = summary_of(tmp_path / "ours")
    add_folder_reference(summary, summary_of(tmp_path / "elsewhere"), "elsewhere")
    assert summary.groups[0].rows[0].reference is None
    assert any("elsewhere has no runs" in note for note in summary.groups[0].notes)
