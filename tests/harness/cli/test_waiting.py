"""The bar of ``harness report``: on a terminal, where there is something to wait for."""

import io
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.cli.waiting import Waiting
from harness.records.run_folder import read_runs
from harness.reporting.aggregation import summarize
from harness.reporting.paired_comparison import Comparisons


class Terminal(io.StringIO):
    """A stream that is one."""

    def isatty(self) -> bool:
        return True


def drawn(
    monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, after: float, shown: str = ""
) -> str:
    """Return what is drawn, waiting for ``shown`` before the last of three ticks."""
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    with Waiting("Comparing", 7, after) as waiting:
        waiting.on_progress()
        waiting.on_progress()
        if shown:
            while shown not in stream.getvalue():
                time.sleep(0.01)
        waiting.on_progress()
    return stream.getvalue()


def test_who_has_to_wait_sees_how_long(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = drawn(monkeypatch, Terminal(), after=0.01, shown="2/7")
    assert "Comparing" in shown
    assert shown.endswith("\x1b[2K")  # The line is cleared.


def test_nothing_is_drawn_that_would_be_gone_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert drawn(monkeypatch, Terminal(), after=60) == ""


def test_a_log_holds_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    assert drawn(monkeypatch, io.StringIO(), after=0.01) == ""


def test_every_run_and_every_recipe_is_counted(
    tmp_path: Path, write_run: Callable[..., Path]
) -> None:
    for recipe in ("full", "lprun"):
        for seed in (0, 1):
            write_run(tmp_path, {"rouge1": [1.0, 2.0]}, recipe=recipe, seed=seed)
    (write_run(tmp_path, {"rouge1": [1.0]}, recipe="lora_ff") / "report.json").write_text("{}")
    read: list[int] = []
    summed: list[int] = []
    runs, skipped = read_runs(tmp_path, on_progress=lambda: read.append(1))
    assert (len(runs), len(skipped), len(read)) == (4, 1, 5)
    summarize(runs, Comparisons(None), on_progress=lambda: summed.append(1))
    assert len(summed) == 2
