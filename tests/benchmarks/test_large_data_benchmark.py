"""The benchmark of large data fails on work that would hide a mistake."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

Import = Callable[[str], ModuleType]


def run_with(module: ModuleType, events: list[tuple[float, str, int]]) -> Any:
    run = object.__new__(module.Run)
    run.events = [module.Event(*event) for event in events]
    return run


def test_texts_differ_and_their_lengths_spread_as_those_of_notes(
    module: Import, tmp_path: Path
) -> None:
    large = module("large_data")
    folder = large.write_folder(tmp_path / "data", 2000)
    rows = [json.loads(line) for line in (folder / "train.jsonl").open()]
    assert len(rows) == len({row["source"] for row in rows}) == 2000
    lengths = sorted(len(row["source"]) for row in rows)
    assert lengths[1900] > 5 * lengths[100]
    with pytest.raises(SystemExit, match="degenerate: sources are of much the same length"):
        module("demands").demand_spread([lengths[1000]] * 9, "sources")


def test_work_begins_anew_where_its_count_does(module: Import) -> None:
    large = module("large_data")
    load = [(2.0, 5_000), (3.0, 15_000), (3.5, 100), (3.6, 100), (4.0, 1_000), (5.1, 12_000)]
    events = [(1.0, "phase-load", 0), *((at, "load", rows) for at, rows in load)]
    works = run_with(large, events).works()
    assert works == {"read_seconds": 2.0, "tokenize_seconds": pytest.approx(1.5)}


def test_a_run_that_only_maps_its_data_has_no_works(module: Import) -> None:
    large = module("large_data")
    run = run_with(large, [(0.0, "start", 0), (2.0, "data", 0), (7.0, "train", 1)])
    assert large.timeline(run) == {"ready_seconds": 2.0, "first_step_seconds": 5.0}
    with pytest.raises(SystemExit, match="degenerate: no event"):
        large.timeline(run_with(large, [(2.0, "data", 0)]))


def test_the_memory_of_a_process_is_its_own_or_of_mapped_files(module: Import) -> None:
    import os

    large = module("large_data")
    assert os.getpid() in large.family(os.getppid())
    memory = large.memory_of(os.getpid())
    assert memory.own > 0
    assert memory.mapped > 0
