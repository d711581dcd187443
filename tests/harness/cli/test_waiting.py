"""The progress bar of ``harness report``: only in a terminal, and only after a while."""

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
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


def drawn(
    monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, after: float, shown: str = ""
) -> str:
    """Return all output of three updates; wait for ``shown`` before the last one."""
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


def test_a_long_wait_shows_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = drawn(monkeypatch, Terminal(), after=0.01, shown="2/7")
    assert "Comparing" in shown
    assert shown.endswith("\x1b[2K")  # The line is cleared at the end.


def test_a_short_wait_shows_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    assert drawn(monkeypatch, Terminal(), after=60) == ""


def test_a_stream_that_is_no_terminal_shows_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
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
