"""Two runs compared by properties of their test examples."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from harness import HarnessError, StoredRun
from harness.diagnosis.quality_loss import (
    compare_by_property,
    novelty,
    position,
    reference_length,
    source_length,
)
from harness.records.run_folder import PREDICTIONS, read_report

WriteRun = Callable[..., Path]


def stored(folder: Path, sources: list[str] | None = None) -> StoredRun:
    """Return the run, with other sources if there are any."""
    path = folder / PREDICTIONS
    if sources:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for row, source in zip(rows, sources, strict=True):
            row["source"] = source
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return StoredRun(folder, read_report(folder))


def test_properties_by_hand() -> None:
    source, reference = "A cat sat on the mat. The cat slept.", "The cat, asleep."
    assert source_length(source, reference) == 9
    assert reference_length(source, reference) == 3
    assert novelty(source, reference) == pytest.approx(100 / 3)
    # "cat" is word 1 and "the" is word 4 of the words 0 to 8.
    assert position(source, reference) == pytest.approx(100 * 2.5 / 8)
    assert novelty(source, "...") is None
    assert position(source, "dogs") is None
    assert position("one", "one") is None


def test_a_loss_on_long_sources_shows_there_and_only_there(
    write_run: WriteRun, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    lengths = rng.permutation(np.arange(5, 85))
    sources = [" ".join(f"w{rng.integers(500)}" for _ in range(n)) for n in lengths]
    full = rng.normal(40, 10, 80)
    cheap = full + rng.normal(0, 2, 80) - 10 * (lengths >= 65)
    scores = {"full": full, "lora_ff": cheap}
    other, run = (
        stored(write_run(tmp_path, {"rouge1": values.tolist()}, recipe=recipe), sources)
        for recipe, values in scores.items()
    )
    found = {loss.by: loss for loss in compare_by_property(run, other)}
    bins = found["words of the source"].bins
    assert [(one.low, one.high, one.examples) for one in bins] == [
        (5, 24, 20),
        (25, 44, 20),
        (45, 64, 20),
        (65, 84, 20),
    ]
    long = lengths >= 65
    assert bins[3].value == pytest.approx(cheap[long].mean(), abs=1e-3)
    assert bins[3].against == pytest.approx(full[long].mean(), abs=1e-3)
    expected = cheap[long].mean() - full[long].mean()
    assert bins[3].difference.value == pytest.approx(expected, abs=1e-3)
    assert bins[3].p_value < 0.01
    assert all(one.p_value > 0.05 for one in bins[:3])
    # The sources share no words with the references, so that these have no position in them.
    assert "position of its words in the source, %" not in found
    every = [one.p_value for loss in found.values() for one in loss.bins]
    assert all(0 <= p <= 1 for p in every)


def test_runs_that_cannot_be_compared(write_run: WriteRun, tmp_path: Path) -> None:
    scores = {"rouge1": [float(i) for i in range(30)]}
    full = stored(write_run(tmp_path, scores))
    other = stored(write_run(tmp_path, {"bleu": scores["rouge1"]}, recipe="lprun"))
    with pytest.raises(HarnessError, match=r"no metric in common[^\n]*\n*"):
        compare_by_property(other, full)
    shorter = stored(write_run(tmp_path, {"rouge1": scores["rouge1"][:20]}, recipe="lora_ff"))
    with pytest.raises(HarnessError, match="different test examples"):
        compare_by_property(shorter, full)
    few = {"rouge1": scores["rouge1"][:9]}
    pair = [stored(write_run(tmp_path, few, seed=seed)) for seed in (1, 2)]
    with pytest.raises(HarnessError, match="9 test examples are too few"):
        compare_by_property(*pair)
