"""Intervals that rest on one seed are marked at the number itself, in every format."""

import csv
import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import Result

Harness = Callable[..., Result]


@pytest.fixture
def results(tmp_path: Path, write_run: Callable[..., Path]) -> Path:
    """Runs of full fine-tuning and of one recipe with one seed, of another with three."""
    rng = np.random.default_rng(0)
    for recipe, seeds in (("full", 1), ("lora_ff", 1), ("lprun", 3)):
        for seed in range(seeds):
            scores = list(rng.normal(40, 5, 40).round(4))
            write_run(tmp_path, {"rouge1": scores}, recipe=recipe, seed=seed)
    return tmp_path


def line_of(shown: str, recipe: str, after: int = 0) -> str:
    lines = shown.splitlines()
    return lines[next(n for n, line in enumerate(lines) if recipe in line) + after]


def test_in_the_table(harness: Harness, results: Path) -> None:
    shown = harness("report", str(results)).stdout
    assert re.search(r"±\d\.\d\d¹", line_of(shown, "lora_ff ", after=1))
    assert re.search(r"±\d\.\d\d$", line_of(shown, "lprun ", after=1).rstrip())
    # Retention rests on the one seed of full fine-tuning, also for the recipe with three.
    retention = shown.partition("quality kept")[2].partition("\n\n")[0]
    assert re.search(r"\d+-\d+¹", line_of(retention, "lora_ff "))
    assert re.search(r"\d+-\d+¹", line_of(retention, "lprun "))
    assert "¹: of one seed or run, without the spread between several." in shown


def test_several_seeds_have_no_mark(harness: Harness, results: Path) -> None:
    for recipe in ("full", "lora_ff"):
        for path in results.glob(f"tiny-{recipe}-*/*"):
            path.unlink()
    assert "¹" not in harness("report", str(results)).stdout


def test_in_csv(harness: Harness, results: Path) -> None:
    text = harness("report", str(results), "--format", "csv").stdout
    full, lora, lprun = csv.DictReader(io.StringIO(text))
    assert [row["rouge1_seeds"] for row in (full, lora, lprun)] == ["1", "1", "3"]
    assert [row["rouge1_retention_seeds"] for row in (full, lora, lprun)] == ["", "1", "1"]


@pytest.mark.parametrize("form", ["md", "latex", "html"])
def test_in_documents_and_on_the_page(harness: Harness, results: Path, form: str) -> None:
    if form == "html":
        pytest.importorskip("vl_convert")
    shown = harness("report", str(results), "--format", form).stdout
    rows = shown.partition("<table")[2] if form == "html" else shown
    # Two rows have values and two have retention.
    assert len(re.findall(r"\d-\d+\.\d+, 1 seed", rows)) == 4


def test_where_a_recipe_is_recommended(harness: Harness, results: Path) -> None:
    shown = harness("recommend", str(results), "--min-quality", "50%").stdout
    assert re.search(r"keeps \d+\.\d % \(\d+\.\d-\d+\.\d, 1 seed\)|full", shown)
    refused = harness("recommend", str(results), "--min-quality", "99.9%").stdout
    assert re.search(r"keeps .*, 1 seed\), and may keep less", refused)
