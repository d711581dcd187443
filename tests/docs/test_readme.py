"""The README's first screen shows the committed sweep."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from harness.records.run_folder import read_runs
from harness.reporting.aggregation import summarize
from harness.reporting.paired_comparison import Comparisons
from harness.reporting.summary import Estimate, InferenceRow, RecipeRow

ROOT = Path(__file__).parents[2]
SWEEP = ROOT / "results" / "sweep"
DECODING = ROOT / "results" / "inference"
FIRST_SCREEN = 40


def spread(estimate: Estimate, scale: float = 1) -> float:
    assert estimate.low is not None
    assert estimate.high is not None
    return scale * (estimate.high - estimate.low) / 2


def table_line(row: RecipeRow, decoding: InferenceRow | None) -> str:
    assert row.speed
    assert row.memory_relative
    assert decoding
    assert decoding.latency
    latency = decoding.latency
    scores = [row.quality[name].value for name in ("rouge1", "bleu")]
    cells = [
        f"`{row.recipe}`",
        f"{100 * row.speed.value:.0f} % ±{spread(row.speed, 100):.0f}",
        f"{100 * row.memory_relative:.0f} %",
        f"{row.trainable_pct:.1f} %",
        f"{100 * latency.value:.0f} % ±{spread(latency, 100):.0f}",
        f"{decoding.model_bytes / 1e6:.0f} MB",
        *(f"{score.value:.1f} ±{spread(score):.1f}" for score in scores),
    ]
    return f"| {' | '.join(cells)} |"


def test_the_first_screen_has_the_commands_the_picture_and_a_narrow_table_of_the_sweep() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()[:FIRST_SCREEN]
    summary = summarize(read_runs(SWEEP)[0], Comparisons(None))
    decoded = summarize(read_runs(DECODING)[0], Comparisons(None)).groups[0]
    costs = {row.recipe: row.inference for row in decoded.rows}
    expected = [table_line(row, costs[row.recipe]) for row in summary.groups[0].rows]
    shown = [line for line in lines if line.startswith("| `")]
    assert shown == expected
    assert "    harness run --backbone t5-large --compressor lora_ff+lprun --task hcm" in lines
    assert "    harness report results/" in lines
    assert any(re.fullmatch(r"!\[.+\]\(docs/tradeoff\.svg\)", line) for line in lines)
    largest = f"differed by up to {100 * (summary.groups[0].noise_floor or 1) - 100:.0f} %"
    assert largest in " ".join(lines)
    noise = max((cost.noise_floor or 1) for cost in costs.values() if cost)
    assert f"by up to {100 * noise - 100:.0f} % in decoding" in " ".join(lines)


def test_the_picture_is_drawn_by_its_script_from_the_sweep() -> None:
    pytest.importorskip("vl_convert")
    source = ROOT / "scripts" / "tradeoff.py"
    spec = importlib.util.spec_from_file_location("tradeoff_script", source)
    assert spec
    assert spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)

    def texts(svg: str) -> set[str]:
        return {text for node in ElementTree.fromstring(svg).iter() if (text := node.text)}

    committed = texts((ROOT / "docs" / "tradeoff.svg").read_text())
    assert texts(script.draw(SWEEP)) == committed
    assert {"full", "lprun", "lora_ff", "lora_ff+lprun", "lora_qv", "lora_qv+lprun"} <= committed
