"""The live view in a real pseudo-terminal, narrow and wide, and in a pipe."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from rich.cells import cell_len

VIEW = """
from rich.console import Console
from harness import clock
from harness.sweeps.view import SweepView
from harness.spec.run_spec import RunSpec
from harness.sweeps.sweep import SweepCell

cells = [
    SweepCell(RunSpec(recipe=recipe, seed=seed), f"{recipe}-{seed}", recipe, 120, seed == 0)
    for seed in (0, 1)
    for recipe in ("full", "lora_ff+lprun", "lprun")
]
clock.use(clock.ManualClock())
with SweepView(Console(stderr=True, highlight=False), cells) as view:
    running, failed, short = cells[3], cells[4], cells[5]
    view.on_event(failed, {"event": "phase", "phase": "probe memory", "steps": None})
    view.on_event(failed, {"event": "finished", "status": "oom", "message": "why"})
    view.on_event(short, {"event": "shrunk", "micro_batch": 4})
    view.on_event(running, {"event": "phase", "phase": "train", "steps": 120})
    for step in range(1, 21):
        view.on_event(running, {"event": "step", "step": step})
        clock.sleep(0.05)
"""
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def in_terminal(columns: int) -> str:
    """Run the view in a terminal of this width; return its whole output."""
    own_end, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
    with subprocess.Popen(
        [sys.executable, "-c", VIEW],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env={**environment, "TERM": "xterm-256color"},
        close_fds=True,
    ) as process:
        os.close(terminal)
        output = b""
        while True:
            try:
                more = os.read(own_end, 65536)
            except OSError:  # The program has closed its end.
                break
            if not more:
                break
            output += more
    os.close(own_end)
    assert process.returncode == 0, output.decode()
    return output.decode()


def last_frame(output: str) -> list[str]:
    """Return the lines that the terminal shows at the end, after the last move of the cursor up."""
    frame = re.split(r"\x1b\[\d*A", output)[-1]
    return [line.rstrip() for line in CONTROL.sub("", frame).replace("\r", "").split("\n")]


@pytest.mark.parametrize("columns", [40, 80])
def test_each_cell_has_a_line_with_its_phase_and_time_left(columns: int) -> None:
    output = in_terminal(columns)
    assert output.count("\x1b[?25l") == output.count("\x1b[?25h") == 1  # It ends visible.
    lines = [line for line in last_frame(output) if line]
    assert len(lines) == 7
    assert all(cell_len(line) <= columns for line in lines)
    heading, *rows = lines
    assert heading.startswith("nano-t5 on radi")
    names = ["full, seed 0", "lora_ff+lprun, seed 0", "lprun, seed 0", "full, seed 1"]
    for row, name, phase in zip(rows, names, ["done before"] * 3 + ["train"], strict=False):
        assert row.startswith(name)
        assert phase in row
    running = rows[3].split()
    # At twenty steps per second the other hundred take five seconds.
    assert running[-1] == "0:05"
    if columns == 80:
        assert heading.split()[-4:] == ["steps", "per", "second", "left"]
        assert running[-3] == "20/120"
        assert float(running[-2]) == 20
        assert "(micro-batch 4)" in rows[5]
    assert rows[4].split()[-1] == "oom"


def test_a_log_has_a_line_for_each_change_and_no_control_characters(tmp_path: Path) -> None:
    process = subprocess.run(
        [sys.executable, "-c", VIEW], capture_output=True, check=True, text=True
    )
    assert process.stdout == ""
    assert process.stderr.splitlines() == [
        "nano-t5 x lora_ff+lprun on radiology_demo, seed 1: probe memory",
        "nano-t5 x lora_ff+lprun on radiology_demo, seed 1: oom",
        "nano-t5 x lprun on radiology_demo, seed 1: waiting, micro-batch 4",
        "nano-t5 x full on radiology_demo, seed 1: train",
    ]
