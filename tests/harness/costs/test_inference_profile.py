"""``harness profile --inference``: decoding of recipes beside one process of full fine-tuning."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

import harness as api
from harness.reporting.profile_table import profile_tables


@pytest.mark.slow
def test_a_profile_measures_decoding_if_requested(tiny_t5: Path) -> None:
    profile = api.profile(
        str(tiny_t5),
        "lprun",
        source_tokens=12,
        target_tokens=2,
        device="cpu",
        inference=True,
        settings={
            "train.batch_size": 1,
            "test.batch_size": 2,
            "test.beams": 1,
            "probe.steps": 1,
            "probe.rounds": 2,
        },
    )
    (row,) = profile.recipes
    found = row.inference
    assert found
    assert found.latency.relative
    assert found.throughput
    assert found.throughput.batch_size == 2
    assert found.memory.relative
    assert found.size.model_relative
    assert found.size.model_relative < 1
    assert "inference" not in row.not_measured
    console = Console(width=80)
    with console.capture() as captured:
        for table in profile_tables(profile):
            console.print(table)
    shown = captured.get()
    assert "decoding with the merged model" in shown
    *_, line = [line for line in shown.splitlines() if line.startswith("lprun ")]
    assert line.split()[1] == f"{1000 * found.latency.median_seconds:,.3g}"
    assert "\u2026" not in line  # No cell was cut.
