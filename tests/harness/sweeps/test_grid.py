"""The runs that a sweep's file or options describe."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import HarnessError
from harness.api.plugins import installed
from harness.reporting.paper import paper_cells
from harness.spec.run_spec import RunSpec
from harness.sweeps.grid import Grid, SweepFile, read_sweep, specs
from harness.sweeps.sweep import smaller


@pytest.mark.parametrize("table", ["3", "4a", "4b", "5a", "5b", "6"])
def test_each_table_of_the_paper_is_reproduced_cell_by_cell(table: str) -> None:
    resolved = specs(read_sweep(f"paper/table{table}"), {}, installed())
    printed = [(c.backbone, c.recipe, c.task) for c in paper_cells() if c.table == table]
    cells = [(s.backbone, s.recipe, s.task) for s in resolved]
    # Rank 16 is the default; canonical recipes omit defaults.
    assert sorted((b, r.replace(":r=16", ""), t) for b, r, t in cells) == sorted(
        (b, r.replace(":r=16", ""), t) for b, r, t in printed
    )
    assert {s.train.batch_size * s.train.accumulation for s in resolved} == {8}
    assert {s.preset for s in resolved} == {"paper"}


def test_settings_override_by_level_and_equal_runs_are_merged() -> None:
    grid = Grid(compressor=["full", "full", "lprun"], settings={"train": {"epochs": 2.0}})
    sweep = SweepFile(
        seeds=2, settings={"train": {"epochs": 1.0, "batch_size": 2}}, grid=[grid, grid]
    )
    resolved = specs(sweep, {"train": {"batch_size": 4}}, installed())
    assert [(s.recipe, s.seed) for s in resolved] == [
        ("full", 0),
        ("lprun", 0),
        ("full", 1),
        ("lprun", 1),
    ]
    assert {(s.train.epochs, s.train.batch_size) for s in resolved} == {(2.0, 4)}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (None, "There is no sweep"),
        ("grids = []\ngrid = [{}]", "has no option 'grids'"),
        ("seeds = 0\ngrid = [{}]", "seeds=0"),
        ("grid = []", "grid"),
    ],
)
def test_mistakes_in_a_file_are_named(tmp_path: Path, text: str | None, complaint: str) -> None:
    path = tmp_path / "mine.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(HarnessError, match=complaint):
        read_sweep(str(path) if text is not None else "paper/table33")


@given(st.integers(2, 96), st.integers(1, 4))
def test_a_smaller_micro_batch_keeps_the_optimizer_step(size: int, accumulation: int) -> None:
    part = smaller(size)
    assert 1 <= part <= size // 2
    spec = RunSpec.model_validate({"train": {"batch_size": size, "accumulation": accumulation}})
    divided = spec.with_micro_batch(part)
    assert divided.train.batch_size == part
    assert divided.train.batch_size * divided.train.accumulation == size * accumulation
    rest = {"train": {"batch_size", "accumulation"}}
    assert json.dumps(divided.model_dump(exclude=rest)) == json.dumps(spec.model_dump(exclude=rest))
