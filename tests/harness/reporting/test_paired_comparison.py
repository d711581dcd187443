"""Comparisons of many groups: equal in one and several processes, and all counted."""

from collections.abc import Callable
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import pytest

from harness.records.run_folder import StoredRun, read_runs
from harness.reporting.aggregation import summarize
from harness.reporting.paired_comparison import Comparisons


def test_several_processes_give_the_summary_of_one(
    tmp_path: Path, write_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    for task in ("one", "two", "three"):
        for recipe in ("full", "lprun"):
            write_run(tmp_path, {"rouge1": list(rng.normal(40, 9, 30))}, recipe=recipe, task=task)
    unread = write_run(tmp_path, {"rouge1": [1.0, 2.0]}, recipe="lora_ff", task="one")
    (unread / "predictions.jsonl").unlink()
    runs = read_runs(tmp_path)[0]
    monkeypatch.setattr("harness.reporting.paired_comparison._SMALL", 0)
    summaries, counts = [], []
    for processes in (1, 2):
        counted: list[int] = []
        comparisons = Comparisons(tmp_path if processes == 2 else None, processes)
        summaries.append(summarize(runs, comparisons, on_progress=lambda: counted.append(1)))  # noqa: B023
        counts.append(len(counted))
    assert summaries[0] == summaries[1]
    assert counts == [7, 7]
    rows = [row for group in summaries[0].groups for row in group.rows]
    assert [row.recipe for row in rows if row.not_compared] == ["lora_ff"]
    comparisons.keep()
    for path in tmp_path.glob("*/predictions.jsonl"):
        path.unlink()
    again = summarize(runs, Comparisons(tmp_path))
    compared = [row.quality for group in again.groups for row in group.rows]
    assert [quality["rouge1"].difference is None for quality in compared] == [
        row.quality["rouge1"].difference is None for row in rows
    ]


@pytest.fixture
def six_groups(
    tmp_path: Path, write_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> list[StoredRun]:
    rng = np.random.default_rng(0)
    for task in "abcdef":
        for recipe in ("full", "lprun"):
            write_run(tmp_path, {"rouge1": list(rng.normal(40, 9, 30))}, recipe=recipe, task=task)
    monkeypatch.setattr("harness.reporting.paired_comparison._SMALL", 0)
    return read_runs(tmp_path)[0]


def test_groups_of_a_process_that_dies_are_compared_here(six_groups: list[StoredRun]) -> None:
    before = set(active_children())

    def kill() -> None:
        for process in set(active_children()) - before:
            process.kill()

    summary = summarize(six_groups, Comparisons(None, processes=2), on_progress=kill)
    assert summary == summarize(six_groups, Comparisons(None))


def test_an_interrupt_leaves_no_process_behind(six_groups: list[StoredRun]) -> None:
    before = set(active_children())

    def interrupt() -> None:
        assert set(active_children()) > before
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        summarize(six_groups, Comparisons(None, processes=2), on_progress=interrupt)
    assert set(active_children()) <= before
