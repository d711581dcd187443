"""The benchmarks of generation fail on work that would hide a mistake."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

Import = Callable[[str], ModuleType]


def fails(reason: str) -> Any:
    return pytest.raises(SystemExit, match=f"degenerate: .*{reason}")


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_output_must_show_a_lost_doubled_or_swapped_line(
    module: Import, tmp_path: Path
) -> None:
    check = module("generation").check_output
    rows = [{"id": n, "prediction": f"text {n}"} for n in range(1000) if n != 500]
    check(write(tmp_path / "a", rows), 1000)
    with fails("0 bad records"):
        check(write(tmp_path / "a", [*rows, rows[0]]), 1000)
    with fails("different predictions"):
        check(write(tmp_path / "a", [{**row, "prediction": "same"} for row in rows]), 1000)
    with fails("out of order"):
        check(write(tmp_path / "a", [*rows[1:], rows[0]]), 1000)
    with fails("out of order"):
        check(write(tmp_path / "a", [*rows[1:], rows[1]]), 1000)


def test_memory_that_grows_is_told_from_peaks_that_are_seen_by_chance(module: Import) -> None:
    curve = module("generation").MemoryCurve(None)
    swings = [0, 30, 0, 10, 0, 30, 30, 0, 10, 0, 30, 0]
    curve.samples = [(100, 0), *((1100 + 700 * n, 500 + up) for n, up in enumerate(swings))]
    assert abs(curve.growth(10_000)) < 5
    curve.samples = [(records, size + records // 100) for records, size in curve.samples]
    assert 85 < curve.growth(10_000) < 95
    with fails("samples of memory after the first tenth"):
        curve.growth(60_000)


def test_the_input_has_bad_records_and_unequal_lengths(module: Import, tmp_path: Path) -> None:
    benchmark = module("generation")
    lengths = benchmark.write_input(tmp_path / "in.jsonl", 1000)
    module("demands").demand_spread(lengths, "sources")
    lines = (tmp_path / "in.jsonl").read_text().splitlines()
    assert len(lines) == 1000
    with pytest.raises(ValueError, match="Unterminated string"):
        json.loads(lines[500])


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        ({"peer": ["a b"] * 8, "ours": ["a b"] * 8}, "2.0 words"),
        ({"peer": ["a b c d e f g h"] * 8, "ours": ["a b c d e f g h"] * 8}, "1 different texts"),
        (
            {
                "peer": [f"a b c d e f g {n}" for n in range(8)],
                "ours": [f"a b c d e f g {n % 7}" for n in range(8)],
            },
            "ours differs from peer in 1 predictions",
        ),
    ],
)
def test_speed_needs_a_full_search_with_equal_predictions(
    module: Import, texts: dict[str, list[str]], reason: str
) -> None:
    with fails(reason):
        module("generation_speed").check_predictions(texts, "peer", "ours")


def test_the_peer_of_speed_sorts_by_length_and_keeps_the_order(module: Import) -> None:
    import torch

    from harness import LoadedModel
    from harness.backbones.nano import NanoT5

    widths = []

    class Model:
        def generate(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            widths.append(input_ids.shape[1])
            return input_ids

    tokenizer = NanoT5("nano-t5").tokenizer()
    model: Any = Model()
    texts = ["one", "one two three four five", "one two", "one two three"]
    loaded = LoadedModel(model, tokenizer, "")
    assert module("generation_speed").transformers_loop(loaded, texts, 2) == texts
    assert widths == sorted(widths, reverse=True)
